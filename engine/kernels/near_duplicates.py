"""All pairs of vectors above a cosine similarity: exact, in blocks of half the symmetric matrix."""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels import device_pairs
from engine.kernels.device_vectors import resident
from engine.kernels.vectors import Space, Vectors, block_rows, exact_distances

#: Pairs refined in float64 at a time.
_PAIRS = 2048


@dataclass(frozen=True)
class Pairs:
    """Pairs of positions first < second, most similar first; ties in order of (first, second).

    Attributes:
        first, second: int64 [n].
        similarity: float64 [n], cosine.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    similarity: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.first)


@dataclass
class PairCounts:
    """Counts over all pairs found, including those beyond the limit of the list.

    Attributes:
        codes: name -> int [N], negative where unknown.
        size: N, number of vectors.
        total: number of pairs.
        counts: name -> {same, different, unknown}, number of pairs with equal codes, with different codes,
            and with at least one unknown code.
        touched: bool [N], vectors that are in a pair.
    """

    codes: dict[str, NDArray[Any]]
    size: int
    total: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.touched = np.zeros(self.size, bool)
        self.counts = {name: {"same": 0, "different": 0, "unknown": 0} for name in self.codes}

    def add(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        """Count pairs of positions first, second [n]."""
        self.total += len(first)
        self.touched[first] = True
        self.touched[second] = True
        for name, codes in self.codes.items():
            a, b = codes[first], codes[second]
            known = (a >= 0) & (b >= 0)
            same = int((known & (a == b)).sum())
            self._count(name, same, int(known.sum()), len(first))

    def _count(self, name: str, same: int, known: int, total: int) -> None:
        self.counts[name]["same"] += same
        self.counts[name]["different"] += known - same
        self.counts[name]["unknown"] += total - known

    def add_counts(self, found: device_pairs.FoundPairs) -> None:
        """Take the counts that a device has made."""
        self.total += found.total
        self.touched |= found.touched
        for name, (same, known) in found.counts.items():
            self._count(name, same, known, found.total)


def similar_pairs(
    vectors: Vectors, threshold: float, *, limit: int, tally: PairCounts | None = None, device: str = "cpu"
) -> Pairs:
    """Find the pairs whose cosine similarity is at least `threshold`.

    A float32 product finds the pairs. Similarities within rounding of the threshold, and all that are
    returned, are computed in float64 from the stored numbers.

    Args:
        vectors: finite vectors [N, d]; a zero vector is similar to none.
        threshold: in (0, 1].
        limit: maximum number of pairs returned, the most similar ones (chosen by their float32 order where
            the cut falls among similarities equal in float32).
        tally: counts all pairs, returned or not; updated in place.
        device: `cpu` or `cuda:N`, where all is computed.

    Raises:
        MachineFault: see `device_pairs.search`.
    """
    space = Space("cosine", 0.0, 1.0)
    unit = np.ones((1, 1), np.float32)
    slack = float(space.rounding(vectors.dim, unit, 1.0)[0])
    # The float64 cosine is rounded, too: the copy of a vector must not fall below a threshold of 1.
    lowest = threshold - 1e-12
    if device != "cpu":
        found = device_pairs.search(
            vectors, threshold, slack, lowest=lowest, keep=_margin(limit), device=device,
            codes={} if tally is None else tally.codes,
        )  # fmt: skip
        if tally is not None:
            tally.add_counts(found)
        return Pairs(found.first[:limit], found.second[:limit], found.similarity[:limit])
    vectors = vectors.on_host()
    best = _Keep(limit)
    size = block_rows(vectors.dim) // 2
    for start, block in vectors.blocks(size):
        left = space.prepare(block)[0]
        for other in range(start, len(vectors), size):
            right = left
            if other > start:
                right = space.prepare(vectors.slice(other, min(other + size, len(vectors))))[0]
            i, j, score = _above(left, right, threshold - slack, diagonal=other == start)
            first, second = i + start, j + other
            doubtful = score < threshold + slack
            exact = _similarity(vectors, first[doubtful], second[doubtful])
            is_pair = np.ones(len(first), bool)
            is_pair[doubtful] = exact >= lowest
            first, second, score = first[is_pair], second[is_pair], score[is_pair]
            if tally is not None:
                tally.add(first, second)
            best.add(first, second, score)
    similarity = _similarity(vectors, best.first, best.second)
    order = np.lexsort((best.second, best.first, -similarity))[:limit]
    return Pairs(best.first[order], best.second[order], similarity[order])


class _Keep:
    """The best pairs so far, somewhat more than `limit` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = _margin(limit)
        self.first = np.empty(0, np.int64)
        self.second = np.empty(0, np.int64)
        self.score = np.empty(0, np.float32)

    def add(self, first: NDArray[np.int64], second: NDArray[np.int64], score: NDArray[np.float32]) -> None:
        first, second = np.concatenate([self.first, first]), np.concatenate([self.second, second])
        score = np.concatenate([self.score, score])
        if len(first) > self.limit:
            best = np.argpartition(-score, self.limit - 1)[: self.limit]
            first, second, score = first[best], second[best], score[best]
        self.first, self.second, self.score = first, second, score


def _margin(limit: int) -> int:
    """Return how many pairs are kept by their float32 order, so that the best `limit` are among them."""
    return limit + limit // 4 + 64


def _above(
    left: NDArray[np.float32], right: NDArray[np.float32], lowest: float, *, diagonal: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the positions and float32 similarities of similar pairs of two blocks.

    Args:
        diagonal: both blocks are the same; only pairs above the diagonal are returned.
    """
    scores = left @ right.T
    i, j = np.nonzero(scores >= lowest)
    value = scores[i, j]
    if diagonal:
        upper = i < j
        i, j, value = i[upper], j[upper], value[upper]
    return i.astype(np.int64), j.astype(np.int64), value


def _similarity(vectors: Vectors, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the cosine of each pair, float64 [n]."""
    similarity = np.empty(len(first))
    for start in range(0, len(first), _PAIRS):
        chunk = slice(start, start + _PAIRS)
        a, b = (vectors.take(side[chunk]).astype(np.float64) for side in (first, second))
        similarity[chunk] = 1.0 - exact_distances(a, b[:, None, :], "cosine")[:, 0]
    return similarity


def identical_groups(vectors: Vectors, device: str = "cpu") -> list[NDArray[np.int64]]:
    """Return the groups of at least two positions whose vectors are equal byte for byte, in order.

    Args:
        device: `cpu` or `cuda:N`, where the digests of vectors that reside there are computed.
    """
    groups: dict[bytes, list[int]] = {}
    placed = resident(vectors, device)
    if device != "cpu" and not isinstance(placed.array, np.ndarray):
        for at, digest in enumerate(device_pairs.digests(placed, device)):
            groups.setdefault(digest.tobytes(), []).append(at)
    else:
        for start, block in placed.blocks():
            for at, row in enumerate(np.ascontiguousarray(block)):
                groups.setdefault(blake2b(row.data, digest_size=16).digest(), []).append(start + at)
    return [np.array(group, np.int64) for group in groups.values() if len(group) > 1]
