"""Faults of the machine that DALI meets, at build, feed and take: none is taken for an image's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("nvidia.dali")

from engine.decode.dali import DaliDecoder
from engine.decode.dali.graph import Graph
from engine.decode.source import ImageSource
from engine.errors import DeviceLost, MachineFault, OutOfMemory
from engine.recipes import Recipe

NO_CUDA = (
    'Assert on "!params.device_id.has_value() || cuInitChecked()" failed: You are trying to create a GPU '
    "DALI pipeline while CUDA is not available. Please install CUDA or set `device_id = None` in Pipeline "
    "constructor. If running inside Docker container, you may need to use  `--gpus` option."
)
PIPELINE = "Critical error in pipeline:\nError in MIXED operator `nvidia.dali.fn.decoders.image`:\n"
#: As DALI 2.4 words them, in whatever class its C++ threw, and the fault that each is.
MESSAGES: list[tuple[Exception, type[MachineFault], str]] = [
    (RuntimeError(NO_CUDA), MachineFault, "CUDA is not available"),
    (RuntimeError("Failed to load CUDA driver! cuInit(0) failed"), MachineFault, "CUDA driver"),
    (RuntimeError("cuInit(0) returned 100"), MachineFault, "cuInit"),
    (RuntimeError("nvml error (9): nvml: NVIDIA driver is not loaded"), MachineFault, "nvml"),
    (RuntimeError("nvml error (15): nvml: the GPU has fallen off the bus"), DeviceLost, "fallen off the bus"),
    (IndexError(PIPELINE + "CUDA runtime API error cudaErrorMemoryAllocation (2):\nout of memory"),
     OutOfMemory, "cudaErrorMemoryAllocation"),
    (ValueError(PIPELINE + "CUDA runtime API error cudaErrorIllegalAddress (700):\nan illegal memory access"),
     DeviceLost, "cudaErrorIllegalAddress"),
    (MemoryError(PIPELINE + "CUDA allocation failed"), OutOfMemory, "CUDA allocation failed"),
    (MemoryError("std::bad_alloc"), OutOfMemory, "bad_alloc"),
]  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    generator = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / f"{i}.jpg")
    return ImageSource(root=tmp_path, uris=[f"{i}.jpg" for i in range(4)])


def decoder(device: str = "cpu") -> DaliDecoder:
    return DaliDecoder(Recipe(size=32, crop=32), device=device, threads=1, batch_size=4)


def failing(error: Exception) -> object:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("step", ["_build", "feed", "take"])
@pytest.mark.parametrize(("error", "kind", "words"), MESSAGES, ids=lambda value: str(value)[:30])
def test_the_machine_is_at_fault(
    source: ImageSource,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: Exception,
    kind: type[MachineFault],
    words: str,
) -> None:
    monkeypatch.setattr(Graph, step, failing(error))
    with decoder() as decode, pytest.raises(MachineFault, match=words) as caught:
        list(decode.stream(source, [range(4)]))
    assert type(caught.value) is kind
    assert ("--batch-size" in caught.value.remedy) == (kind is OutOfMemory)


@pytest.mark.parametrize("first", [False, True])
def test_a_pipeline_that_cannot_be_built_is_no_images_fault(
    source: ImageSource, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """At first, or again after an image broke one: the reference renderer does not step in."""
    build = Graph._build
    built: list[object] = []

    def fragile(graph: Graph) -> object:
        if first or built:
            raise RuntimeError("a plugin is missing")
        built.append(graph)
        return build(graph)

    monkeypatch.setattr(Graph, "_build", fragile)
    if not first:
        monkeypatch.setattr(Graph, "take", failing(RuntimeError("an image broke it")))
    with decoder() as decode, pytest.raises(MachineFault, match="a plugin is missing"):
        list(decode.stream(source, [range(4)]))


def test_an_images_failure_still_costs_its_row_only(
    source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, taken = Graph.take, []

    def first_fails(graph: Graph) -> torch.Tensor:
        taken.append(graph)
        if len(taken) == 1:
            raise RuntimeError(PIPELINE + "nvJPEG error (2): NVJPEG_STATUS_BAD_JPEG")
        return take(graph)

    monkeypatch.setattr(Graph, "take", first_fails)
    with decoder() as decode:
        (batch,) = decode.stream(source, [range(4)])
    assert batch.failures == {} and batch.fallbacks == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_dalis_own_words_without_a_gpu(source: ImageSource) -> None:
    with decoder("cuda:0") as decode, pytest.raises(MachineFault, match="CUDA is not available"):
        list(decode.stream(source, [range(4)]))
