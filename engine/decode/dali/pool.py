"""Batches of rows through DALI: threads read and check files ahead; DALI receives bytes and targets.

Kinds of images that it does not support go to the reference renderer. An image on which DALI fails breaks its
pipeline: the pipeline is then rebuilt, and the images of the batch are tried one by one.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch

from engine import runtime
from engine.decode import isolated_process
from engine.decode.dali.graph import (
    DEPTH,
    Graph,
    Tail,
    Target,
    machine_faults,
    raise_machine_fault,
    release_memory,
)
from engine.decode.dali.views import View
from engine.decode.formats.header import Header
from engine.decode.formats.sniff import sniff
from engine.decode.protocol import READ_AHEAD, DecodedBatch
from engine.decode.source import ImageSource
from engine.errors import BadImage
from engine.recipes import Recipe


class DaliPool:
    """Threads that read files, and a DALI pipeline that renders them; the base of the decoders with DALI.

    Args:
        tail: of the pipeline.
        recipe: to render.
        device: `cpu`, or `cuda:N` to decode with nvJPEG; the pixels stay on it.
        threads: of DALI, and for reading files.
        batch_size: rows of a batch, at most.
    """

    def __init__(self, tail: Tail, recipe: Recipe, *, device: str, threads: int, batch_size: int) -> None:
        self.name = "dali-mixed" if device.startswith("cuda") else "dali"
        self._recipe, self._device, self._threads = recipe, device, threads
        self._graph = Graph(tail, recipe, device, threads, batch_size)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="embank-read")

    def rendered(
        self, source: ImageSource, batches: Iterable[tuple[Sequence[int], Callable[[int], View]]]
    ) -> Iterator[DecodedBatch]:
        """Render batches of rows, by the view of every row, as `engine.decode.protocol.Decoder.stream`."""
        pending: deque[_Batch] = deque()
        try:
            for rows, view in batches:
                reads = [
                    self._pool.submit(self._read, source, row, slot, view(row))
                    for slot, row in enumerate(rows)
                ]
                pending.append(_Batch(rows, reads))
                if len(pending) > READ_AHEAD:
                    yield self._next(pending)
            while pending:
                yield self._next(pending)
        finally:
            for future in (future for batch in pending for future in batch.reads):
                future.cancel()
            if any(batch.scheduled for batch in pending):
                self._graph.drop()  # it still holds the abandoned batches

    def close(self) -> None:
        """Release DALI's memory and threads, and end idle child processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._graph.drop()
        if self._device.startswith("cuda"):  # torch cannot use memory in DALI's pools
            release_memory()
        isolated_process.children.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self, source: ImageSource, row: int, slot: int, view: View) -> "_Row":
        """Read and check one row's file; render it here if DALI does not support its kind."""
        size, start = 0, time.perf_counter()
        try:
            data = source.read(row)
            size = len(data)
            header = sniff(data, self._recipe, source.limits)
            target = view.target(header)
            if target is None or not header.plain or (self._recipe.exif and header.exif):
                result = _by_reference(_Row(slot, size), data, header, view)
            else:
                result = _Row(slot, size, _Encoded(data, header, view, target))
        except BadImage as failure:
            result = _Row(slot, size, failure=failure.with_traceback(None))
        return replace(result, seconds=time.perf_counter() - start)

    def _next(self, pending: "deque[_Batch]") -> DecodedBatch:
        """Schedule batches that have been read in DALI, and return the first batch."""
        head = pending[0]
        head.wait_read()
        for batch in list(pending)[:DEPTH]:
            if not batch.scheduled and all(future.done() for future in batch.reads):
                batch.wait_read()
                with machine_faults():  # the first batch builds the pipeline, which uses the device
                    self._graph.feed(batch.for_dali)
                batch.scheduled = True
            if not batch.scheduled:
                break
        try:
            rendered = self._graph.take() if head.for_dali else None
            done = self._assemble(head, rendered)
        except Exception as error:  # DALI raises errors of many classes
            raise_machine_fault(error)
            for batch in pending:
                batch.scheduled = False
            self._graph.drop()
            done = self._one_by_one(head)
        pending.popleft()
        return done

    def _one_by_one(self, batch: "_Batch") -> DecodedBatch:
        """Decode a batch that DALI failed on, row by row. Sound rows still get DALI's pixels."""
        results = []
        device_pixels = {}
        for row in batch.read:
            result = row
            if row.encoded is not None:
                try:
                    self._graph.feed([row.encoded.for_dali])
                    device_pixels[row.slot] = self._graph.take()[0].clone()
                except Exception as error:  # DALI raises errors of many classes
                    raise_machine_fault(error)
                    self._graph.drop()
                    encoded = row.encoded
                    result = _by_reference(row, encoded.data, encoded.header, encoded.view)
            results.append(result)
        batch.read = results
        rendered = torch.stack(list(device_pixels.values())) if device_pixels else None
        return self._assemble(batch, rendered)

    def _assemble(self, batch: "_Batch", rendered: torch.Tensor | None) -> DecodedBatch:
        reading = sum(row.seconds for row in batch.read) / self._threads
        decoding = self._graph.seconds if rendered is not None else 0.0
        return _assemble(batch, rendered, self._recipe.side, self._device, reading + decoding)


@dataclass(frozen=True)
class _Encoded:
    """A file to be decoded by DALI, and the values of the pipeline's inputs."""

    data: bytes
    header: Header
    view: View
    target: Target

    @property
    def for_dali(self) -> tuple[bytes, Target]:
        """What `Graph.feed` takes."""
        return self.data, self.target


@dataclass(frozen=True)
class _Row:
    """A row that was read: a file for DALI, or rendered pixels, or a failure."""

    slot: int
    bytes_read: int
    encoded: _Encoded | None = None
    pixels: np.ndarray | None = None
    failure: BadImage | None = None
    seconds: float = 0.0
    first_frame: bool = False


@dataclass
class _Batch:
    """A batch in flight; `scheduled` once DALI has it."""

    rows: Sequence[int]
    reads: list[Future[_Row]]
    scheduled: bool = False
    read: list[_Row] = field(default_factory=list)

    def wait_read(self) -> None:
        """Wait until all rows have been read."""
        if not self.read:
            self.read = [future.result() for future in self.reads]

    @property
    def for_dali(self) -> list[tuple[bytes, Target]]:
        """Files for DALI, in the order of slots."""
        return [row.encoded.for_dali for row in self.read if row.encoded is not None]


def _by_reference(row: _Row, data: bytes, header: Header, view: View) -> _Row:
    """Render a row by the reference renderer, or record why that fails."""
    try:
        pixels = view.by_reference(data, header)
    except BadImage as failure:
        return replace(row, encoded=None, failure=failure.with_traceback(None))
    return replace(row, encoded=None, pixels=pixels, first_frame=header.frames > 1)


def _assemble(
    batch: _Batch, rendered: torch.Tensor | None, side: int, device: str, seconds: float
) -> DecodedBatch:
    """Combine the pixels of DALI and of the reference renderer, and zeros for failures."""
    shape = (len(batch.rows), side, side, 3)
    by_dali = [row.slot for row in batch.read if row.encoded is not None]
    by_reference = [row for row in batch.read if row.pixels is not None]
    if rendered is not None and len(by_dali) == len(batch.rows):
        pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        pixels.copy_(rendered)
    else:
        pixels = torch.zeros(shape, dtype=torch.uint8, device=device)
        if rendered is not None:
            pixels[torch.tensor(by_dali, device=device)] = rendered
    for row in by_reference:
        host = runtime.host_buffer((side, side, 3), torch.uint8, device)
        np.copyto(host.numpy(), row.pixels)  # type: ignore[arg-type]
        pixels[row.slot].copy_(host, non_blocking=True)
    return DecodedBatch(
        batch.rows,
        pixels,
        {row.slot: row.failure for row in batch.read if row.failure is not None},
        len(by_reference),
        sum(row.bytes_read for row in batch.read),
        seconds,
        sum(row.first_frame for row in batch.read),
    )
