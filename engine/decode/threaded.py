"""Rendering row by row in a pool of threads; the decoders `reference` and `turbo` work so."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from engine import runtime
from engine.decode import isolated_process
from engine.decode.formats.header import Header
from engine.decode.formats.sniff import sniff
from engine.decode.protocol import READ_AHEAD, DecodedBatch
from engine.decode.source import ImageSource
from engine.errors import BadImage
from engine.recipes import Recipe

#: (file, header, recipe) -> uint8 [side, side, 3], and whether the reference renderer was needed as a
#: fallback.
Render = Callable[[bytes, Header, Recipe], tuple[np.ndarray, bool]]
#: The same of (row, file, header), for a renderer that knows the recipe.
RowRender = Callable[[int, bytes, Header], tuple[np.ndarray, bool]]

#: Rows of one task of the pool: enough to make its overhead small, few enough to balance the load.
_ROWS_A_TASK = 4


@dataclass(frozen=True)
class _RowResult:
    """The result of rendering one row into its slot."""

    slot: int
    failure: BadImage | None
    fallback: bool
    bytes_read: int
    seconds: float
    first_frame: bool = False


class RowPool:
    """Threads that render rows, with batches in order; the base of the decoders that work so.

    Args:
        name: of the decoder.
        recipe: to render.
        device: of the pixels; uploads to CUDA go through pinned memory.
        threads: of the pool.
    """

    def __init__(self, name: str, recipe: Recipe, *, device: str, threads: int) -> None:
        self.name = name
        self._recipe, self._device, self._threads = recipe, device, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"embank-{name}")

    def rendered(
        self, source: ImageSource, batches: Iterable[tuple[Sequence[int], RowRender]]
    ) -> Iterator[DecodedBatch]:
        """Render batches of rows, one renderer a batch, as `engine.decode.protocol.Decoder.stream` does.

        A renderer is called from several threads at once.
        """
        pending: deque[_Pending] = deque()
        try:
            for rows, render in batches:
                pending.append(self._start(source, rows, render))
                if len(pending) > READ_AHEAD:
                    yield pending.popleft().wait(self._device, self._threads)
            while pending:
                yield pending.popleft().wait(self._device, self._threads)
        finally:
            for batch in pending:
                batch.cancel()

    def close(self) -> None:
        """Finish running rows, drop waiting ones, and end the threads and idle child processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        isolated_process.children.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self, source: ImageSource, rows: Sequence[int], render: RowRender) -> "_Pending":
        side = self._recipe.side
        pixels = runtime.host_buffer((len(rows), side, side, 3), torch.uint8, self._device)
        slots = pixels.numpy()
        tasks = [
            self._pool.submit(
                self._render_rows, source, rows, render, slots, range(i, min(i + _ROWS_A_TASK, len(rows)))
            )
            for i in range(0, len(rows), _ROWS_A_TASK)
        ]
        return _Pending(rows, pixels, tasks)

    def _render_rows(
        self,
        source: ImageSource,
        rows: Sequence[int],
        render: RowRender,
        slots: np.ndarray,
        slots_of_task: range,
    ) -> list[_RowResult]:
        return [self._render_row(source, rows[slot], render, slots[slot], slot) for slot in slots_of_task]

    def _render_row(
        self, source: ImageSource, row: int, render: RowRender, out: np.ndarray, slot: int
    ) -> _RowResult:
        size, start = 0, time.perf_counter()
        try:
            data = source.read(row)
            size = len(data)
            header = sniff(data, self._recipe, source.limits)
            pixels, fallback = render(row, data, header)
        except BadImage as failure:
            out[...] = 0
            # Without the traceback, which would keep the file's bytes in memory.
            return _RowResult(slot, failure.with_traceback(None), False, size, time.perf_counter() - start)
        # numpy copies in this thread, while torch would use its own threads.
        np.copyto(out, pixels)
        return _RowResult(slot, None, fallback, size, time.perf_counter() - start, header.frames > 1)


@dataclass(frozen=True)
class _Pending:
    """A batch in flight."""

    rows: Sequence[int]
    pixels: torch.Tensor
    tasks: list[Future[list[_RowResult]]]

    def wait(self, device: str, threads: int) -> DecodedBatch:
        """Wait for all rows, and upload the pixels."""
        results = [result for task in self.tasks for result in task.result()]
        return DecodedBatch(
            self.rows,
            runtime.to_device(self.pixels, device),
            {r.slot: r.failure for r in results if r.failure is not None},
            sum(r.fallback for r in results),
            sum(r.bytes_read for r in results),
            sum(r.seconds for r in results) / threads,
            sum(r.first_frame for r in results),
        )

    def cancel(self) -> None:
        """Drop the rows that have not started."""
        for task in self.tasks:
            task.cancel()


class ThreadedDecoder(RowPool):
    """Decoder of rows in threads, with batches in order.

    Args:
        name: of the decoder, part of the FeatureKey.
        render: renders one image; called from several threads at once.
        recipe: to render.
        device: of the pixels; uploads to CUDA go through pinned memory.
        threads: of the pool.
    """

    def __init__(self, name: str, render: Render, recipe: Recipe, *, device: str, threads: int) -> None:
        super().__init__(name, recipe, device=device, threads=threads)
        self._render = render

    def stream(self, source: ImageSource, batches: Iterable[Sequence[int]]) -> Iterator[DecodedBatch]:
        """See `engine.decode.protocol.Decoder.stream`."""

        def render(row: int, data: bytes, header: Header) -> tuple[np.ndarray, bool]:
            return self._render(data, header, self._recipe)

        return self.rendered(source, ((rows, render) for rows in batches))
