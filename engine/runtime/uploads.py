"""Rows of a host array on their way to a device, through two page-locked buffers.

While one buffer is copied on a stream of its own, the other is filled: reading (perhaps from a mapped file),
copying and the computation on earlier rows overlap. A copy from pageable memory would go through the driver's
buffer and hold the host up.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.runtime.streams import host_buffer, to_device

if TYPE_CHECKING:
    import torch

#: Bytes of a page-locked buffer.
BUFFER_BYTES = 32 << 20


def placed(array: NDArray[Any], device: str) -> "torch.Tensor":
    """Copy a small array to a device, through page-locked memory of its own: the host does not wait.

    Args:
        array: of any shape and numeric type.
        device: `cpu` or `cuda:N`.
    """
    host = host_buffer(array.shape, torch_dtype(array.dtype), device)
    host.numpy()[...] = array
    return to_device(host, device)


def upload(array: NDArray[Any], device: str, rows: NDArray[np.intp] | None = None) -> "torch.Tensor":
    """Copy rows of an array to a device, in their stored precision.

    Args:
        array: [N, d] of any float type, perhaps mapped from files.
        device: `cpu` or `cuda:N`.
        rows: intp [n], positions; None for all.

    Returns:
        [n, d], ready for the current stream; on the CPU a copy, too.
    """
    import torch

    count, kind = _count(array, rows), torch_dtype(array.dtype)
    into = torch.empty((count, array.shape[1]), dtype=kind, device=device)
    for start, block in uploaded_blocks(array, device, buffer_rows(array), rows):
        into[start : start + len(block)] = block
    return into


def uploaded_blocks(
    array: NDArray[Any], device: str, step: int, rows: NDArray[np.intp] | None = None
) -> Iterator[tuple[int, "torch.Tensor"]]:
    """Yield (start, block [at most step, d]) of consecutive rows on a device, in their stored precision.

    Args:
        array, device, rows: as for `upload`.
        step: rows of a block.

    Yields:
        Blocks that the current stream may use; each is memory of its own.
    """
    import torch

    count, kind = _count(array, rows), torch_dtype(array.dtype)
    if not device.startswith("cuda"):
        for start in range(0, count, step):
            yield start, torch.from_numpy(_native(_taken(array, rows, start, min(start + step, count))))
        return
    shape = (min(step, count), array.shape[1])
    buffers = [host_buffer(shape, kind, device) for _ in range(2 if count > step else 1)]
    copied: list[Any] = [None] * len(buffers)
    stream = torch.cuda.Stream(device)
    for number, start in enumerate(range(0, count, step)):
        slot = number % len(buffers)
        if copied[slot] is not None:
            copied[slot].synchronize()
        host = buffers[slot][: min(step, count - start)]
        host.numpy()[:] = _taken(array, rows, start, start + len(host))
        with torch.cuda.stream(stream):
            block = host.to(device, non_blocking=True)
            copied[slot] = torch.cuda.Event()
            copied[slot].record(stream)
        current = torch.cuda.current_stream(device)
        current.wait_event(copied[slot])
        block.record_stream(current)
        yield start, block


def buffer_rows(array: NDArray[Any]) -> int:
    """Return how many rows of an array fill a buffer, at least one."""
    return max(1, BUFFER_BYTES // max(1, int(array.shape[1]) * array.dtype.itemsize))


def torch_dtype(dtype: np.dtype[Any]) -> "torch.dtype":
    """Return torch's name of a numpy dtype, in either byte order."""
    import torch

    return torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype


def _count(array: NDArray[Any], rows: NDArray[np.intp] | None) -> int:
    return len(array) if rows is None else len(rows)


def _taken(array: NDArray[Any], rows: NDArray[np.intp] | None, start: int, stop: int) -> NDArray[Any]:
    taken: NDArray[Any] = array[start:stop] if rows is None else array[rows[start:stop]]
    return taken


def _native(block: NDArray[Any]) -> NDArray[Any]:
    """Return a writable copy in the machine's byte order."""
    return block.astype(block.dtype.newbyteorder("="), copy=True)
