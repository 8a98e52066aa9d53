"""The m best-scoring base vectors of each query in float32: three backends, one contract.

Each backend walks over the base in blocks, scores a block by one matrix product and keeps the best m so far.
Their float32 sums differ in the last bits; `engine.kernels.neighbours` makes the answers the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels import faiss_library
from engine.kernels.vectors import Space, Vectors, block_rows, prepared_blocks

#: Rows of a base block for FAISS, which cuts blocks of its own: the larger, the fewer merges.
_FAISS_BLOCKS = 2
#: Of `faiss_library`: what needs FAISS, and what does without it.
_WITHOUT_FAISS = ("backend 'faiss'", "use --backend array, which gives the same answers")


@dataclass(frozen=True)
class Candidates:
    """Best-scoring base vectors of a block of queries.

    Attributes:
        scores: float32 [n, m], in no order; -inf where there is none.
        rows: int64 [n, m], positions in the base; -1 where there is none.
        floor: float32 [n]; no other base vector scores above it. -inf if there is no other.
        longest: length of the longest prepared base vector.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    floor: NDArray[np.float32]
    longest: float


Search = Callable[[NDArray[np.float32], Vectors, Space, int], Candidates]


class _Best:
    """The best m of all that was offered so far, for each query."""

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
        """Take the best of what is held and of [n, any] more."""
        scores = np.concatenate([self.scores, scores], axis=1)
        rows = np.concatenate([self.rows, rows], axis=1)
        best = np.argpartition(-scores, self.m - 1, axis=1)[:, : self.m]
        self.scores = np.take_along_axis(scores, best, axis=1)
        self.rows = np.take_along_axis(rows, best, axis=1)

    def offer_block(self, scores: NDArray[np.float32], start: int) -> None:
        """The same for the scores of a whole block, of which few are good enough."""
        at, column = np.nonzero(scores > self.floor[:, None])
        if not len(at):
            return
        if len(at) > scores.size // 4:  # the first block
            self.offer(scores, np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape))
            return
        counts = np.bincount(at, minlength=len(scores))
        place = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
        more = np.full((len(scores), int(counts.max())), -np.inf, np.float32)
        rows = np.full(more.shape, -1, np.int64)
        more[at, place] = scores[at, column]
        rows[at, place] = column + start
        self.offer(more, rows)

    def note(self, subtract: Any, cosine: bool) -> None:
        length = 1.0 if cosine else float((2 * float(subtract.max())) ** 0.5)
        self.longest = max(self.longest, length)

    def result(self) -> Candidates:
        return Candidates(self.scores, self.rows, self.floor, self.longest)


def by_array(
    queries: NDArray[np.float32], base: Vectors, space: Space, m: int, threads: int = 1
) -> Candidates:
    """With numpy alone.

    Args:
        queries: prepared, [n, d].
        m: candidates of each.
        threads: that prepare the base.
    """
    best = _Best(len(queries), m)
    own = _own(queries, space)
    size = max(1, block_rows(base.dim) // 8)
    buffer = np.empty((len(queries), size), np.float32)
    for start, prepared, subtract in prepared_blocks(base, space, size, threads):
        scores = np.matmul(queries, prepared.T, out=buffer[:, : len(prepared)])
        if space.distance == "euclidean":
            scores -= subtract
            scores -= own[:, None]
        best.note(subtract, space.distance == "cosine")
        best.offer_block(scores, start)
    return best.result()


def _own(queries: NDArray[np.float32], space: Space) -> NDArray[np.float32]:
    """Half the squared length of each query: with it, a euclidean score is -d^2 / 2."""
    if space.distance == "cosine":
        return np.zeros(len(queries), np.float32)
    own: NDArray[np.float32] = np.einsum("ij,ij->i", queries, queries) / 2
    return own


def by_faiss(
    queries: NDArray[np.float32],
    base: Vectors,
    space: Space,
    m: int,
    threads: int = 1,
    gpu: int | None = None,
) -> Candidates:
    """With FAISS's exact search, block by block; on CUDA device number `gpu` if given.

    More neighbours than FAISS finds on a GPU are found with torch there.

    Raises:
        Refused: FAISS is absent, or cannot use that device.
    """
    faiss = require_faiss(gpu)
    if gpu is not None and m > faiss_library.GPU_MOST_NEIGHBOURS:
        return by_torch(queries, base, space, m, f"cuda:{gpu}")
    knn: Any = faiss.knn
    if gpu is not None:
        knn = partial(faiss.knn_gpu, faiss_library.gpu_resources(), device=gpu)
    cosine = space.distance == "cosine"
    metric = faiss.METRIC_INNER_PRODUCT if cosine else faiss.METRIC_L2
    best = _Best(len(queries), m)
    size = _FAISS_BLOCKS * block_rows(base.dim)
    for start, prepared, subtract in prepared_blocks(base, space, size, threads):
        found, rows = knn(queries, prepared, min(m, len(prepared)), metric=metric)
        best.note(subtract, cosine)
        best.offer(found if cosine else found * np.float32(-0.5), rows + start)
    return best.result()


def require_faiss(gpu: int | None) -> Any:
    """Import FAISS for `by_faiss`, which has the same arguments and refusals."""
    if gpu is None:
        return faiss_library.library(*_WITHOUT_FAISS)
    return faiss_library.library_on(gpu, *_WITHOUT_FAISS)


def by_torch(
    queries: NDArray[np.float32], base: Vectors, space: Space, m: int, device: str = "cuda:0"
) -> Candidates:
    """With torch on a device; blocks travel there in their stored type."""
    import torch

    q = torch.from_numpy(queries).to(device)
    own = torch.from_numpy(_own(queries, space)).to(device)
    scores = torch.full((len(q), m), -torch.inf, device=device)
    rows = torch.full((len(q), m), -1, dtype=torch.int64, device=device)
    best = _Best(0, m)
    for start, block in base.blocks():
        stored = torch.from_numpy(np.array(block)).to(device)
        prepared, subtract = space.prepare(stored, torch)
        found = q @ prepared.T
        if space.distance == "euclidean":
            found -= subtract
            found -= own[:, None]
        best.note(subtract, space.distance == "cosine")
        good, at = found.topk(min(m, len(block)), dim=1)
        joined, numbers = torch.cat([scores, good], 1), torch.cat([rows, at + start], 1)
        scores, order = joined.topk(m, dim=1)
        rows = numbers.gather(1, order)
    found_scores = scores.cpu().numpy()
    return Candidates(found_scores, rows.cpu().numpy(), found_scores.min(axis=1), best.longest)
