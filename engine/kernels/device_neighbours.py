"""Exact nearest neighbours wholly on a device: candidates, exclusion, float64 refinement, second search.

The contract is that of `engine.kernels.neighbours`. The base stays on the device where it fits; otherwise its
blocks are uploaded once for all queries (or for each group of queries that the device has room for), and the
candidates of a block are refined while it is there. The host waits once for the neighbours, and twice more
where queries are undecided.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernels import device_vectors, faiss_library
from engine.kernels.device_vectors import (
    DeviceVectors,
    pair_distances,
    prepare,
    resident,
    squares_in_steps,
)
from engine.kernels.vectors import Distance, Space, Vectors, block_rows
from engine.runtime import fetched, placed
from engine.runtime.devices import device_memory, device_number
from engine.runtime.flags import float32_products
from engine.runtime.streams import Span

if TYPE_CHECKING:
    import torch

#: Queries whose scores with a block of the base are computed at a time.
QUERY_ROWS = 4096
#: Queries prepared and searched together take at most one in so many bytes of the free memory.
_SHARE = 8
#: Products of a block of queries and a block of the base, from which on FAISS and torch are compared by time.
WORTH_MEASURING = 16

Keys = tuple[NDArray[np.int64], NDArray[np.int64]]


class Tile(NamedTuple):
    """A block of queries and a block of the base, prepared, with what excludes pairs.

    Attributes:
        queries, base: float32 [n, d] and [b, d].
        half_squares, subtract: float32 [n] and [b], which complete a Euclidean score; None for cosine.
        query_keys, base_keys: int64 [n] and [b], vectors with equal keys are no neighbours; None without.
    """

    queries: "torch.Tensor"
    base: "torch.Tensor"
    half_squares: "torch.Tensor | None"
    subtract: "torch.Tensor | None"
    query_keys: "torch.Tensor | None"
    base_keys: "torch.Tensor | None"

    def scores(self) -> "torch.Tensor":
        """Return all scores, float32 [n, b]; -inf for pairs that are excluded."""
        scores = self.queries @ self.base.T
        if self.half_squares is not None and self.subtract is not None:
            scores -= self.subtract
            scores -= self.half_squares[:, None]
        if self.query_keys is not None and self.base_keys is not None:
            scores.masked_fill_(self.query_keys[:, None] == self.base_keys, -np.inf)
        return scores


#: Finds the best m of a tile: scores float32 [n, any] and columns int64 [n, any].
Route = Callable[[Tile, int], "tuple[torch.Tensor, torch.Tensor]"]


def by_product(tile: Tile, m: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """Find the best m with torch."""
    scores = tile.scores()
    best = scores.topk(min(m, scores.shape[1]), dim=1)
    return best.values, best.indices


@dataclass(frozen=True)
class ByFaiss:
    """Finds the best m with FAISS on the tensors where they are.

    Attributes:
        gpu: number of the CUDA device.
        excluded: the most base vectors that a query's key excludes, which FAISS finds, too.
    """

    gpu: int
    excluded: int

    def __call__(self, tile: Tile, m: int) -> "tuple[torch.Tensor, torch.Tensor]":
        """See `Route`."""
        count = min(m + self.excluded, len(tile.base))
        cosine = tile.half_squares is None
        scores, columns = faiss_library.knn_on_gpu(self.gpu, tile.queries, tile.base, count, cosine=cosine)
        scores = scores if cosine else scores * -0.5
        if tile.query_keys is not None and tile.base_keys is not None:
            scores = scores.masked_fill(tile.base_keys[columns] == tile.query_keys[:, None], -np.inf)
        return scores, columns


def fastest(routes: Mapping[str, Route], tile: Tile, m: int, clock: Callable[[], Any]) -> str:
    """Return the name of the route that is faster on a tile, after one run that does not count.

    Args:
        clock: starts a measurement with `stop()` and `seconds`, such as `engine.runtime.streams.Span`.
    """
    seconds = {}
    for name, route in routes.items():
        route(tile, m)  # reserves memory, loads kernels
        span = clock()
        route(tile, m)
        span.stop()
        seconds[name] = span.seconds
    return min(seconds, key=seconds.__getitem__)


class Found(NamedTuple):
    """Rows and distances [n, k], number of undecided queries, and the backend: see `Neighbours`."""

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]
    undecided: int
    backend: str


def search(
    queries: Vectors,
    base: Vectors,
    k: int,
    *,
    distance: Distance,
    keys: Keys | None,
    backend: str,
    device: str,
    margin: int,
) -> Found:
    """Find the k nearest base vectors of every query.

    Args:
        queries, base, distance, keys: as for `neighbours.nearest`.
        k: at most the size of the base.
        backend: `auto`, `array` or `faiss`. `auto` takes torch, or FAISS where that can use the device and
            is faster on the first block of a large search.
        device: `cuda:N`; `cpu` computes the same with torch there.
        margin: candidates beyond k.
    """
    import torch

    # All of them are placed before any memory is measured for what is made of them.
    placed = base if device == "cpu" else resident(base, device)
    asked = placed if queries is base else queries if device == "cpu" else resident(queries, device)
    with torch.no_grad(), float32_products():
        on_device = DeviceVectors.of(_as_tensor(placed, device), device)
        of_queries = on_device if asked is placed else DeviceVectors.of(_as_tensor(asked, device), device)
        space = device_vectors.space_of(distance, of_queries, on_device)
        return _Search(of_queries, on_device, space, keys, backend).run(k, margin)


def _as_tensor(vectors: Vectors, device: str) -> Vectors:
    """On the CPU, where the kernel is tested, an array is as good as resident."""
    if device != "cpu" or not isinstance(vectors.array, np.ndarray):
        return vectors
    import torch

    return Vectors(torch.from_numpy(vectors.slice(0, len(vectors)).copy()))


class _Candidates(NamedTuple):
    """Best base vectors of a group of queries.

    Attributes:
        scores: float32 [n, m]; -inf where there are fewer.
        rows: int64 [n, m]; -1 where there are fewer.
        distances: float64 [n, m]; inf where there are fewer.
        prepared: the queries, float32 [n, d].
        longest: length of the longest prepared base vector.
    """

    scores: "torch.Tensor"
    rows: "torch.Tensor"
    distances: "torch.Tensor"
    prepared: "torch.Tensor"
    longest: "torch.Tensor"


class _Search:
    """A search on a device, and its refinement."""

    def __init__(
        self, queries: DeviceVectors, base: DeviceVectors, space: Space, keys: Keys | None, backend: str
    ) -> None:
        self.queries, self.base, self.space, self.device = queries, base, space, base.device
        self.keys = None if keys is None else tuple(placed(side, self.device) for side in keys)
        self.excluded = 0 if keys is None else _most_excluded(*keys)
        self.backend = backend
        self.size = block_rows(base.dim)
        self._squares: torch.Tensor | None = None

    def run(self, k: int, margin: int) -> Found:
        """Search all queries, and the undecided ones again."""
        import torch

        n, m = len(self.queries), min(k + margin, len(self.base))
        self.routes = self._routes(m)
        rows = torch.empty((n, k), dtype=torch.int64, device=self.device)
        distances = torch.empty((n, k), dtype=torch.float64, device=self.device)
        is_open = torch.empty(n, dtype=torch.bool, device=self.device)
        lowest = torch.empty(n, dtype=torch.float64, device=self.device)
        for start, stop in self._groups(n, m):
            keys = None if self.keys is None else self.keys[0][start:stop]
            best = self._best(self.queries.slice(start, stop), keys, m)
            part = slice(start, stop)
            rows[part], distances[part] = _in_order(best.rows, best.distances, k)
            slack = device_vectors.rounding(self.space, self.base.dim, best.prepared, best.longest)
            last = self.space.score(distances[part, -1])
            floor = best.scores.amin(1) if m < len(self.base) else torch.full_like(last, -torch.inf)
            is_open[part] = ~(last > floor + slack) & (floor > -torch.inf)
            # Twice the rounding: once for the scores of each of two passes.
            lowest[part] = last - 2 * slack
        found_rows, found_distances, undecided = fetched(rows, distances, is_open)
        positions = np.flatnonzero(undecided)
        if len(positions):
            again = self._again(positions, lowest[placed(positions, self.device)], k)
            found_rows[positions], found_distances[positions] = again
        return Found(found_rows, found_distances, len(positions), self.backend)

    def _routes(self, m: int) -> dict[str, Route]:
        """Return the routes that may be taken, and set the backend where there is but one."""
        routes: dict[str, Route] = {"array": by_product}
        number = device_number(self.device)
        fits = min(m + self.excluded, self.size) <= faiss_library.GPU_MAX_NEIGHBOURS
        blocks = -(-len(self.queries) // QUERY_ROWS) * -(-len(self.base) // self.size)
        if self.backend == "faiss" and fits:
            return {"faiss": ByFaiss(number, self.excluded)}
        measured = self.backend == "auto" and self.device != "cpu" and fits and blocks >= WORTH_MEASURING
        if measured and not faiss_library.gpu_unavailable_reason(number):
            return {**routes, "faiss": ByFaiss(number, self.excluded)}
        self.backend = "array"
        return routes

    def _groups(self, n: int, m: int) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of queries that are searched together: as many as there is room for."""
        size = self._room(m)
        for start in range(0, n, size):
            yield start, min(start + size, n)

    def _room(self, m: int) -> int:
        """Return how many queries with m candidates may be searched together."""
        # Prepared and being prepared; scores, rows and distances of two merges.
        each = 16 * self.base.dim + 72 * m
        free = device_memory(self.device)[0] or 8 << 30
        return max(1, free // _SHARE // each)

    def _best(
        self, stored: "torch.Tensor", keys: "torch.Tensor | None", m: int, route: Route | None = None
    ) -> _Candidates:
        """Return the best m candidates of queries, and their distances."""
        import torch

        n = len(stored)
        prepared, half_squares = prepare(self.space, stored)
        scores = torch.full((n, m), -torch.inf, device=self.device)
        rows = torch.full((n, m), -1, dtype=torch.int64, device=self.device)
        distances = torch.full((n, m), torch.inf, dtype=torch.float64, device=self.device)
        longest = torch.zeros((), dtype=torch.float64, device=self.device)
        for start, block in self.base.blocks(self.size):
            tile, longest = self._tile(start, block, prepared, half_squares, keys, longest)
            for at in range(0, n, QUERY_ROWS):
                part = slice(at, at + QUERY_ROWS)
                piece = _queries_of(tile, part)
                block_scores, columns = (route or self._route(piece, m))(piece, m)
                found = torch.cat([scores[part], block_scores], 1)
                offered = torch.cat([rows[part], columns + start], 1)
                scores[part], order = found.topk(m, dim=1)
                rows[part] = offered.gather(1, order)
                if not self.base.resides:  # refined now: the block does not stay
                    refined = self._block_distances(stored[part], block, columns)
                    distances[part] = torch.cat([distances[part], refined], 1).gather(1, order)
        nowhere = scores == -torch.inf
        rows = rows.masked_fill(nowhere, -1)
        if self.base.resides:
            distances = self._distances(stored, rows)
        return _Candidates(scores, rows, distances.masked_fill(nowhere, torch.inf), prepared, longest)

    def _tile(
        self,
        start: int,
        block: "torch.Tensor",
        prepared: "torch.Tensor",
        half_squares: Any,
        keys: "torch.Tensor | None",
        longest: "torch.Tensor",
    ) -> "tuple[Tile, torch.Tensor]":
        """Return a block of the base with all queries, and the longest vector so far."""
        import torch

        base, subtract = prepare(self.space, block)
        base_keys = None if self.keys is None else self.keys[1][start : start + len(block)]
        if self.space.distance == "cosine":
            return Tile(prepared, base, None, None, keys, base_keys), torch.ones_like(longest)
        longest = torch.maximum(longest, (2 * subtract.double().amax()).sqrt())
        return Tile(prepared, base, half_squares, subtract, keys, base_keys), longest

    def _route(self, tile: Tile, m: int) -> Route:
        if self.backend not in self.routes:
            self.backend = fastest(self.routes, tile, m, lambda: Span(self.device))
        return self.routes[self.backend]

    def _distances(self, stored: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        """Return distances float64 [n, m] of queries to rows of a resident base; of no meaning for -1."""
        import torch

        cosine = self.space.distance == "cosine"
        if cosine and self._squares is None:
            self._squares = torch.cat([squares_in_steps(block) for _, block in self.base.blocks()])
        flat, m = rows.clamp(min=0).flatten(), rows.shape[1]
        own, of_base = squares_in_steps(stored) if cosine else None, self._squares

        def part(start: int, stop: int) -> "torch.Tensor":
            query, row = self._numbers(start, stop, m), flat[start:stop]
            left, right, distance = stored[query], self.base.take(row), self.space.distance
            if own is None or of_base is None:
                return pair_distances(left, right, None, None, distance)
            return pair_distances(left, right, own[query], of_base[row], distance)

        return device_vectors.in_steps(len(flat), self.base.dim, part).view(rows.shape)

    def _block_distances(
        self, stored: "torch.Tensor", block: "torch.Tensor", columns: "torch.Tensor"
    ) -> "torch.Tensor":
        """Return distances float64 [n, m] of queries to columns of a block."""
        flat, m = columns.flatten(), columns.shape[1]

        def part(start: int, stop: int) -> "torch.Tensor":
            query, column = self._numbers(start, stop, m), flat[start:stop]
            left, right = stored[query], block[column]
            lengths = device_vectors.squares_of(left), device_vectors.squares_of(right)
            return pair_distances(left, right, *lengths, self.space.distance)

        return device_vectors.in_steps(len(flat), self.base.dim, part).view(columns.shape)

    def _numbers(self, start: int, stop: int, m: int) -> "torch.Tensor":
        """Return the queries of the pairs `start` to `stop`, m for each."""
        import torch

        return torch.arange(start, stop, device=self.device) // m

    def _again(
        self, positions: NDArray[np.intp], lowest: "torch.Tensor", k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return rows and distances of undecided queries: all that could be among their k nearest compete."""
        import torch

        (counts,) = fetched(self._counts(positions, lowest))
        # Queries with about as many competitors are searched together, with as many candidates.
        order = np.argsort(counts, kind="stable")
        rows, distances, start = [], [], 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and stop - start < self._room(int(counts[order[stop]])):
                stop += 1
            group = positions[order[start:stop]]
            keys = None if self.keys is None else self.keys[0][placed(group, self.device)]
            m = max(k, int(counts[order[stop - 1]]))
            best = self._best(self.queries.pick(group), keys, min(m, len(self.base)), by_product)
            found = _in_order(best.rows, best.distances, k)
            rows.append(found[0])
            distances.append(found[1])
            start = stop
        back = np.argsort(order)
        found_rows, found_distances = fetched(torch.cat(rows), torch.cat(distances))
        return found_rows[back], found_distances[back]

    def _counts(self, positions: NDArray[np.intp], lowest: "torch.Tensor") -> "torch.Tensor":
        """Return how many base vectors score at least `lowest` with each query, int64 [n]."""
        import torch

        counts = torch.zeros(len(positions), dtype=torch.int64, device=self.device)
        longest = torch.zeros((), dtype=torch.float64, device=self.device)
        room = self._room(1)
        for first in range(0, len(positions), room):
            group = positions[first : first + room]
            prepared, half_squares = prepare(self.space, self.queries.pick(group))
            keys = None if self.keys is None else self.keys[0][placed(group, self.device)]
            for start, block in self.base.blocks(self.size):
                tile, _ = self._tile(start, block, prepared, half_squares, keys, longest)
                for at in range(0, len(group), QUERY_ROWS):
                    part = slice(at, at + QUERY_ROWS)
                    there = slice(first + at, first + at + len(prepared[part]))
                    counts[there] += (_queries_of(tile, part).scores() >= lowest[there, None]).sum(1)
        return counts


def _queries_of(tile: Tile, part: slice) -> Tile:
    """Return a tile with some of its queries."""
    half_squares = None if tile.half_squares is None else tile.half_squares[part]
    keys = None if tile.query_keys is None else tile.query_keys[part]
    return tile._replace(queries=tile.queries[part], half_squares=half_squares, query_keys=keys)


def _most_excluded(query_keys: NDArray[np.int64], base_keys: NDArray[np.int64]) -> int:
    """Return the number of base vectors that a query's key excludes, at most."""
    values, counts = np.unique(base_keys, return_counts=True)
    return int(counts[np.isin(values, query_keys)].max(initial=0))


def _in_order(rows: "torch.Tensor", distances: "torch.Tensor", k: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the first k by (distance, row)."""
    order = rows.argsort(dim=1)
    rows, distances = rows.gather(1, order), distances.gather(1, order)
    order = distances.argsort(dim=1, stable=True)[:, :k]
    return rows.gather(1, order), distances.gather(1, order)
