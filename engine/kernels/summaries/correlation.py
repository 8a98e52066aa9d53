"""Pearson's correlation with its exact t test, Fisher's interval, and its value without each point."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc

from engine.kernels.summaries.checks import Floats, count, is_constant, undefined, vectors

#: The 97.5th percentile of the normal distribution.
_Z = 1.959963984540054


@dataclass(frozen=True)
class Pearson:
    """Pearson's r of n points.

    Attributes:
        r: in [-1, 1]; NaN if undefined.
        p: two-sided, of r = 0; NaN with r.
        low, high: 95 % interval of r by Fisher's z; NaN with fewer than four points.
        n: number of points.
        reason: why r and p are NaN; "" if they are numbers.
    """

    r: float
    p: float
    low: float
    high: float
    n: int
    reason: str = ""


def pearson(x: ArrayLike, y: ArrayLike) -> Pearson:
    """Return Pearson's correlation of n points.

    p is of Student's t = r sqrt((n - 2) / (1 - r^2)) with n - 2 degrees of freedom, exact for points of which
    one coordinate is normal and independent of the other (Student, Biometrika 6 (1908) 302; Fisher,
    Biometrika 10 (1915) 507). The interval is that of atanh r with standard error 1 / sqrt(n - 3) (Fisher,
    Metron 1 (1921) 3).

    Args:
        x, y: [n].

    Raises:
        ValueError: not vectors of one length.
    """
    first, second = vectors(x, y)
    n = len(first)
    if reason := _reason(first, second):
        return Pearson(math.nan, math.nan, math.nan, math.nan, n, reason)
    r = float(np.clip(_unit(first) @ _unit(second), -1.0, 1.0))
    # The probability of |t| beyond that of r is the incomplete beta function at 1 - r^2.
    p = float(betainc((n - 2) / 2, 0.5, (1 - r) * (1 + r)))
    return Pearson(r, p, *_fisher(r, n), n)


def _reason(x: Floats, y: Floats) -> str:
    if reason := undefined(x) or undefined(y):
        return reason
    if len(x) < 3:
        return f"{count(len(x), 'point')}: a correlation needs three"
    return next((f"{name} is constant" for name, one in (("x", x), ("y", y)) if is_constant(one)), "")


def _unit(values: Floats) -> Floats:
    """Return deviations from the mean, of unit length; scaled first, so that no square overflows."""
    deviations = values - values.mean()
    deviations = deviations / np.abs(deviations).max()
    unit: Floats = deviations / np.linalg.norm(deviations)
    return unit


def _fisher(r: float, n: int) -> tuple[float, float]:
    if n < 4:
        return math.nan, math.nan
    if abs(r) == 1:
        return r, r
    half = _Z / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


@dataclass(frozen=True)
class LeaveOneOut:
    """Pearson's r without each of n points.

    Attributes:
        r, p: float64 [n], without point i; NaN where undefined.
        low, high: smallest and largest of r; NaN if undefined.
        most_influential: the point without which r differs most from r of all, the first of equals; -1 if
            undefined.
        reason: why the last three are undefined; "" if they are not.
    """

    r: NDArray[np.float64]
    p: NDArray[np.float64]
    low: float
    high: float
    most_influential: int
    reason: str = ""


def leave_one_out(x: ArrayLike, y: ArrayLike) -> LeaveOneOut:
    """Return Pearson's r without each point in turn (the jackknife's values; Efron, Stein 1981).

    Args:
        x, y: [n]; four points or more.

    Raises:
        ValueError: not vectors of one length.
    """
    first, second = vectors(x, y)
    n, overall = len(first), pearson(x, y)
    without = [pearson(np.delete(first, place), np.delete(second, place)) for place in range(n)]
    r, p = np.array([one.r for one in without]), np.array([one.p for one in without])
    if reason := overall.reason or ("" if n > 3 else f"{count(n, 'point')}: leaving one out needs four"):
        return LeaveOneOut(r, p, math.nan, math.nan, -1, reason)
    if np.isnan(r).all():
        return LeaveOneOut(r, p, math.nan, math.nan, -1, without[0].reason)
    changes = np.abs(r - overall.r)
    return LeaveOneOut(r, p, float(np.nanmin(r)), float(np.nanmax(r)), int(np.nanargmax(changes)))
