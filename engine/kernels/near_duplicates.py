"""All pairs of vectors above a cosine similarity: exact, in blocks, one half of the symmetric matrix."""

from dataclasses import dataclass, field
from hashlib import blake2b
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.vectors import Space, Vectors, block_rows, exact_distances

#: Pairs refined in float64 at a time.
_PAIRS = 2048


@dataclass(frozen=True)
class Pairs:
    """Pairs of positions first < second, most similar first; ties by (first, second).

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
class Tally:
    """Counts over all pairs found, also over those that are too many to be listed.

    Attributes:
        codes: name -> int [N], negative where unknown; counted is in how many pairs they are equal,
            different, or unknown for one of the two.
        total: pairs.
        counts: name -> {same, different, unknown}.
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
        self.total += len(first)
        self.touched[first] = True
        self.touched[second] = True
        for name, codes in self.codes.items():
            a, b = codes[first], codes[second]
            known = (a >= 0) & (b >= 0)
            same = int((known & (a == b)).sum())
            self.counts[name]["same"] += same
            self.counts[name]["different"] += int(known.sum()) - same
            self.counts[name]["unknown"] += int((~known).sum())


def similar_pairs(
    vectors: Vectors, threshold: float, *, limit: int, tally: Tally | None = None, device: str = "cpu"
) -> Pairs:
    """Pairs whose cosine similarity is at least `threshold`.

    A float32 product finds them; whatever is within rounding of the threshold, and every similarity that is
    returned, is computed in float64 from the stored numbers.

    Args:
        vectors: finite vectors [N, d]; a zero vector is similar to none.
        threshold: in (0, 1].
        limit: the most pairs returned, the most similar ones (where the cut falls among pairs equal in
            float32, it is made by their float32 order).
        tally: counts all pairs, returned or not.
        device: `cpu` or `cuda:N`, where the products are made.
    """
    space = Space("cosine", 0.0, 1.0)
    unit = np.ones((1, 1), np.float32)
    slack = float(space.rounding(vectors.dim, unit, 1.0)[0])
    # The float64 cosine is itself rounded: a vector's copy must not fall below a threshold of 1.
    least = threshold - 1e-12
    keep = _Keep(limit)
    size = block_rows(vectors.dim) // 2
    for start, block in vectors.blocks(size):
        left = _prepared(block, space, device)
        for other in range(start, len(vectors), size):
            right = left
            if other > start:
                right = _prepared(vectors.slice(other, min(other + size, len(vectors))), space, device)
            i, j, score = _above(left, right, threshold - slack, diagonal=other == start)
            first, second = i + start, j + other
            doubtful = score < threshold + slack
            exact = _similarity(vectors, first[doubtful], second[doubtful])
            sure = np.ones(len(first), bool)
            sure[doubtful] = exact >= least
            first, second, score = first[sure], second[sure], score[sure]
            if tally is not None:
                tally.add(first, second)
            keep.add(first, second, score)
    similarity = _similarity(vectors, keep.first, keep.second)
    order = np.lexsort((keep.second, keep.first, -similarity))[:limit]
    return Pairs(keep.first[order], keep.second[order], similarity[order])


class _Keep:
    """The highest-scoring pairs so far, somewhat more than `limit` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit + limit // 4 + 64
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


def _prepared(block: NDArray[Any], space: Space, device: str) -> Any:
    if device == "cpu":
        return space.prepare(block)[0]
    import torch

    return space.prepare(torch.from_numpy(np.array(block)).to(device), torch)[0]


def _above(
    left: Any, right: Any, least: float, *, diagonal: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Positions and float32 similarities of pairs of two blocks; above the diagonal if they are the same."""
    if isinstance(left, np.ndarray):
        scores = left @ right.T
        i, j = np.nonzero(scores >= least)
        value = scores[i, j]
    else:
        xp: ModuleType = _torch()
        scores = left @ right.T
        found = xp.nonzero(scores >= least, as_tuple=True)
        i, j, value = (each.cpu().numpy() for each in (*found, scores[found]))
    if diagonal:
        upper = i < j
        i, j, value = i[upper], j[upper], value[upper]
    return i.astype(np.int64), j.astype(np.int64), value


def _torch() -> ModuleType:
    import torch

    return torch


def _similarity(vectors: Vectors, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 cosine of each pair."""
    found = np.empty(len(first))
    for start in range(0, len(first), _PAIRS):
        part = slice(start, start + _PAIRS)
        a, b = (vectors.take(side[part]).astype(np.float64) for side in (first, second))
        found[part] = 1.0 - exact_distances(a, b[:, None, :], "cosine")[:, 0]
    return found


def identical(vectors: Vectors) -> list[NDArray[np.int64]]:
    """Groups of positions whose vectors are equal byte for byte, each of at least two, in order."""
    groups: dict[bytes, list[int]] = {}
    for start, block in vectors.blocks():
        for at, row in enumerate(np.ascontiguousarray(block)):
            groups.setdefault(blake2b(row.data, digest_size=16).digest(), []).append(start + at)
    return [np.array(group, np.int64) for group in groups.values() if len(group) > 1]
