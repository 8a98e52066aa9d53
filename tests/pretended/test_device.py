"""The pretended device refuses what CUDA refuses, computes what the CPU computes, and counts.

What CUDA says is from torch's sources: TensorIterator's and the wrappers' device checks, `Indexing.cu`, the
dtypes of the dispatch macros in `aten/src/ATen/native/cuda`, and `Copy.cu` on when the host waits.
"""

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine import runtime
from engine.normalise import normalise
from engine.recipes import Recipe
from engine.runtime import fetched, placed
from tests.pretended.session import pretend
from tests.pretended.streams import Device, Race


def here() -> torch.Tensor:
    return torch.tensor([1.0, 2.0, 3.0])


def there() -> torch.Tensor:
    return here().to("cuda:0")


REFUSED: dict[str, Callable[[], object]] = {
    "elementwise": lambda: there() + here(),
    "elementwise, in place": lambda: there().add_(here()),
    "into the host's": lambda: here().add_(there()),
    "into a number of the host": lambda: torch.zeros(()).add_(there().sum()),
    "product": lambda: there() @ here(),
    "cat": lambda: torch.cat([there(), here()]),
    "cat with a number": lambda: torch.cat([there(), torch.ones(1)]),
    "stack": lambda: torch.stack([there(), here()]),
    "where": lambda: torch.where(there() > 1, there(), here()),
    "gather": lambda: there().gather(0, torch.tensor([0])),
    "scatter": lambda: there().scatter_add_(0, torch.tensor([0]), torch.ones(1).cuda()),
    "index of a host's tensor": lambda: here()[torch.tensor([0]).cuda()],
    "mask of a host's tensor": lambda: here()[there() > 1],
    "values of the host": lambda: there().__setitem__(torch.tensor([0, 1]).cuda(), torch.ones(2)),
    "two devices": lambda: there() + here().to("cuda:1"),
    "batch norm's weights": lambda: F.batch_norm(there()[:, None], torch.ones(1), torch.ones(1)),
    "convolution's weights": lambda: torch.conv1d(there()[None, None], torch.ones(1, 1, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_several_devices_are_refused(name: str) -> None:
    with pretend(count=2), pytest.raises(RuntimeError, match="same device"):
        REFUSED[name]()


ALLOWED: dict[str, tuple[Callable[[], torch.Tensor], list[float]]] = {
    "a number of the host": (lambda: there() * torch.tensor(2.0), [2, 4, 6]),
    "a number of the host first": (lambda: torch.tensor(2.0) - there(), [1, 0, -1]),
    "indices of the host": (lambda: there()[torch.tensor([2, 0])], [3, 1]),
    "indices in a list": (lambda: there()[[2, 0]], [3, 1]),
    "indices of numpy": (lambda: there()[np.array([2, 0])], [3, 1]),
    "a value of the host": (lambda: torch.where(there() > 1, there(), torch.tensor(0.0)), [0, 2, 3]),
    "filled": (lambda: there().masked_fill(there() > 1, 5.0), [1, 5, 5]),
    "copied over": (lambda: there().copy_(here() * 2), [2, 4, 6]),
    "matrix times vector": (lambda: there() @ (2 * torch.eye(3, device="cuda")), [2, 4, 6]),
    "made there": (lambda: torch.arange(3, device="cuda") + there().new_tensor([1, 2, 3]), [1, 3, 5]),
    "halves": (lambda: (there().half() @ torch.ones(3, 2, device="cuda").half()).float(), [6, 6]),
    "a view": (lambda: there().view(3, 1).expand(3, 2)[1:].sum(1), [4, 6]),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_cuda_takes_is_computed(name: str, device: Device) -> None:
    compute, expected = ALLOWED[name]
    found = compute()
    assert found.device == torch.device("cuda:0")
    assert found.cpu().tolist() == found.tolist() == expected


def test_a_module_moves_and_computes(device: Device) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = module(x)
        found = module.to("cuda")(x.cuda())
        assert torch.equal(found.cpu(), expected)
        with torch.autocast("cuda", dtype=torch.float16):
            half = module(x.cuda())
        with pytest.raises(RuntimeError, match="same device"):
            module(x)
    assert next(module.parameters()).is_cuda and half.dtype == torch.float16
    assert 0 < float((half.cpu().float() - expected).abs().max()) < 0.01


@pytest.mark.parametrize(
    "asked", [lambda t: t.numpy(), np.asarray, lambda t: np.concatenate([np.ones(1), t])]
)
def test_the_hosts_memory_is_not_the_devices(asked: Callable[[torch.Tensor], object], device: Device) -> None:
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        asked(there())


@pytest.mark.parametrize(
    "asked",
    [
        lambda: there().long() @ there().long(),
        lambda: there()[None].int() @ there()[:, None].int(),
        lambda: torch.cdist(torch.ones(2, 2, device="cuda").half(), torch.ones(2, 2, device="cuda").half()),
        lambda: torch.nn.functional.interpolate(
            torch.zeros(1, 3, 8, 8, device="cuda", dtype=torch.uint8), size=4, mode="bilinear", antialias=True
        ),
        lambda: torch.histogram(there(), 4),
    ],
)  # fmt: skip
def test_dtypes_without_a_kernel_are_refused(asked: Callable[[], object], device: Device) -> None:
    with pytest.raises(NotImplementedError, match="not implemented for"):
        asked()


def test_an_absent_device_is_refused(device: Device) -> None:
    with pytest.raises(torch.AcceleratorError, match="invalid device ordinal"):
        torch.zeros(1, device="cuda:3")


def test_waits_and_copies_are_entered_by_the_programs_lines(device: Device) -> None:
    ledger, place = device.ledger, "engine/runtime/streams.py:"
    fetched(placed(np.arange(12.0), "cuda:0") * 2, placed(np.arange(3), "cuda:0"))
    assert ledger.size("upload", place) == (12 + 3) * 8
    assert ledger.size("download", place) == (12 + 3) * 8
    assert ledger.count("wait", place) == 1 == sum(ledger.by_line("wait").values()), "for both downloads"
    before = len(ledger.entries)
    assert float(there().sum()) == 6.0 and bool((there() > 0).any()) and there().nonzero().shape == (3, 1)
    kinds = [(e.kind, e.cause) for e in ledger.entries[before:] if e.cause != "copy"]
    assert kinds == [("wait", "_local_scalar_dense"), ("wait", "_local_scalar_dense"), ("wait", "nonzero")]


def test_a_recipes_numbers_are_uploaded_once(device: Device) -> None:
    recipe = Recipe(mean=(0.1, 0.2, 0.3), size=17, crop=17)
    pixels = torch.full((2, 17, 17, 3), 7, dtype=torch.uint8, device="cuda")
    first = normalise(pixels, recipe)
    assert device.ledger.count("upload", "engine/normalise.py") == 2
    waits = device.ledger.count("wait")
    assert torch.equal(normalise(pixels, recipe).cpu(), first.cpu())
    assert device.ledger.count("upload", "engine/normalise.py") == 2
    assert device.ledger.count("wait") == waits + 2, "the two downloads of this test"
    with torch.cuda.stream(torch.cuda.Stream()):
        runtime.synchronize("cuda:0")
        normalise(pixels, recipe)


def test_a_copy_has_arrived_once_somebody_has_waited(device: Device) -> None:
    copy = runtime.HostCopy(there() * 2)
    assert copy.host.isnan().all()
    assert copy.wait().tolist() == [2.0, 4.0, 6.0]
    late = there().to("cpu", non_blocking=True)
    assert late.isnan().all()
    runtime.synchronize("cuda:0")
    assert late.tolist() == [1.0, 2.0, 3.0]
    assert there().cpu().tolist() == [1.0, 2.0, 3.0]


def test_pinned_uploads_do_not_wait_and_others_do(device: Device) -> None:
    buffer = runtime.host_buffer((3,), torch.float32, "cuda:0")
    assert buffer.is_pinned() and not here().is_pinned() and here().pin_memory().is_pinned()
    runtime.to_device(buffer.copy_(here()), "cuda:0")
    assert device.ledger.count("wait") == 0 and device.ledger.size("upload") == 12
    here().to("cuda", non_blocking=True)
    assert device.ledger.count("wait") == 1, "pageable memory"


def test_a_stream_that_does_not_wait_is_found(device: Device) -> None:
    made = there() * 2
    with torch.cuda.stream(torch.cuda.Stream("cuda:0")), pytest.raises(Race, match="without having waited"):
        made + 1
    with runtime.side_stream("cuda:0"):
        other = made + 1
        ready = runtime.DeviceEvent("cuda:0")
    with pytest.raises(Race):
        other + 1
    ready.make_current_stream_wait(other)
    assert (other + 1).tolist() == [4.0, 6.0, 8.0]


def test_threads_are_on_the_device_too(device: Device) -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append((there()[[0, 1]] + 1).tolist()))
    thread.start()
    thread.join()
    assert found == [[2.0, 3.0]]


def test_nothing_is_left_behind() -> None:
    if runtime.cuda_available():
        pytest.skip("a CUDA device is here")
    before = {name: getattr(torch.cuda, name) for name in dir(torch.cuda)}
    with pretend():
        left = there()
        assert runtime.cuda_available()
    assert {name: getattr(torch.cuda, name) for name in before} == before
    assert not runtime.cuda_available() and not torch._C._only_lift_cpu_tensors()
    with pytest.raises(RuntimeError, match="no more"):
        left + 1
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(1, device="cuda")
