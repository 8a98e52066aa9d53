"""Means and 95 % intervals of values in groups (images of a patient), and of pairs across groups."""

import numpy as np
from numpy.typing import NDArray

from engine.kernels.intervals import Interval

#: Groups whose sums are held at a time.
_GROUPS = 1024


def own_groups(codes: NDArray[np.integer]) -> NDArray[np.int64]:
    """int64 [N] groups from 0; rows with a negative code are groups of their own."""
    alone = codes.max(initial=-1) + 1 + np.arange(len(codes))
    return np.unique(np.where(codes >= 0, codes, alone), return_inverse=True)[1].astype(np.int64)


def clustered(values: NDArray[np.float64], groups: NDArray[np.int64]) -> Interval:
    """Mean of [n] values and 1.96 standard errors of it, groups being what is independent.

    The variance is G / (G - 1) times the sum over G groups of (sum of deviations in the group)^2 / n^2
    (Liang, Zeger, Biometrika 73 (1986) 13); with groups of one it is s^2 / n. NaN where it is not defined:
    no value, or one group only.
    """
    if not len(values):
        return Interval(float("nan"), float("nan"))
    mean, codes = values.mean(), np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(codes, weights=values - mean)
    if len(sums) < 2:
        return Interval(float(mean), float("nan"))
    variance = len(sums) / (len(sums) - 1) * float(sums @ sums) / len(values) ** 2
    return Interval(float(mean), float(1.96 * np.sqrt(variance)))


def across_groups(
    first: NDArray[np.floating], second: NDArray[np.floating], groups: NDArray[np.int64]
) -> tuple[Interval, int]:
    """Mean of first[i] . second[j] over all i, j of different groups, with its interval; and how many pairs.

    All pairs at once, from sums alone: what remains of |sum|^2 without the pairs within groups. The interval
    is 1.96 standard errors by leaving out one group at a time (jackknife), NaN below three groups.

    Args:
        first, second: [n, r] of unit length, so that the products are cosines; perhaps the same array.
        groups: [n].
    """
    codes = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(codes).astype(np.float64)
    n, count = len(codes), len(sizes)
    pairs = float(n**2 - sizes @ sizes)
    whole_a, whole_b = (each.sum(axis=0, dtype=np.float64) for each in (first, second))
    within, shared = np.empty(count), np.empty(count)
    order, starts = np.argsort(codes, kind="stable"), np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    for start in range(0, count, _GROUPS):
        stop = min(start + _GROUPS, count)
        rows, at = order[starts[start] : starts[stop]], starts[start:stop] - starts[start]
        a, b = (np.add.reduceat(each[rows].astype(np.float64), at) for each in (first, second))
        within[start:stop] = np.einsum("ij,ij->i", a, b)
        shared[start:stop] = a @ whole_b + b @ whole_a
    total = float(whole_a @ whole_b - within.sum())
    mean = total / pairs if pairs > 0 else float("nan")
    if count < 3:
        return Interval(mean, float("nan")), round(pairs)
    # Without one group: its pairs with all others go, and it is in `shared` twice with itself.
    each = (total - shared + 2 * within) / (pairs - 2 * sizes * n + 2 * sizes**2)
    spread = (count - 1) / count * float(((each - each.mean()) ** 2).sum())
    return Interval(mean, float(1.96 * np.sqrt(spread))), round(pairs)
