"""Cluster-robust 95 % intervals of means of grouped values (images of a patient) and over pairs of groups."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.codes import fill_singletons
from engine.kernels.intervals.episodes import Interval
from stores.json_types import JsonObject

Floats = NDArray[np.float64]

#: Groups whose sums are in memory at a time.
_GROUPS = 1024


def compact_groups(codes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return groups numbered from 0 without gaps, int64 [N].

    Args:
        codes: [N] group codes; every row with a negative code becomes a group of its own.
    """
    return np.unique(fill_singletons(codes), return_inverse=True)[1].astype(np.int64)


def mean_interval(values: NDArray[np.float64], groups: NDArray[np.int64]) -> Interval:
    """Return the mean of [n] values and 1.96 standard errors of it, with only groups independent.

    The variance is G / (G - 1) times the sum over G groups of (sum of deviations in the group)^2 / n^2
    (Liang, Zeger, Biometrika 73 (1986) 13); if every group has one value it is s^2 / n. Undefined numbers are
    NaN: both without values, the interval with fewer than two groups.
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
class ClusterInterval:
    """Cluster-robust 95 % interval of a mean over groups (patients).

    Attributes:
        low, high: bounds; NaN if there is no interval.
        groups: number of groups.
        reason: why low and high are NaN; "" if they are numbers.
    """

    low: float
    high: float
    groups: int
    reason: str = ""

    @classmethod
    def undefined(cls, reason: str, groups: int = 0) -> "ClusterInterval":
        """Return NaN bounds with a reason."""
        return cls(math.nan, math.nan, groups, reason)

    def to_dict(self) -> JsonObject:
        """Return all fields for JSON; `reason` only if there is one."""
        return {name: value for name, value in asdict(self).items() if name != "reason" or value}


def ratio_interval(totals: NDArray[np.float64], counts: NDArray[np.float64]) -> ClusterInterval:
    """Return the 95 % interval of sum(totals) / sum(counts), the mean of all values of G groups.

    The variance is that of the linearised ratio, i.e. the cluster-robust variance of a mean (Liang, Zeger,
    Biometrika 73 (1986) 13): G / (G - 1) times the sum of (total - mean x count)^2, divided by sum(counts)^2.
    The half width is its root times Student's t with G - 1 degrees of freedom, because the variance is
    underestimated with few groups (Cameron, Miller, J. Human Resources 50 (2015) 317). Anything the values
    were compared with, such as the support of an episode, is treated as fixed.

    Args:
        totals: float64 [G], sum of each group's values.
        counts: [G], number of values in each group, positive.
    """
    groups = len(counts)
    if groups < 2:
        return ClusterInterval.undefined(
            f"{groups} patient{'' if groups == 1 else 's'}: an interval needs two", groups
        )
    mean = float(totals.sum() / counts.sum())
    residuals = totals - mean * counts
    variance = groups / (groups - 1) * float(residuals @ residuals) / float(counts.sum()) ** 2
    half_width = student_t(groups - 1) * math.sqrt(variance)
    return ClusterInterval(mean - half_width, mean + half_width, groups)


def student_t(df: int) -> float:
    """Return the 97.5th percentile of Student's t with `df` >= 1 degrees of freedom, accurate to 1e-6.

    Importing scipy for it would take longer than an evaluation. For integer df the distribution function is a
    finite sum (Abramowitz, Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4), inverted by
    bisection; above 200 the expansion around the normal distribution (26.7.5) is used.
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
    """Return the probability that |Student's t| is below t."""
    angle = math.atan(t / math.sqrt(df))
    cosine, sine = math.cos(angle), math.sin(angle)
    term, total = (cosine, cosine) if df % 2 else (1.0, 1.0)
    if df == 1:
        return 2 * angle / math.pi
    for k in range(3 if df % 2 else 2, df - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 * (angle + sine * total) / math.pi if df % 2 else sine * total


def mean_across_groups(first: Any, second: Any, groups: NDArray[np.int64]) -> tuple[Interval, int]:
    """Return the mean of first[i] . second[j] over all i, j of different groups, and the number of pairs.

    Computed from sums, without forming pairs: the product of the sums minus the pairs within groups. The
    interval is 1.96 standard errors from a jackknife that leaves out one group at a time; NaN below three
    groups.

    Args:
        first, second: [n, r] of unit length, so that the products are cosines; may be the same array, or
            tensors on a device.
        groups: [n].
    """
    codes = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(codes).astype(np.float64)
    n, count = len(codes), len(sizes)
    pairs = float(n**2 - sizes @ sizes)
    products = _products if isinstance(first, np.ndarray) else _products_on_device
    within, with_others, of_sums = products(first, second, codes, sizes)
    total = float(of_sums - within.sum())
    mean = total / pairs if pairs > 0 else float("nan")
    if count < 3:
        return Interval(mean, float("nan")), round(pairs)
    # Leaving out a group removes its pairs with all others; `with_others` includes its own pairs twice.
    left_out = (total - with_others + 2 * within) / (pairs - 2 * sizes * n + 2 * sizes**2)
    variance = (count - 1) / count * float(((left_out - left_out.mean()) ** 2).sum())
    return Interval(mean, float(1.96 * np.sqrt(variance))), round(pairs)


def _products(
    first: NDArray[np.floating], second: NDArray[np.floating], codes: NDArray[np.intp], sizes: Floats
) -> tuple[Floats, Floats, float]:
    """Return products of sums: within each group [G], of each group with all [G], of all with all.

    The products of a group with all are those of its first vectors with all second ones, and vice versa.
    """
    count = len(sizes)
    sum_a, sum_b = (vectors.sum(axis=0, dtype=np.float64) for vectors in (first, second))
    within, with_others = np.empty(count), np.empty(count)
    order, starts = np.argsort(codes, kind="stable"), np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    for start in range(0, count, _GROUPS):
        stop = min(start + _GROUPS, count)
        rows, first_rows = order[starts[start] : starts[stop]], starts[start:stop] - starts[start]
        a, b = (np.add.reduceat(vectors[rows].astype(np.float64), first_rows) for vectors in (first, second))
        within[start:stop] = np.einsum("ij,ij->i", a, b)
        with_others[start:stop] = a @ sum_b + b @ sum_a
    return within, with_others, float(sum_a @ sum_b)


def _products_on_device(
    first: Any, second: Any, codes: NDArray[np.intp], sizes: Floats
) -> tuple[Floats, Floats, float]:
    """Do the same as `_products` where the vectors are, in float64; the products alone return."""
    import torch

    from engine.runtime import fetched, placed

    # The first vector of every group, then the second ones, and so on, largest groups first: unlike atomic
    # additions, such sums have the same bits in every run.
    largest = np.argsort(-sizes, kind="stable")
    order = np.argsort(codes, kind="stable")
    firsts, counts = (np.cumsum(sizes) - sizes)[largest].astype(int), sizes[largest].astype(int)
    turns = [order[firsts[: np.count_nonzero(counts > j)] + j] for j in range(int(counts[0]))]
    rows = placed(np.concatenate(turns), str(first.device)).split([len(turn) for turn in turns])
    a, b = (
        torch.zeros(len(sizes), vectors.shape[1], dtype=torch.float64, device=vectors.device)
        for vectors in (first, second)
    )
    for turn in rows:
        a[: len(turn)] += first[turn]
        b[: len(turn)] += second[turn]
    sum_a, sum_b = a.sum(0), b.sum(0)
    found = fetched((a * b).sum(1), a @ sum_b + b @ sum_a, sum_a @ sum_b)
    within, with_others = np.empty(len(sizes)), np.empty(len(sizes))
    within[largest], with_others[largest] = found[:2]
    return within, with_others, float(found[2])


def defined_rows(*vectors: Any) -> NDArray[np.bool_]:
    """Return which rows [n] are finite in all of some matrices [n, r]: arrays, or tensors on one device."""
    if all(isinstance(matrix, np.ndarray) for matrix in vectors):
        masks = [np.isfinite(matrix).all(axis=1) for matrix in vectors]
    else:
        from engine.runtime import fetched

        masks = fetched(*(matrix.isfinite().all(dim=1) for matrix in vectors))
    defined: NDArray[np.bool_] = np.logical_and.reduce(masks)
    return defined


def taken(matrix: Any, rows: NDArray[np.intp]) -> Any:
    """Return rows of an array, or of a tensor on its device."""
    if isinstance(matrix, np.ndarray):
        return matrix[rows]
    from engine.runtime import placed

    return matrix[placed(rows, str(matrix.device))]
