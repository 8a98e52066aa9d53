"""Exact k nearest neighbours, the same from every backend, and votes among them.

A backend finds somewhat more than k candidates by float32 matrix products. Their distances are then computed
again in float64 from the stored numbers, and ordered by (distance, row). A query whose k-th neighbour is not
nearer than anything left out could be, rounding considered, is searched again without a cut-off. So the
answer depends neither on the backend nor on blocks or threads.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.kernels import faiss_library, topk
from engine.kernels.vectors import Distance, Space, Vectors, block_rows, exact_distances

Backend = Literal["auto", "array", "faiss"]
BACKENDS = ("auto", "array", "faiss")

#: Candidates beyond k, so that rounding rarely leaves a query undecided.
MARGIN = 4
#: A query that shares its key with more base vectors than this is searched apart, with more candidates.
_COMMON_KEY = 16
#: Bytes of float64 that refining takes at a time, a thread: what stays in the cache.
_REFINE_BYTES = 4 << 20
#: Pairs that an undecided block of queries may have in float64 at a time.
_PAIRS = 1 << 22


@dataclass(frozen=True)
class Neighbours:
    """Neighbours of n queries, nearest first; ties by smaller row.

    Attributes:
        rows: int64 [n, k], positions in the base; -1 where there are fewer than k.
        distances: float64 [n, k]: 1 - cosine similarity, or Euclidean; inf where there are fewer than k.
        undecided: queries that had to be searched again for rounding or ties.
        backend: what searched.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]
    undecided: int
    backend: str


def choose_backend(backend: str, device: str = "cpu") -> str:
    """`array` or `faiss` for `auto`: FAISS on the CPU where it works, torch on CUDA without it.

    Raises:
        Refused: an unknown name; or FAISS is named, but is absent, cannot be imported, or cannot use the
            device.
    """
    if backend not in BACKENDS:
        raise Refused(f"backend {backend!r}", f"It is one of {', '.join(BACKENDS)}", "choose one")
    if backend == "auto":
        # On CUDA torch is there anyway, and needs no build of FAISS for that very GPU.
        return "faiss" if device == "cpu" and not faiss_library.why_not() else "array"
    if backend == "faiss":
        topk.require_faiss(_gpu(device))
    return backend


def _gpu(device: str) -> int | None:
    """Number of a CUDA device; None for the CPU."""
    return None if device == "cpu" else int(device.partition(":")[2] or 0)


def nearest(
    queries: Vectors,
    base: Vectors,
    k: int,
    *,
    distance: Distance = "cosine",
    keys: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    backend: str = "auto",
    device: str = "cpu",
    threads: int = 1,
) -> Neighbours:
    """The k nearest base vectors of every query.

    Needs memory for a few blocks of vectors (`BLOCK_BYTES` each) and their scores, whatever N is.

    Args:
        queries, base: finite vectors; none may hold a NaN.
        k: at least 1; more than the base has gives rows -1.
        distance: `cosine` (1 - similarity; a zero vector is at distance 1 from all) or `euclidean`.
        keys: int64 of each query and of each base vector; equal keys are no neighbours (the image itself, the
            same patient).
        backend: `auto`, `array` or `faiss`.
        device: `cpu` or `cuda:N`.
        threads: for widening and for the float64 part; products use what BLAS or FAISS is set to.

    Raises:
        Refused: an unknown backend, or FAISS is named and cannot be used.
    """
    chosen = choose_backend(backend, device)
    k_all, k = k, min(k, len(base))
    space = Space.of(distance, queries, base)
    search = _Search(queries, base, space, keys, _searcher(chosen, device, threads), threads)
    rows = np.full((len(queries), k_all), -1, np.int64)
    distances = np.full((len(queries), k_all), np.inf)
    undecided = 0
    for part, excluded in search.parts():
        # Each block of queries widens the whole base anew: few blocks, all of one size.
        size = -(-len(part) // -(-len(part) // (2 * block_rows(base.dim))))
        for start in range(0, len(part), size):
            block = part[start : start + size]
            found = search.run(block, k, excluded)
            rows[block, :k], distances[block, :k] = found[:2]
            undecided += found[2]
    return Neighbours(rows, distances, undecided, chosen)


def _searcher(backend: str, device: str, threads: int) -> topk.Search:
    if backend == "faiss":
        return partial(topk.by_faiss, threads=threads, gpu=_gpu(device))
    if device != "cpu":
        return partial(topk.by_torch, device=device)
    return partial(topk.by_array, threads=threads)


@dataclass(frozen=True)
class _Search:
    queries: Vectors
    base: Vectors
    space: Space
    keys: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    candidates: topk.Search
    threads: int

    def parts(self) -> list[tuple[NDArray[np.intp], int]]:
        """Positions of queries, and how many base vectors at most are no neighbours of one of them."""
        every = np.arange(len(self.queries))
        if self.keys is None:
            return [(every, 0)]
        values, counts = np.unique(self.keys[1], return_counts=True)
        place = np.searchsorted(values, self.keys[0]).clip(max=len(values) - 1)
        shared = np.where(values[place] == self.keys[0], counts[place], 0)
        few = shared <= _COMMON_KEY
        return [(part, int(shared[part].max())) for part in (every[few], every[~few]) if len(part)]

    def run(
        self, block: NDArray[np.intp], k: int, excluded: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
        """Rows and distances [len(block), k] of some queries, and how many were undecided."""
        stored = self.queries.take(block)
        prepared, _ = self.space.prepare(stored)
        m = min(k + MARGIN + excluded, len(self.base))
        found = self.candidates(np.ascontiguousarray(prepared), self.base, self.space, m)
        floor = found.floor if m < len(self.base) else np.full(len(block), -np.inf)
        scores = np.where(self._excluded(block, found.rows), -np.inf, found.scores)
        kept = np.argsort(-scores, axis=1, kind="stable")[:, : min(k + MARGIN, m)]
        scores = np.take_along_axis(scores, kept, axis=1)
        if kept.shape[1] < m:  # the best that is cut here stays below the last that is kept
            floor = np.maximum(floor, scores[:, -1])
        rows = np.where(np.isfinite(scores), np.take_along_axis(found.rows, kept, axis=1), -1)
        distances = self._refine(stored, rows)
        order = np.lexsort((rows, distances))[:, :k]
        rows, distances = np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1)
        slack = self.space.rounding(self.base.dim, prepared, found.longest)
        last = self.space.score(distances[:, -1])
        undecided = np.flatnonzero(~(last > floor + slack) & (floor > -np.inf))
        self._again(block, undecided, prepared, slack, rows, distances)
        return rows, distances, len(undecided)

    def _excluded(self, block: NDArray[np.intp], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        if self.keys is None:
            return rows < 0
        ours, theirs = self.keys
        excluded: NDArray[np.bool_] = (rows < 0) | (theirs[rows] == ours[block][:, None])
        return excluded

    def _refine(self, stored: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64 distances [n, m] of the queries to their candidates; inf where the row is -1."""
        n, m = rows.shape
        found = np.full((n, m), np.inf)
        step = max(1, _REFINE_BYTES // (8 * m * self.base.dim))

        def some(start: int) -> None:
            part = rows[start : start + step]
            vectors = self.base.take(part.clip(min=0).ravel()).astype(np.float64)
            found[start : start + step] = exact_distances(
                stored[start : start + step].astype(np.float64),
                vectors.reshape(len(part), m, -1),
                self.space.distance,
            )

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(some, range(0, n, step)))
        found[rows < 0] = np.inf
        return found

    def _again(
        self,
        block: NDArray[np.intp],
        undecided: NDArray[np.intp],
        prepared: NDArray[np.float32],
        slack: NDArray[np.float64],
        rows: NDArray[np.int64],
        distances: NDArray[np.float64],
    ) -> None:
        """Settle undecided queries, in place: refine every vector that could be among their k nearest."""
        k = rows.shape[1]
        step = max(1, _PAIRS // len(self.base))
        for start in range(0, len(undecided), step):
            at = undecided[start : start + step]
            lowest = self.space.score(distances[at, -1]) - slack[at]
            query, row = self._pairs(prepared[at], lowest)
            allowed = ~self._excluded(block[at][query], row[:, None])[:, 0]
            query, row = query[allowed], row[allowed]
            exact = self._pair_distances(block[at], query, row)
            order = np.lexsort((row, exact, query))
            query, row, exact = query[order], row[order], exact[order]
            counts = np.bincount(query, minlength=len(at))
            place = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
            near = place < k
            rows[at[query[near]], place[near]] = row[near]
            distances[at[query[near]], place[near]] = exact[near]

    def _pairs(
        self, prepared: NDArray[np.float32], lowest: NDArray[np.float64]
    ) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """(query, row) of all pairs that score at least `lowest`."""
        found = []
        for start, vectors in self.base.blocks():
            those, subtract = self.space.prepare(vectors)
            scores = prepared @ those.T
            if self.space.distance == "euclidean":
                scores -= subtract + np.einsum("ij,ij->i", prepared, prepared)[:, None] / 2
            query, column = np.nonzero(scores >= lowest[:, None])
            found.append((query, column + start))
        query, row = (np.concatenate(each) for each in zip(*found, strict=True))
        return query, row

    def _pair_distances(
        self, block: NDArray[np.intp], query: NDArray[np.intp], row: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        exact = np.empty(len(row))
        step = max(1, _REFINE_BYTES // (8 * self.base.dim))
        for start in range(0, len(row), step):
            part = slice(start, start + step)
            exact[part] = exact_distances(
                self.queries.take(block[query[part]]).astype(np.float64),
                self.base.take(row[part]).astype(np.float64)[:, None, :],
                self.space.distance,
            )[:, 0]
        return exact


def vote(
    labels: NDArray[np.integer[Any]],
    weights: NDArray[np.float64],
    classes: int,
    ks: Sequence[int],
) -> dict[int, NDArray[np.float64]]:
    """Each class's share of the votes of the first k neighbours, for several k in one pass.

    Args:
        labels: [n, K] class of each neighbour, nearest first; negative has no vote.
        weights: [n, K], not negative; the nearest neighbour's is positive.
        classes: number of classes; labels are below it.
        ks: each at most K.

    Returns:
        k -> float64 [n, classes], rows sum to 1. `argmax` breaks ties in favour of the smaller class.
    """
    n = len(labels)
    total = np.zeros((n, classes))
    shares, at = {}, 0
    for k in sorted(set(ks)):
        for column in range(at, k):
            voters = np.flatnonzero(labels[:, column] >= 0)
            total[voters, labels[voters, column]] += weights[voters, column]
        at = k
        shares[k] = total / total.sum(axis=1, keepdims=True)
    return shares


def temperature_weights(distances: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """exp(similarity / T), as DINO's k-NN (Caron et al. 2021), relative to the nearest neighbour's.

    Args:
        distances: [n, K], 1 - cosine similarity, nearest first; inf gives weight 0.

    Dividing by the nearest's weight changes no share and no winner, and lets T be small.
    """
    weights: NDArray[np.float64] = np.exp((distances[:, :1] - distances) / temperature)
    return weights
