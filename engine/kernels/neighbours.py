"""Exact k nearest neighbours, identical from every backend, and voting among them.

A backend finds somewhat more than k candidates by float32 matrix products. Their distances are recomputed in
float64 from the stored numbers, and sorted by (distance, row). If, within rounding, a vector that was left
out could be as near as a query's k-th neighbour, the query is searched again without a cut-off. The result
therefore does not depend on the backend, on block sizes or on threads.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.kernels import device_neighbours, faiss_library, topk
from engine.kernels.vectors import Distance, Space, Vectors, block_rows, exact_distances
from engine.runtime.devices import device_number

Backend = Literal["auto", "array", "faiss"]
BACKENDS = ("auto", "array", "faiss")

#: Candidates beyond k, so that rounding seldom leaves a query undecided.
MARGIN = 4
#: Queries that share their key with more base vectors than this are searched separately, with more
#: candidates.
_COMMON_KEY = 16
#: Bytes of float64 that a thread refines at a time, so that they stay in the cache.
_REFINE_BYTES = 4 << 20
#: Bytes that a base may take in float64 to be widened at once instead of for every candidate.
_WIDE_BYTES = 16 << 20
#: Multiplications of a search for which FAISS takes longer to import than numpy to compute.
_FEW_PRODUCTS = 1 << 30
#: Pairs of undecided queries and base vectors refined in float64 at a time.
_PAIRS = 1 << 22


@dataclass(frozen=True)
class Neighbours:
    """Neighbours of n queries, nearest first; ties by smaller row.

    Attributes:
        rows: int64 [n, k], positions in the base; -1 where there are fewer than k.
        distances: float64 [n, k]: 1 - cosine similarity, or Euclidean; inf where there are fewer than k.
        undecided: number of queries that had to be searched again because of rounding or ties.
        backend: the one used.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]
    undecided: int
    backend: str


def choose_backend(backend: str, device: str = "cpu", products: int | None = None) -> str:
    """Resolve `auto` on the CPU to `faiss` if that is available and worth its import, else to `array`.

    On CUDA `auto` stays: there the search itself measures which is faster.

    Args:
        products: multiplications of all queries' components with the base's; None for many.

    Raises:
        Refused: an unknown name, or FAISS is named but absent, cannot be imported or cannot use the device.
    """
    if backend not in BACKENDS:
        raise Refused(f"backend {backend!r}", f"It is one of {', '.join(BACKENDS)}", "choose one")
    if backend == "auto" and device == "cpu":
        few = products is not None and products < _FEW_PRODUCTS
        return "array" if few or faiss_library.unavailable_reason() else "faiss"
    if backend == "faiss":
        topk.require_faiss(_gpu(device))
    return backend


def _gpu(device: str) -> int | None:
    """Return the number of a CUDA device; None for the CPU."""
    return None if device == "cpu" else device_number(device)


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
    """Find the k nearest base vectors of every query.

    Needs memory for a few blocks of vectors (`BLOCK_BYTES` each) and their scores, independently of N. On
    CUDA all is computed on the device, where the vectors stay if they fit: see
    `engine.kernels.device_neighbours`.

    Args:
        queries, base: vectors without NaN or infinity; of arrays, or of tensors.
        k: at least 1; rows beyond the size of the base are -1.
        distance: `cosine` (1 - similarity; a zero vector is at distance 1 from all) or `euclidean`.
        keys: int64 for each query and each base vector; vectors with the key of the query are no neighbours
            (the image itself, images of the same patient).
        backend: `auto`, `array` or `faiss`. FAISS finds 2,048 neighbours on CUDA at most: more are found by
            torch.
        device: `cpu` or `cuda:N`.
        threads: on the CPU for widening and for the float64 part; products use the threads of BLAS or FAISS.

    Raises:
        Refused: an unknown backend, or FAISS is named and cannot be used.
    """
    resolved = choose_backend(backend, device, len(queries) * len(base) * base.dim)
    k_requested, k = k, min(k, len(base))
    rows = np.full((len(queries), k_requested), -1, np.int64)
    distances = np.full((len(queries), k_requested), np.inf)
    if device != "cpu":
        found = device_neighbours.search(
            queries, base, k, distance=distance, keys=keys, backend=resolved, device=device, margin=MARGIN
        )
        rows[:, :k], distances[:, :k] = found.rows, found.distances
        return Neighbours(rows, distances, found.undecided, found.backend)
    queries, base = (queries.on_host(),) * 2 if queries is base else (queries.on_host(), base.on_host())
    space = Space.of(distance, queries, base)
    search = _Search(queries, base, space, keys, _searcher(resolved, threads), threads)
    undecided = 0
    for positions, excluded in search.parts():
        # The whole base is widened again for each block of queries: few blocks, of equal size.
        size = -(-len(positions) // -(-len(positions) // (2 * block_rows(base.dim))))
        for start in range(0, len(positions), size):
            block = positions[start : start + size]
            result = search.run(block, k, excluded)
            rows[block, :k], distances[block, :k] = result[:2]
            undecided += result[2]
    return Neighbours(rows, distances, undecided, resolved)


def _searcher(backend: str, threads: int) -> topk.Search:
    return partial(topk.by_faiss if backend == "faiss" else topk.by_array, threads=threads)


@dataclass(frozen=True)
class _Search:
    """A search by a backend, and its refinement."""

    queries: Vectors
    base: Vectors
    space: Space
    keys: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    candidates: topk.Search
    threads: int

    def parts(self) -> list[tuple[NDArray[np.intp], int]]:
        """Return groups of query positions, each with the most base vectors excluded by the key of one."""
        positions = np.arange(len(self.queries))
        if self.keys is None:
            return [(positions, 0)]
        values, counts = np.unique(self.keys[1], return_counts=True)
        key_index = np.searchsorted(values, self.keys[0]).clip(max=len(values) - 1)
        shared = np.where(values[key_index] == self.keys[0], counts[key_index], 0)
        is_small = shared <= _COMMON_KEY
        return [
            (group, int(shared[group].max()))
            for group in (positions[is_small], positions[~is_small])
            if len(group)
        ]

    def run(
        self, block: NDArray[np.intp], k: int, excluded: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
        """Return rows and distances [len(block), k] for a block of queries, and the number undecided."""
        stored = self.queries.take(block)
        prepared, _ = self.space.prepare(stored)
        m = min(k + MARGIN + excluded, len(self.base))
        candidates = self.candidates(np.ascontiguousarray(prepared), self.base, self.space, m)
        floor = candidates.floor if m < len(self.base) else np.full(len(block), -np.inf)
        scores = np.where(self._excluded(block, candidates.rows), -np.inf, candidates.scores)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : min(k + MARGIN, m)]
        scores = np.take_along_axis(scores, best, axis=1)
        if best.shape[1] < m:  # candidates cut off here score at most as high as the last one kept
            floor = np.maximum(floor, scores[:, -1])
        rows = np.where(np.isfinite(scores), np.take_along_axis(candidates.rows, best, axis=1), -1)
        distances = self._refine(stored, rows)
        order = np.lexsort((rows, distances))[:, :k]
        rows, distances = np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1)
        slack = self.space.rounding(self.base.dim, prepared, candidates.longest)
        last = self.space.score(distances[:, -1])
        undecided = np.flatnonzero(~(last > floor + slack) & (floor > -np.inf))
        self._again(block, undecided, prepared, slack, rows, distances)
        return rows, distances, len(undecided)

    def _excluded(self, block: NDArray[np.intp], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        if self.keys is None:
            return rows < 0
        query_keys, base_keys = self.keys
        excluded: NDArray[np.bool_] = (rows < 0) | (base_keys[rows] == query_keys[block][:, None])
        return excluded

    def _refine(self, stored: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return distances float64 [n, m] of the queries to their candidates; inf where the row is -1."""
        (n, m), base = rows.shape, self._base_to_refine
        distances = np.full((n, m), np.inf)
        step = max(1, min(n, _REFINE_BYTES // (8 * m * base.dim)))

        def refine(starts: range) -> None:
            # New memory for every block would cost more than the sums.
            taken = np.empty((step * m, base.dim), base.array.dtype)
            wide = taken if taken.dtype == np.float64 else np.empty(taken.shape)
            for start in starts:
                block = slice(start, start + step)
                positions = rows[block].clip(min=0).ravel()
                base.take_into(positions, taken[: len(positions)])
                if wide is not taken:
                    wide[: len(positions)] = taken[: len(positions)]
                candidates = wide[: len(positions)].reshape(-1, m, base.dim)
                distances[block] = exact_distances(
                    stored[block].astype(np.float64), candidates, self.space.distance
                )

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(refine, [range(step * t, n, step * self.threads) for t in range(self.threads)]))
        distances[rows < 0] = np.inf
        return distances

    @cached_property
    def _base_to_refine(self) -> Vectors:
        """The base, in float64 if that is small."""
        if 8 * len(self.base) * self.base.dim > _WIDE_BYTES:
            return self.base
        return Vectors(self.base.slice(0, len(self.base)).astype(np.float64))

    def _again(
        self,
        block: NDArray[np.intp],
        undecided: NDArray[np.intp],
        prepared: NDArray[np.float32],
        slack: NDArray[np.float64],
        rows: NDArray[np.int64],
        distances: NDArray[np.float64],
    ) -> None:
        """Resolve undecided queries in place: refine every vector that could be among their k nearest."""
        k = rows.shape[1]
        step = max(1, _PAIRS // len(self.base))
        for start in range(0, len(undecided), step):
            positions = undecided[start : start + step]
            lowest = self.space.score(distances[positions, -1]) - slack[positions]
            query, row = self._pairs(prepared[positions], lowest)
            allowed = ~self._excluded(block[positions][query], row[:, None])[:, 0]
            query, row = query[allowed], row[allowed]
            distance = self._pair_distances(block[positions], query, row)
            order = np.lexsort((row, distance, query))
            query, row, distance = query[order], row[order], distance[order]
            counts = np.bincount(query, minlength=len(positions))
            rank = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
            is_neighbour = rank < k
            rows[positions[query[is_neighbour]], rank[is_neighbour]] = row[is_neighbour]
            distances[positions[query[is_neighbour]], rank[is_neighbour]] = distance[is_neighbour]

    def _pairs(
        self, prepared: NDArray[np.float32], lowest: NDArray[np.float64]
    ) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Return (query, row) of all pairs with a score of at least `lowest`."""
        matches = []
        for start, vectors in self.base.blocks():
            prepared_base, subtract = self.space.prepare(vectors)
            scores = prepared @ prepared_base.T
            if self.space.distance == "euclidean":
                scores -= subtract + np.einsum("ij,ij->i", prepared, prepared)[:, None] / 2
            query, column = np.nonzero(scores >= lowest[:, None])
            matches.append((query, column + start))
        query, row = (np.concatenate(parts) for parts in zip(*matches, strict=True))
        return query, row

    def _pair_distances(
        self, block: NDArray[np.intp], query: NDArray[np.intp], row: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        distances = np.empty(len(row))
        step = max(1, _REFINE_BYTES // (8 * self.base.dim))
        for start in range(0, len(row), step):
            chunk = slice(start, start + step)
            distances[chunk] = exact_distances(
                self.queries.take(block[query[chunk]]).astype(np.float64),
                self.base.take(row[chunk]).astype(np.float64)[:, None, :],
                self.space.distance,
            )[:, 0]
        return distances


def vote(
    labels: NDArray[np.integer[Any]],
    weights: NDArray[np.float64],
    classes: int,
    ks: Sequence[int],
) -> dict[int, NDArray[np.float64]]:
    """Return each class's share of the votes of the first k neighbours, for several k in one pass.

    Args:
        labels: [n, K] class of each neighbour, nearest first; negative labels do not vote.
        weights: [n, K], not negative; positive for the nearest neighbour.
        classes: number of classes; labels are below it.
        ks: values of k, at most K.

    Returns:
        k -> float64 [n, classes], rows sum to 1. `argmax` breaks ties in favour of the smaller class.
    """
    n = len(labels)
    total = np.zeros((n, classes))
    shares, counted = {}, 0
    for k in sorted(set(ks)):
        for column in range(counted, k):
            voters = np.flatnonzero(labels[:, column] >= 0)
            total[voters, labels[voters, column]] += weights[voters, column]
        counted = k
        shares[k] = total / total.sum(axis=1, keepdims=True)
    return shares


def temperature_weights(distances: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return exp(similarity / T), as in DINO's k-NN (Caron et al. 2021), relative to the nearest neighbour.

    Dividing by the nearest neighbour's weight changes neither shares nor winners, and avoids overflow for
    small T.

    Args:
        distances: [n, K], 1 - cosine similarity, nearest first; inf gives weight 0.
    """
    weights: NDArray[np.float64] = np.exp((distances[:, :1] - distances) / temperature)
    return weights
