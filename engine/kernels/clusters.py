"""Means and 95 % intervals of values in groups (images of a patient), and of pairs across groups."""

import numpy as np
from numpy.typing import NDArray

from engine.kernels.intervals import Interval


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
    first: NDArray[np.float64], second: NDArray[np.float64], groups: NDArray[np.int64]
) -> tuple[Interval, int]:
    """Mean of first[i] . second[j] over all i, j of different groups, with its interval; and how many pairs.

    All pairs at once, from sums alone: what remains of |sum|^2 without the pairs within groups. The interval
    is 1.96 standard errors by leaving out one group at a time (jackknife), NaN below three groups.

    Args:
        first, second: [n, r] of unit length, so that the products are cosines; perhaps the same array.
        groups: [n].
    """
    codes = np.unique(groups, return_inverse=True)[1]
    count = int(codes.max(initial=-1)) + 1
    a, b = (_sums(each, codes, count) for each in (first, second))
    within = np.einsum("ij,ij->i", a, b)
    sizes = np.bincount(codes, minlength=count).astype(np.float64)
    whole_a, whole_b = a.sum(axis=0), b.sum(axis=0)
    n = len(codes)
    total = float(whole_a @ whole_b - within.sum())
    pairs = float(n**2 - sizes @ sizes)
    mean = total / pairs if pairs > 0 else float("nan")
    if count < 3:
        return Interval(mean, float("nan")), round(pairs)
    without = total - (a @ whole_b + b @ whole_a) + 2 * within
    left = pairs - 2 * sizes * n + 2 * sizes**2
    each = without / left
    spread = (count - 1) / count * float(((each - each.mean()) ** 2).sum())
    return Interval(mean, float(1.96 * np.sqrt(spread))), round(pairs)


def _sums(rows: NDArray[np.float64], codes: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """float64 [count, r], the sum of each group's rows."""
    found = np.zeros((count, rows.shape[1]))
    np.add.at(found, codes, rows)
    return found
