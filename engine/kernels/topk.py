"""The m best-scoring base vectors of each query in float32 on the CPU, from two backends with one contract.

Each backend goes through the base in blocks, scores a block by one matrix product and keeps the best m so
far. The float32 sums of backends differ in their last bits; `engine.kernels.neighbours` makes the results
equal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels import faiss_library
from engine.kernels.vectors import Space, Vectors, block_rows, prepared_blocks

#: Base blocks that FAISS gets at a time. FAISS divides them itself; larger ones need fewer merges.
_FAISS_BLOCKS = 2
#: Arguments `wanted_by` and `instead` of `faiss_library.import_faiss`.
_WITHOUT_FAISS = ("backend 'faiss'", "use --backend array, which gives the same answers")


@dataclass(frozen=True)
class Candidates:
    """Best-scoring base vectors of a block of queries.

    Attributes:
        scores: float32 [n, m], unordered; -inf where there are fewer than m.
        rows: int64 [n, m], positions in the base; -1 where there are fewer than m.
        floor: float32 [n], upper bound of the scores of all other base vectors; -inf if there are none.
        longest: length of the longest prepared base vector.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    floor: NDArray[np.float32]
    longest: float


Search = Callable[[NDArray[np.float32], Vectors, Space, int], Candidates]


class _Best:
    """The best m base vectors so far, for each query."""

    def __init__(self, queries: int, m: int) -> None:
        self.m = m
        self.scores = np.full((queries, m), -np.inf, np.float32)
        self.rows = np.full((queries, m), -1, np.int64)
        self.longest = 0.0

    @property
    def floor(self) -> NDArray[np.float32]:
        floor: NDArray[np.float32] = self.scores.min(axis=1)
        return floor

    def offer(self, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        """Merge candidates [n, any]."""
        scores = np.concatenate([self.scores, scores], axis=1)
        rows = np.concatenate([self.rows, rows], axis=1)
        best = np.argpartition(-scores, self.m - 1, axis=1)[:, : self.m]
        self.scores = np.take_along_axis(scores, best, axis=1)
        self.rows = np.take_along_axis(rows, best, axis=1)

    def offer_block(self, scores: NDArray[np.float32], start: int) -> None:
        """Merge the scores [n, block] of a whole block, few of which are usually good enough."""
        query, column = np.nonzero(scores > self.floor[:, None])
        if not len(query):
            return
        if len(query) > scores.size // 4:  # the first block
            self.offer(scores, np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape))
            return
        counts = np.bincount(query, minlength=len(scores))
        column_of_best = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        block_best = np.full((len(scores), int(counts.max())), -np.inf, np.float32)
        rows = np.full(block_best.shape, -1, np.int64)
        block_best[query, column_of_best] = scores[query, column]
        rows[query, column_of_best] = column + start
        self.offer(block_best, rows)

    def note(self, subtract: Any, cosine: bool) -> None:
        """Record the longest prepared vector of a block."""
        length = 1.0 if cosine else float((2 * float(subtract.max())) ** 0.5)
        self.longest = max(self.longest, length)

    def result(self) -> Candidates:
        return Candidates(self.scores, self.rows, self.floor, self.longest)


def by_array(
    queries: NDArray[np.float32], base: Vectors, space: Space, m: int, threads: int = 1
) -> Candidates:
    """Find candidates with numpy.

    Args:
        queries: prepared, [n, d].
        m: candidates for each query.
        threads: for preparing the base.
    """
    best = _Best(len(queries), m)
    half_squares = _half_squares(queries, space)
    size = max(1, block_rows(base.dim) // 8)
    buffer = np.empty((len(queries), size), np.float32)
    for start, prepared, subtract in prepared_blocks(base, space, size, threads):
        scores = np.matmul(queries, prepared.T, out=buffer[:, : len(prepared)])
        if space.distance == "euclidean":
            scores -= subtract
            scores -= half_squares[:, None]
        best.note(subtract, space.distance == "cosine")
        best.offer_block(scores, start)
    return best.result()


def _half_squares(queries: NDArray[np.float32], space: Space) -> NDArray[np.float32]:
    """Return half the squared length of each query, which completes a Euclidean score to -d^2 / 2."""
    if space.distance == "cosine":
        return np.zeros(len(queries), np.float32)
    half_squares: NDArray[np.float32] = np.einsum("ij,ij->i", queries, queries) / 2
    return half_squares


def by_faiss(
    queries: NDArray[np.float32],
    base: Vectors,
    space: Space,
    m: int,
    threads: int = 1,
) -> Candidates:
    """Find candidates with FAISS's exact search, block by block.

    Raises:
        Refused: FAISS is absent.
    """
    faiss = require_faiss(None)
    cosine = space.distance == "cosine"
    metric = faiss.METRIC_INNER_PRODUCT if cosine else faiss.METRIC_L2
    best = _Best(len(queries), m)
    size = _FAISS_BLOCKS * block_rows(base.dim)
    for start, prepared, subtract in prepared_blocks(base, space, size, threads):
        scores, rows = faiss.knn(queries, prepared, min(m, len(prepared)), metric=metric)
        best.note(subtract, cosine)
        best.offer(scores if cosine else scores * np.float32(-0.5), rows + start)
    return best.result()


def require_faiss(gpu: int | None) -> Any:
    """Import FAISS for exact search, on the CPU or on CUDA device number `gpu`.

    Raises:
        Refused: FAISS is absent, or cannot use the device.
    """
    if gpu is None:
        return faiss_library.import_faiss(*_WITHOUT_FAISS)
    return faiss_library.import_faiss_on_gpu(gpu, *_WITHOUT_FAISS)
