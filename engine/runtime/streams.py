"""Streams, events and copies between host and device."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def synchronize(device: str) -> None:
    """Wait until the device has finished; no effect on the CPU."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def current_stream_handle(device: str) -> int:
    """Return the address of torch's current CUDA stream, for libraries that take one (DALI)."""
    import torch

    return int(torch.cuda.current_stream(device).cuda_stream)


@contextlib.contextmanager
def side_stream(device: str) -> Iterator[None]:
    """Run the body's device work on a separate stream; no effect on the CPU."""
    if not device.startswith("cuda"):
        yield
        return
    import torch

    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield


class HostCopy:
    """An asynchronous copy of a device tensor to pinned host memory.

    Args:
        tensor: any tensor; a CPU tensor is returned without a copy.
        into: a `host_buffer` of its shape and dtype; None makes one.

    Attributes:
        host: the copy, undefined before it is complete.
    """

    def __init__(self, tensor: "torch.Tensor", into: "torch.Tensor | None" = None) -> None:
        self._event: Any = None
        if tensor.device.type != "cuda":
            self.host = tensor
            return
        import torch

        self.host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) if into is None else into
        self.host.copy_(tensor, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> "torch.Tensor":
        """Return the host tensor once the copy is complete."""
        if self._event is not None:
            self._event.synchronize()
        return self.host

    @property
    def arrived(self) -> bool:
        """Whether the copy is known to be complete; never waits."""
        return self._event is None or bool(self._event.query())


def all_arrived(copies: "Sequence[HostCopy]") -> "list[torch.Tensor]":
    """Return the host tensors of copies made on one stream, in order: the host waits for the last alone."""
    if copies:
        copies[-1].wait()
    return [copy.host for copy in copies]


def fetch(*tensors: "torch.Tensor") -> "list[torch.Tensor]":
    """Copy tensors of one device to page-locked host memory, and wait once for all of them."""
    import torch

    hosts = [host_buffer(tuple(each.shape), each.dtype, str(each.device)) for each in tensors]
    for host, tensor in zip(hosts, tensors, strict=True):
        host.copy_(tensor, non_blocking=True)
    if tensors[0].is_cuda:
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(tensors[0].device))
        arrived.synchronize()
    return hosts


def fetched(*tensors: "torch.Tensor") -> "list[NDArray[Any]]":
    """Return tensors of one device as arrays of the host; see `fetch`."""
    return [host.numpy() for host in fetch(*tensors)]


@contextlib.contextmanager
def current_device(number: int) -> Iterator[None]:
    """Make a CUDA device the current one while the body runs, for libraries that follow it."""
    import torch

    before = torch.cuda.current_device()
    torch.cuda.set_device(number)
    try:
        yield
    finally:
        torch.cuda.set_device(before)


class Span:
    """Duration of device work, measured by CUDA events on a device, by the clock on the CPU."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self._device = device
        self._start = self._mark()
        self._stop: Any = None

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def stop(self) -> None:
        """Mark the end of the work."""
        self._stop = self._mark()

    @property
    def seconds(self) -> float:
        """Seconds between start and stop; waits for the device if necessary."""
        if not self._cuda:
            return float(self._stop - self._start)
        self._stop.synchronize()
        return self.seconds_passed

    @property
    def seconds_passed(self) -> float:
        """Seconds between start and stop, where the device is known to have passed both: never waits."""
        if not self._cuda:
            return float(self._stop - self._start)
        return float(self._start.elapsed_time(self._stop)) / 1e3


class DeviceEvent:
    """A point in the current stream that another stream or thread can wait for."""

    def __init__(self, device: str) -> None:
        self._event: Any = None
        if device.startswith("cuda"):
            import torch

            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        """Wait until the device has come to this point."""
        if self._event is not None:
            self._event.synchronize()

    def make_current_stream_wait(self, *tensors: "torch.Tensor") -> None:
        """Make later work of the current stream wait for this point, and keep the tensors' memory for it."""
        if self._event is None:
            return
        import torch

        stream = torch.cuda.current_stream()
        stream.wait_event(self._event)
        for tensor in tensors:
            tensor.record_stream(stream)


def host_buffer(shape: tuple[int, ...], dtype: "torch.dtype", device: str) -> "torch.Tensor":
    """Return uninitialised host memory for uploads to `device`: pinned for CUDA, pageable for the CPU."""
    import torch

    return torch.empty(shape, dtype=dtype, pin_memory=device.startswith("cuda"))


def to_device(tensor: "torch.Tensor", device: str) -> "torch.Tensor":
    """Upload a `host_buffer` asynchronously on the current stream; on the CPU return the tensor itself.

    torch reuses pinned memory only after the copies from it are complete, so the buffer may be dropped at
    once.
    """
    return tensor.to(device, non_blocking=True) if device.startswith("cuda") else tensor
