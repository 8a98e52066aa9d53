"""Runtime decisions: what `auto` means here, and what is refused."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine import runtime
from engine.errors import Refused
from engine.runtime import HostCopy, Runtime, Span, autocast, cuda_available, fix_flags


def test_auto_on_the_cpu_is_exact() -> None:
    found = Runtime.resolve("cpu")
    assert (found.device, found.precision, found.numerics) == ("cpu", "fp32", "fp32")
    assert Runtime.resolve("cpu", "bf16", compile=True).numerics == "bf16+compiled"


@pytest.mark.parametrize(
    "asked",
    [
        {"device": "tpu"},
        {"device": "cuda:x"},
        {"precision": "fp8"},
        {"device": "cpu", "precision": "fp16"},
        {"threads": 0},
    ],
)
def test_what_cannot_be_is_refused(asked: dict) -> None:
    with pytest.raises(Refused):
        Runtime.resolve(**asked)


@pytest.mark.skipif(cuda_available(), reason="a CUDA device is here")
def test_cuda_is_refused_with_a_remedy_where_there_is_none() -> None:
    with pytest.raises(Refused, match="doctor"):
        Runtime.resolve("cuda")
    assert Runtime.resolve("auto").device == "cpu"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders `dev` and `pci` that stand in for the machine's, on which torch must not be asked."""
    for name, attribute in (("dev", "_DEVICES"), ("pci", "_PCI_DEVICES")):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(runtime.devices, attribute, tmp_path / name)
    monkeypatch.setattr(runtime.devices, "sys", SimpleNamespace(platform="linux"))
    (tmp_path / "pci" / "0000:00:02.0").mkdir()
    (tmp_path / "pci" / "0000:00:02.0" / "vendor").write_text("0x8086\n")
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it is then an error
    return tmp_path


def test_torch_is_not_asked_where_no_device_can_be(machine: Path) -> None:
    assert (Runtime.resolve("auto").device, Runtime.resolve("cpu").device) == ("cpu", "cpu")


@pytest.mark.parametrize("trace", ["dev/nvidia0", "dev/nvidiactl", "dev/dxg", "dev/kfd", "dev/nvhost-gpu"])
def test_torch_is_asked_where_a_driver_shows(machine: Path, trace: str) -> None:
    (machine / trace).touch()
    with pytest.raises(ImportError):
        Runtime.resolve("auto")


def test_torch_is_asked_where_a_card_waits_for_its_driver(machine: Path) -> None:
    (machine / "pci" / "0000:00:02.0" / "vendor").write_text("0x10de\n")
    with pytest.raises(ImportError):
        Runtime.resolve("auto")


def test_torch_is_asked_elsewhere(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.devices, "sys", SimpleNamespace(platform="darwin"))
    with pytest.raises(ImportError):
        Runtime.resolve("auto")


def test_autocast_lowers_precision_and_records_no_gradient() -> None:
    a = torch.ones(2, 2, requires_grad=True)
    with autocast(Runtime.resolve("cpu", "bf16")):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(Runtime.resolve("cpu")):
        product = a @ a
    assert product.dtype == torch.float32
    assert not product.requires_grad


def test_flags_are_returned_for_the_record() -> None:
    before = torch.get_num_threads()
    try:
        assert fix_flags(Runtime(threads=1)) == {
            "threads": 1,
            "tf32": False,
            "cudnn_benchmark": False,
            "cudnn_deterministic": True,
        }
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_host_copies_and_spans_pass_through_on_the_cpu() -> None:
    tensor = torch.arange(3)
    assert HostCopy(tensor).wait() is tensor
    span = Span("cpu")
    span.stop()
    assert span.seconds >= 0


@pytest.mark.gpu
def test_cuda_auto_takes_mixed_precision_and_copies_arrive() -> None:
    runtime = Runtime.resolve("auto")
    assert runtime.on_cuda
    assert runtime.precision in ("bf16", "fp16")
    tensor = torch.arange(1000, device=runtime.device)
    span = Span(runtime.device)
    copy = HostCopy(tensor * 2)
    span.stop()
    assert torch.equal(copy.wait(), torch.arange(1000) * 2)
    assert span.seconds >= 0
