"""The decoder that renders row by row in a pool of threads; `reference` and `turbo` are instances of it."""

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

#: (file, header, recipe) -> uint8 [side, side, 3], and whether the reference renderer had to step in.
Render = Callable[[bytes, Header, Recipe], tuple[np.ndarray, bool]]

#: Rows a thread takes at a time: enough to make the pool's own cost small, few enough to share evenly.
_ROWS_A_TASK = 4


@dataclass(frozen=True)
class _RowVerdict:
    slot: int
    failure: BadImage | None
    fallback: bool
    bytes_read: int
    seconds: float
    first_frame: bool = False


class PooledDecoder:
    """Decodes rows in threads, batches in order.

    Args:
        name: the decoder's, part of the FeatureKey.
        render: of one image; called from several threads at once.
        recipe: what to do.
        device: where the pixels shall be; on CUDA they go through pinned memory.
        threads: of the pool.
    """

    def __init__(self, name: str, render: Render, recipe: Recipe, *, device: str, threads: int) -> None:
        self.name = name
        self._render, self._recipe, self._device = render, recipe, device
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"embank-{name}")

    def stream(self, source: ImageSource, batches: Iterable[Sequence[int]]) -> Iterator[DecodedBatch]:
        """See `engine.decode.protocol.Decoder.stream`."""
        pending: deque[_Pending] = deque()
        try:
            for rows in batches:
                pending.append(self._start(source, rows))
                if len(pending) > READ_AHEAD:
                    yield pending.popleft().wait(self._device, self._threads)
            while pending:
                yield pending.popleft().wait(self._device, self._threads)
        finally:
            for batch in pending:
                batch.cancel()

    def close(self) -> None:
        """Let running rows finish, drop waiting ones, end the threads and idle child processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        isolated_process.children.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self, source: ImageSource, rows: Sequence[int]) -> "_Pending":
        side = self._recipe.side
        pixels = runtime.host_buffer((len(rows), side, side, 3), torch.uint8, self._device)
        slots = pixels.numpy()
        tasks = [
            self._pool.submit(
                self._render_rows, source, rows, slots, range(i, min(i + _ROWS_A_TASK, len(rows)))
            )
            for i in range(0, len(rows), _ROWS_A_TASK)
        ]
        return _Pending(rows, pixels, tasks)

    def _render_rows(
        self, source: ImageSource, rows: Sequence[int], slots: np.ndarray, todo: range
    ) -> list[_RowVerdict]:
        return [self._render_row(source, rows[slot], slots[slot], slot) for slot in todo]

    def _render_row(self, source: ImageSource, row: int, out: np.ndarray, slot: int) -> _RowVerdict:
        size, start = 0, time.perf_counter()
        try:
            data = source.read(row)
            size = len(data)
            header = sniff(data, self._recipe, source.limits)
            pixels, fallback = self._render(data, header, self._recipe)
        except BadImage as failure:
            out[...] = 0
            # Without its traceback, which would keep the file's bytes alive.
            return _RowVerdict(slot, failure.with_traceback(None), False, size, time.perf_counter() - start)
        # numpy copies in this thread; torch would wake its own threads for it.
        np.copyto(out, pixels)
        return _RowVerdict(slot, None, fallback, size, time.perf_counter() - start, header.frames > 1)


@dataclass(frozen=True)
class _Pending:
    """A batch in flight."""

    rows: Sequence[int]
    pixels: torch.Tensor
    tasks: list[Future[list[_RowVerdict]]]

    def wait(self, device: str, threads: int) -> DecodedBatch:
        verdicts = [verdict for task in self.tasks for verdict in task.result()]
        return DecodedBatch(
            self.rows,
            runtime.to_device(self.pixels, device),
            {v.slot: v.failure for v in verdicts if v.failure is not None},
            sum(v.fallback for v in verdicts),
            sum(v.bytes_read for v in verdicts),
            sum(v.seconds for v in verdicts) / threads,
            sum(v.first_frame for v in verdicts),
        )

    def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()
