"""Memory that is out and devices that fail end every command with 3, the fault and a remedy: injected, with
the libraries' own messages, where device or memory are touched."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cli
from benchmarks.faults.kill import problems_of
from engine import runtime
from engine.decode.dali.graph import Graph
from engine.embed import run as extract
from engine.embed import worker as chunks
from engine.evals.invariance import statistics as whiteners
from engine.evals.invariance import view_features
from engine.evals.neighbours import search
from engine.evals.saliency import occluder
from engine.kernels import near_duplicates, prototypes, topk, whitening
from engine.kernels.logistic import solver as logistic
from engine.models import resolve
from engine.models.forward import encoder
from engine.recipes import load_recipe
from stores.bank.reader import Bank
from stores.bank.records import read_all
from stores.manifest.manifest import Manifest
from tests.command import Ran, embank
from tests.engine.evals.invariance_banks import MODEL, build
from tests.engine.test_faults import ILLEGAL, TORCH_OOM
from tests.probe_banks import FIRST, make_probe_bank

pytestmark = pytest.mark.slow

N, BATCH, ROWS = 44, 8, 16
DEVICE_MEMORY, DEVICE, HOST_MEMORY = (
    "The device is out of memory",
    "The device failed",
    "This machine is out of memory",
)
#: What is raised, and how the fault then begins.
FAULTS: dict[str, tuple[Exception, str]] = {
    "out of memory": (torch.OutOfMemoryError(TORCH_OOM), DEVICE_MEMORY),
    "cublas": (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), DEVICE_MEMORY),
    "cudnn": (RuntimeError("GET was unable to find an engine to execute this computation"), DEVICE_MEMORY),
    "lost": (torch.AcceleratorError(ILLEGAL), DEVICE),
    "faiss": (RuntimeError("Faiss assertion; details: CUDA error 700 an illegal memory access"), DEVICE),
    "host": (MemoryError("Unable to allocate 9.00 GiB for an array"), HOST_MEMORY),
}  # fmt: skip


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.fixture(params=["out of memory", "lost", "host"])
def fault(request: pytest.FixtureRequest) -> tuple[Exception, str]:
    return FAULTS[request.param]


def ended_well(ran: Ran, begins: str) -> None:
    assert ran.code == 3, ran.err
    assert begins in ran.err
    assert "rule:" in ran.err
    assert "remedy:" in ran.err
    assert "Traceback" not in ran.err


# --- evaluations ---


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_probe_bank(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return build(tmp_path_factory.mktemp("pictured"), 24)


#: Where each evaluation fails: its innermost function that computes.
EVALUATIONS: dict[str, tuple[object, str, tuple[object, ...]]] = {
    "few-shot": (
        prototypes, "predict", ("fewshot", "--n-shot", 3, "--n-query", 3, "--n-way", 2, "--episodes", 5)
    ),
    "k-NN": (topk, "by_array", ("knn", "--backend", "array")),
    "search": (search, "nearest", ("search", "--id", "image 3")),
    "audit": (near_duplicates, "_above", ("bank", "audit")),
    "probe": (logistic, "minimise", ("probe", "--c-min", 0.01, "--c-max", 1, "--values", 3)),
}  # fmt: skip
ROTATION = ("invariance", "--transform", "rotation", "--views", 8)
ON_IMAGES: dict[str, tuple[object, str, tuple[object, ...]]] = {
    "covariance": (whiteners, "moments", ("invariance", "--multi-view")),
    "whitening": (whitening.Whitening, "_block", ("invariance", "--multi-view")),
    "views": (view_features, "render", (*ROTATION, "--images", 2)),
    "views' copies": (runtime.HostCopy, "wait", (*ROTATION, "--images", 3)),
    "query": (encoder.Encoder, "__call__", ("search",)),
    "saliency": (occluder, "occlude", ("saliency", "--stride", 10, "--images", 1)),
}  # fmt: skip


def evaluate(bank: Path, model: str, words: tuple[object, ...]) -> Ran:
    at = 2 if words[0] == "bank" else 1
    return embank(*words[:at], bank, "--model", model, *words[at:], "--device", "cpu")


@pytest.mark.parametrize("evaluation", EVALUATIONS)
@pytest.mark.parametrize("kind", FAULTS)
def test_an_evaluation(bank: Bank, evaluation: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, name, words = EVALUATIONS[evaluation]
    error, begins = FAULTS[kind]
    monkeypatch.setattr(place, name, failing(error))
    ended_well(evaluate(bank.path, FIRST, words), begins)


@pytest.mark.parametrize("evaluation", ON_IMAGES)
def test_an_evaluation_of_images(
    pictured: Bank,
    evaluation: str,
    fault: tuple[Exception, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    place, name, words = ON_IMAGES[evaluation]
    error, begins = fault
    if evaluation == "query":
        Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "query.png")
        words = (*words, "--image", tmp_path / "query.png")
    elif evaluation == "saliency":
        words = (*words, "-o", tmp_path / "out")
    monkeypatch.setattr(place, name, failing(error))
    ran = evaluate(pictured.path, MODEL, words)
    ended_well(ran, begins)
    assert "--batch-size" not in ran.err  # these have none


# --- embedding ---


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A manifest of 44 images, one of them bad, and the bank that they make undisturbed."""
    root = tmp_path_factory.mktemp("embed")
    (root / "images").mkdir()
    generator = np.random.default_rng(0)
    for i in range(N):
        noise = generator.integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(noise).save(root / "images" / f"{i:02}.png")
    (root / "images" / "13.png").write_bytes(b"nothing")
    (root / "recipe.json").write_text(json.dumps({"size": 32, "crop": 32}))
    made = embank("manifest", "folder", root / "images", "-o", root / "m.parquet")
    assert made.code == 0, made.err
    found = {"manifest": root / "m.parquet", "recipe": root / "recipe.json", "truth": root / "truth"}
    assert embed(found, found["truth"]).code == 0
    return found


def embed(files: dict[str, Path], bank: Path, *more: object) -> Ran:
    words = ("--model", MODEL, "--recipe", files["recipe"], "--device", "cpu", "--threads", 1)
    sizes = ("--batch-size", BATCH, "--chunk-rows", ROWS, "--max-failed", 1)
    return embank("embed", files["manifest"], "--bank", bank, *words, *sizes, *more)


PLACES: dict[str, tuple[object, str]] = {
    "upload": (runtime, "to_device"),
    "encoder": (encoder.Encoder, "__call__"),
    "copy": (runtime.HostCopy, "wait"),
    "DALI": (Graph, "feed"),
}


def images_of(place: str, arguments: tuple[Any, ...]) -> int:
    """Images in the batch that a place was given."""
    if place == "copy":
        return len(arguments[0].host)
    return len(arguments[0] if place == "upload" else arguments[1])


@pytest.fixture
def disturb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Have a place raise an error for batches of more images than `fits`, `after` calls that went well."""

    def disturb(place: str, error: Exception, fits: int, after: int = 0) -> list[int]:
        where, name = PLACES[place]
        original, calls = getattr(where, name), list[int]()

        def disturbed(*arguments: Any) -> Any:
            calls.append(images_of(place, arguments))
            if calls[-1] > fits and len(calls) > after:
                raise error
            return original(*arguments)

        monkeypatch.setattr(where, name, disturbed)
        return calls

    return disturb


@pytest.fixture
def fresh(files: dict[str, Path]) -> Path:
    """A bank that is not there yet, beside the undisturbed one: banks hold the way to the images."""
    return Path(tempfile.mkdtemp(dir=files["truth"].parent)).with_suffix(".bank")


def decoder_for(place: str) -> tuple[str, str]:
    return ("--decoder", "dali" if place == "DALI" else "turbo")


@pytest.mark.parametrize("place", PLACES)
def test_embedding_ends_with_3_and_resumes(
    files: dict[str, Path],
    place: str,
    fault: tuple[Exception, str],
    disturb: Callable[..., list[int]],
    monkeypatch: pytest.MonkeyPatch,
    fresh: Path,
) -> None:
    error, begins = fault
    with monkeypatch.context():
        calls = disturb(place, error, 0)
        ran = embed(files, fresh, *decoder_for(place))
    ended_well(ran, begins)
    halved = {size for size in calls if size <= BATCH // 2}
    if begins == DEVICE:
        assert not halved
    else:
        assert halved
        assert "lower the batch (`embank embed --batch-size N`)" in ran.err
    monkeypatch.undo()
    again = embed(files, fresh, *decoder_for(place), "--batch-size", 2, "--json")
    assert again.code == 0, again.err
    assert (again.json["rows"], again.json["failed"], again.json["notes"]) == (N, 1, [])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("after", [0, 4])
def test_half_a_batch_fits(
    files: dict[str, Path], place: str, after: int, disturb: Callable[..., list[int]], fresh: Path
) -> None:
    """The bank is the undisturbed one, bit for bit; record and user are told."""
    calls = disturb(place, torch.OutOfMemoryError(TORCH_OOM), BATCH // 2, after)
    ran = embed(files, fresh, *decoder_for(place), "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["rows"], ran.json["ok"], ran.json["failed"]) == (N, N - 1, 1)
    assert sum(size > BATCH // 2 for size in calls[after:]) <= 3  # no more than were on their way
    (note,) = ran.json["notes"]
    assert f"batches of {BATCH}" in note and f"batches of {BATCH // 2}" in note and "no value differs" in note
    assert note in ran.err
    (record,) = read_all(fresh)
    sizes = record.used["batch_sizes"]
    assert sum(sizes.values()) == N
    assert record.asked["batch_size"] == BATCH
    if place == "copy":  # in the thread that commits: two chunks of two batches were done
        assert sizes == ({"4": N} if after == 0 else {"8": 2 * ROWS, "4": N - 2 * ROWS})
    else:
        assert sizes.keys() <= {"4", "8"} and sizes["4"] > 0
    if place != "DALI":
        assert problems_of(fresh, files["truth"]) == []


def test_progress_counts_what_is_done_again_once(
    files: dict[str, Path], disturb: Callable[..., list[int]], fresh: Path
) -> None:
    seen: list[extract.PassProgress] = []
    disturb("copy", torch.OutOfMemoryError(TORCH_OOM), BATCH // 2, 3)  # in the middle of a chunk
    extract.embed(
        Manifest.read(files["manifest"]),
        [resolve(MODEL, recipe=load_recipe(str(files["recipe"])))],
        fresh,
        runtime=runtime.Runtime(threads=1),
        options=extract.EmbedOptions(batch_size=BATCH, chunk_rows=ROWS),
        on_progress=seen.append,
    )
    assert (seen[-1].done, seen[-1].failed, seen[-1].total) == (N, 1, N)
    assert problems_of(fresh, files["truth"]) == []


def test_undisturbed_the_record_says_so_too(files: dict[str, Path]) -> None:
    (record,) = read_all(files["truth"])
    assert record.used["batch_sizes"] == {str(BATCH): N}


@pytest.mark.parametrize("kind", ["out of memory", "lost", "host"])
def test_loading_an_encoder(
    files: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch, fresh: Path
) -> None:
    error, begins = FAULTS[kind]
    monkeypatch.setattr(chunks.models, "load", failing(error))
    ran = embed(files, fresh)
    ended_well(ran, begins)
    assert "--batch-size" not in ran.err  # the weights do not shrink with it


def test_mistakes_of_the_program_are_shown_whole(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, fresh: Path
) -> None:
    monkeypatch.setattr(
        chunks.models, "load", failing(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    )
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        cli.app(
            ["embed", str(files["manifest"]), "--model", MODEL, "--bank", str(fresh), "--device", "cpu"],
            standalone_mode=False,
        )
