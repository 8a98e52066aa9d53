"""The embeddings of a bank on their way to a device: chunk by chunk, checked as they pass.

Threads read chunk files into one of two page-locked buffers while the other is copied on a stream of its own.
The CRC-32C that ends a chunk's file is computed from the buffer, whose bytes the processor has just written.
Where kvikio can read from the file system straight into device memory (GPUDirect Storage), no byte passes the
host: see `engine.runtime.gpudirect`.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.runtime import gpudirect
from engine.runtime.devices import usable_cores
from engine.runtime.streams import DeviceEvent, host_buffer
from engine.runtime.uploads import BUFFER_BYTES, torch_dtype, upload
from stores.bank.chunk_files import ChunkFiles, extended

if TYPE_CHECKING:
    import torch

    from stores.bank.reader import FeatureSet

#: Threads that read at once, at most, and the least that is worth a thread.
_THREADS, _SLICE = 8, 1 << 20


def upload_embeddings(features: "FeatureSet", device: str) -> "torch.Tensor":
    """Copy all embeddings of a feature to a device, in their stored precision.

    Args:
        features: a sealed feature.
        device: `cuda:N`.

    Returns:
        [N, d], there when this returns, so that any stream may use it.

    Raises:
        BankError: a chunk is missing or damaged. MachineFault: the storage or the device fails.
    """
    import torch

    files = features.chunk_files()
    if files is None:
        into = upload(features.array, device)
        DeviceEvent(device).wait()
        return into
    kind = torch_dtype(features.array.dtype)
    into = torch.empty((len(features), features.dim), dtype=kind, device=device)
    if gpudirect.read(files, into):
        features.chunk_files()  # verifies what has changed meanwhile
        return into
    _through_buffers(files, into, device)
    return into


@dataclass(frozen=True)
class _Piece:
    """Bytes `start` to `stop` of a chunk; of these, `used` bytes are rows and the others padding.

    Attributes:
        at: place of the first of them among the bytes of the array.
    """

    chunk: int
    start: int
    stop: int
    at: int
    used: int


def _pieces(files: ChunkFiles, most: int) -> Iterator[_Piece]:
    for chunk in range(len(files.paths)):
        for start in range(0, files.payload, most):
            stop, at = min(start + most, files.payload), chunk * files.payload + start
            yield _Piece(chunk, start, stop, at, max(0, min(stop - start, files.size - at)))


def _through_buffers(files: ChunkFiles, into: "torch.Tensor", device: str) -> None:
    """Fill a tensor on a device from chunk files."""
    import torch

    pieces = list(_pieces(files, BUFFER_BYTES))
    size = min(BUFFER_BYTES, files.payload)
    buffers = [host_buffer((size,), torch.uint8, device) for _ in range(min(2, len(pieces)))]
    copied: list[Any] = [None] * len(buffers)
    target = into.view(torch.uint8).view(-1)
    stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(current)  # the memory may be in use until there
    into.record_stream(stream)
    with ThreadPoolExecutor(min(_THREADS, usable_cores())) as pool:

        def read(number: int) -> "list[tuple[memoryview, Future[None]]]":
            slot = number % len(buffers)
            if copied[slot] is not None:
                copied[slot].synchronize()
            return _read(files, pieces[number], buffers[slot].numpy().data, pool)

        crc, coming = 0, read(0)
        for number, piece in enumerate(pieces):
            here, host = coming, buffers[number % len(buffers)]
            coming = read(number + 1) if number + 1 < len(pieces) else []
            crc = 0 if piece.start == 0 else crc
            for part, done in here:
                done.result()
                crc = extended(crc, part)
            if piece.stop == files.payload:
                files.check(piece.chunk, crc)
            with torch.cuda.stream(stream):
                if piece.used:
                    target[piece.at : piece.at + piece.used].copy_(host[: piece.used], non_blocking=True)
                copied[number % len(buffers)] = event = torch.cuda.Event()
                event.record(stream)
    event.synchronize()


def _read(
    files: ChunkFiles, piece: _Piece, buffer: memoryview, pool: ThreadPoolExecutor
) -> "list[tuple[memoryview, Future[None]]]":
    """Begin to read a piece, in parts of equal size: each with what tells when it is there."""
    size = piece.stop - piece.start
    step = max(_SLICE, -(-size // min(_THREADS, usable_cores())))
    parts = []
    for start in range(0, size, step):
        part = buffer[start : min(start + step, size)]
        parts.append((part, pool.submit(files.read_into, piece.chunk, piece.start + start, part)))
    return parts
