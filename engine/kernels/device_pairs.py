"""All pairs of vectors above a cosine similarity, and equal vectors, wholly on a device.

The host must know how many pairs there are before it can ask for them. A first pass over the products counts
them, block by block, and the host waits once for all counts; a second pass takes the pairs of those blocks
that have any. The host waits for the result, and for nothing else, however many vectors or pairs there are.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import MachineFault
from engine.kernels.device_vectors import (
    DeviceVectors,
    in_steps,
    pair_distances,
    prepare,
    resident,
    squares_of,
)
from engine.kernels.vectors import Space, Vectors, block_rows
from engine.runtime import fetched, placed
from engine.runtime.devices import device_memory
from engine.runtime.flags import float32_products

if TYPE_CHECKING:
    import torch

#: Pairs counted and compared at a time.
PAIRS = 1 << 22
#: Vectors that do not reside are compared with as many at a time as fill one in so many bytes of free memory.
_SHARE = 8

#: Gives the vectors at positions.
_Taker = Callable[[Any], "torch.Tensor"]


class FoundPairs(NamedTuple):
    """Pairs of positions first < second, most similar first, and counts over all pairs.

    Attributes:
        first, second: int64 [n], at least the best ones up to the limit.
        similarity: float64 [n], cosine.
        total: number of pairs.
        counts: name of codes -> number of pairs with equal codes, and with both codes known.
        touched: bool [N], vectors that are in a pair.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    similarity: NDArray[np.float64]
    total: int
    counts: dict[str, tuple[int, int]]
    touched: NDArray[np.bool_]


class _Tile(NamedTuple):
    """Two blocks of stored vectors and the positions of their first ones."""

    first: int
    left: "torch.Tensor"
    second: int
    right: "torch.Tensor"


def search(
    vectors: Vectors,
    threshold: float,
    slack: float,
    *,
    lowest: float,
    keep: int,
    codes: Mapping[str, NDArray[Any]],
    device: str,
) -> FoundPairs:
    """Find the pairs whose cosine similarity is at least `lowest`.

    Args:
        vectors: finite vectors [N, d].
        threshold, slack: pairs whose float32 similarity is within `slack` of `threshold` are decided in
            float64.
        keep: the most pairs returned, by their float32 similarity.
        codes: name -> int [N], negative where unknown.
        device: `cuda:N`.

    Raises:
        MachineFault: the device's products differ from one pass to the next.
    """
    import torch

    with torch.no_grad(), float32_products():
        base = DeviceVectors.of(resident(vectors, device), device)
        pairs = _Pairs(base, keep, codes)
        counts = [_counted(_scores(tile), threshold, slack) for tile in _tiles(base)]
        (known,) = fetched(torch.stack(counts))
        for tile, (sure, doubtful) in zip(_tiles(base), known.tolist(), strict=True):
            if sure + doubtful:
                scores = _scores(tile)
                is_sure = scores >= threshold + slack
                pairs.add_sure(tile, scores, is_sure, sure)
                pairs.add_doubtful(tile, scores, (scores >= threshold - slack) & ~is_sure, doubtful, lowest)
        return pairs.found()


def _tiles(base: DeviceVectors) -> Iterator[_Tile]:
    """Yield blocks that have pairs first < second, in the same order each time."""
    size = max(1, block_rows(base.dim) // 2)
    rows = size
    if not base.resides:  # each pass over the right-hand blocks uploads them
        stored = max(1, base.dim * base.kind.itemsize)
        rows = max(size, device_memory(base.device)[0] // _SHARE // stored)
    for start in range(0, len(base), rows):
        left = base.slice(start, min(start + rows, len(base)))
        for second, right in base.blocks(size, start):
            for at in range(0, len(left), size):
                if second + len(right) - 1 > start + at:
                    yield _Tile(start + at, left[at : at + size], second, right)


def _scores(tile: _Tile) -> "torch.Tensor":
    """Return float32 similarities [n, m]; -inf where the second is not after the first."""
    import torch

    space = Space("cosine", 0.0, 1.0)
    left, right = prepare(space, tile.left)[0], prepare(space, tile.right)[0]
    scores = left @ right.T
    if tile.second < tile.first + len(left):
        first = torch.arange(tile.first, tile.first + len(left), device=left.device)
        second = torch.arange(tile.second, tile.second + len(right), device=left.device)
        scores.masked_fill_(first[:, None] >= second, -np.inf)
    return scores


def _counted(scores: "torch.Tensor", threshold: float, slack: float) -> "torch.Tensor":
    """Return how many scores are surely above the threshold, and how many are doubtful, int64 [2]."""
    import torch

    sure = (scores >= threshold + slack).sum()
    return torch.stack([sure, (scores >= threshold - slack).sum() - sure])


class _Pairs:
    """Counts over all pairs so far, and the best of them."""

    def __init__(self, base: DeviceVectors, keep: int, codes: Mapping[str, NDArray[Any]]) -> None:
        import torch

        self.base, self.keep, self.device = base, keep, base.device
        self.codes = {name: placed(values.astype(np.int64), self.device) for name, values in codes.items()}
        zero = torch.zeros((), dtype=torch.int64, device=self.device)
        self.total, self.counts = zero, {name: torch.stack([zero, zero]) for name in codes}
        # One more for what is no pair.
        self.touched = torch.zeros(len(base) + 1, dtype=torch.bool, device=self.device)
        self.unlike = torch.zeros((), dtype=torch.bool, device=self.device)
        self.first = torch.empty(0, dtype=torch.int64, device=self.device)
        self.second, self.score = self.first, torch.empty(0, device=self.device)

    def add_sure(self, tile: _Tile, scores: "torch.Tensor", mask: "torch.Tensor", count: int) -> None:
        """Add the `count` pairs of a mask [n, m]."""
        import torch

        for row, column, score in self._parts(scores, mask, count):
            is_pair = torch.ones_like(row, dtype=torch.bool)
            self._add(row + tile.first, column + tile.second, score, is_pair)

    def add_doubtful(
        self, tile: _Tile, scores: "torch.Tensor", mask: "torch.Tensor", count: int, lowest: float
    ) -> None:
        """Add those of the `count` pairs of a mask [n, m] that are similar in float64."""
        for row, column, score in self._parts(scores, mask, count):
            exact = _cosines(self.base.dim, tile.left.__getitem__, row, tile.right.__getitem__, column)
            self._add(row + tile.first, column + tile.second, score, exact >= lowest)

    def _parts(
        self, scores: "torch.Tensor", mask: "torch.Tensor", count: int
    ) -> "Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]":
        """Yield (row, column, score) of the places of a mask, which the host need not look for."""
        import torch

        if not count:
            return
        rank = mask.flatten().cumsum(0)
        self.unlike = self.unlike | (rank[-1] != count)
        for start in range(0, count, PAIRS):
            wanted = torch.arange(start + 1, min(start + PAIRS, count) + 1, device=self.device)
            place = torch.searchsorted(rank, wanted).clamp(max=len(rank) - 1)
            yield place // scores.shape[1], place % scores.shape[1], scores.flatten()[place]

    def _add(
        self, first: "torch.Tensor", second: "torch.Tensor", score: "torch.Tensor", is_pair: "torch.Tensor"
    ) -> None:
        import torch

        self.total = self.total + is_pair.sum()
        for side in (first, second):
            self.touched.index_fill_(0, torch.where(is_pair, side, len(self.base)), True)
        for name, codes in self.codes.items():
            a, b = codes[first], codes[second]
            known = is_pair & (a >= 0) & (b >= 0)
            self.counts[name] = self.counts[name] + torch.stack([(known & (a == b)).sum(), known.sum()])
        self.first, self.second = torch.cat([self.first, first]), torch.cat([self.second, second])
        self.score = torch.cat([self.score, score.masked_fill(~is_pair, -np.inf)])
        if len(self.score) > self.keep:
            self.score, best = self.score.topk(self.keep)
            self.first, self.second = self.first[best], self.second[best]

    def found(self) -> FoundPairs:
        """Return the result."""
        similarity = self._similarity().masked_fill(self.score == -np.inf, -np.inf)
        order = (self.first * len(self.base) + self.second).argsort()
        order = order[similarity[order].argsort(descending=True, stable=True)]
        first, second, cosine, unlike, total, touched, *counts = fetched(
            self.first[order], self.second[order], similarity[order], self.unlike, self.total, self.touched,
            *self.counts.values(),
        )  # fmt: skip
        if unlike:
            raise MachineFault(
                f"Products of {self.device} differ from one pass to the next",
                "Pairs are counted in one pass and taken in another",
                "run the audit again, or with --device cpu",
            )
        is_pair = np.isfinite(cosine)
        return FoundPairs(
            first[is_pair], second[is_pair], cosine[is_pair], int(total),
            {name: (int(same), int(known)) for name, (same, known) in zip(self.counts, counts, strict=True)},
            touched[:-1],
        )  # fmt: skip

    def _similarity(self) -> "torch.Tensor":
        """Return the cosine of the pairs that are kept, float64."""
        import torch

        if not len(self.first):
            return torch.empty(0, dtype=torch.float64, device=self.device)
        dim, take, pick = self.base.dim, self.base.take, self.base.pick
        if self.base.resides:
            return _cosines(dim, take, self.first, take, self.second)
        first, second = fetched(self.first, self.second)
        return _cosines(dim, pick, first, pick, second)


def _cosines(dim: int, left: _Taker, first: Any, right: _Taker, second: Any) -> "torch.Tensor":
    """Return the float64 cosines of the vectors that are taken at positions first and second [n]."""

    def part(start: int, stop: int) -> "torch.Tensor":
        a, b = left(first[start:stop]), right(second[start:stop])
        return 1.0 - pair_distances(a, b, squares_of(a), squares_of(b), "cosine")

    return in_steps(len(first), dim, part)


def digests(vectors: Vectors, device: str) -> NDArray[np.int64]:
    """Return two numbers for each vector that resides on a device, int64 [n, 2]; equal for equal bytes.

    They are sums of the vector's 16-bit pieces times random numbers, modulo 2^64: those of different vectors
    are equal with a probability of 2^-98.
    """
    import torch

    base, pieces = DeviceVectors.of(vectors, device), []
    count = base.dim * base.kind.itemsize // 2
    factors = placed(np.random.default_rng(0).integers(-(1 << 63), 1 << 63, (2, count), np.int64) | 1, device)
    for _, block in base.blocks(max(1, block_rows(base.dim) // 4)):
        numbers = block.contiguous().view(torch.int16).long()
        pieces.append(torch.stack([(numbers * factor).sum(1) for factor in factors], 1))
    found: NDArray[np.int64] = fetched(torch.cat(pieces))[0]
    return found
