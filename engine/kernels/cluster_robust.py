"""Means and 95 % intervals of values in groups (images of a patient), and of pairs across groups."""

import math
from dataclasses import asdict, dataclass
from typing import Any

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


@dataclass(frozen=True)
class Clustered:
    """95 % interval of a mean over groups (patients).

    Attributes:
        low, high: NaN where there is no interval.
        groups: that were counted.
        reason: why low and high are NaN, "" where they are not.
    """

    low: float
    high: float
    groups: int
    reason: str = ""

    @classmethod
    def undefined(cls, reason: str, groups: int = 0) -> "Clustered":
        """No interval, for this reason."""
        return cls(math.nan, math.nan, groups, reason)

    def to_dict(self) -> dict[str, Any]:
        """All fields; `reason` only where there is one."""
        return {name: value for name, value in asdict(self).items() if name != "reason" or value}


def ratio(totals: NDArray[np.float64], counts: NDArray[np.float64]) -> Clustered:
    """95 % interval of sum(totals) / sum(counts), the mean of all values of G groups.

    The variance is that of the ratio linearised, which is the cluster-robust one of a mean (Liang, Zeger,
    Biometrika 73 (1986) 13): G / (G - 1) times the sum of (total - mean count)^2 over sum(counts)^2. The half
    width is Student's t of G - 1 degrees of freedom times its root, since few groups understate the variance
    (Cameron, Miller, J. Human Resources 50 (2015) 317). What the values were compared with (the support of an
    episode) is held as it was.

    Args:
        totals: float64 [G], sum of each group's values; counts: [G], how many there are, positive.
    """
    groups = len(counts)
    if groups < 2:
        return Clustered.undefined(
            f"{groups} patient{'' if groups == 1 else 's'}: an interval needs two", groups
        )
    mean = float(totals.sum() / counts.sum())
    rest = totals - mean * counts
    variance = groups / (groups - 1) * float(rest @ rest) / float(counts.sum()) ** 2
    half = student_t(groups - 1) * math.sqrt(variance)
    return Clustered(mean - half, mean + half, groups)


def student_t(df: int) -> float:
    """97.5th percentile of Student's t, to 1e-6; df from 1.

    scipy has it, but takes longer to import than an evaluation takes. The distribution function is a finite
    sum for whole df (Abramowitz, Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4), inverted by
    halving; beyond 200 the expansion 26.7.5 around the normal distribution.
    """
    z = 1.959963984540054
    if df > 200:
        return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    low, high = z, 13.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, df) < 0.95 else (low, middle)
    return high


def _within(t: float, df: int) -> float:
    """Probability that |Student's t| is below t."""
    angle = math.atan(t / math.sqrt(df))
    cosine, sine = math.cos(angle), math.sin(angle)
    term, total = (cosine, cosine) if df % 2 else (1.0, 1.0)
    if df == 1:
        return 2 * angle / math.pi
    for k in range(3 if df % 2 else 2, df - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 * (angle + sine * total) / math.pi if df % 2 else sine * total


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
