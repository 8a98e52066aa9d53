"""Operating points of a binary score: thresholds, sensitivity at a specificity, proportions with intervals.

An image is positive if its score is at least the threshold, as for scikit-learn's `roc_curve`.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from engine.kernels.intervals.cluster_robust import student_t
from engine.kernels.metrics import Floats
from stores.json_types import JsonObject

#: The 97.5th percentile of the normal distribution.
_Z = 1.959963984540054
#: Rounding that a share of false positives may exceed its limit by.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Roc:
    """The ROC curve at all distinct scores, from the largest down.

    Attributes:
        threshold: float64 [m], descending.
        sensitivity, false_positive_rate: float64 [m], of the rows whose score is at least the threshold; NaN
            without positive or negative rows.
    """

    threshold: Floats
    sensitivity: Floats
    false_positive_rate: Floats

    @classmethod
    def of(cls, positive: NDArray[np.bool_], scores: Floats) -> "Roc":
        """Compute from [n] outcomes and scores."""
        values, place = np.unique(-scores, return_inverse=True)
        hits = np.cumsum(np.bincount(place, weights=positive, minlength=len(values)))
        alarms = np.cumsum(np.bincount(place, weights=~positive, minlength=len(values)))
        with np.errstate(invalid="ignore"):
            return cls(-values, hits / positive.sum(), alarms / (~positive).sum())


@dataclass(frozen=True)
class Point:
    """A point of a ROC curve.

    Attributes:
        threshold: infinite where no image is positive; NaN if there is no such point.
        sensitivity, specificity: there.
        reason: why they are NaN; "" if they are numbers.
    """

    threshold: float
    sensitivity: float
    specificity: float
    reason: str = ""

    @classmethod
    def undefined(cls, reason: str) -> "Point":
        """Return a point of NaN."""
        return cls(math.nan, math.nan, math.nan, reason)


def one_sided(positive: NDArray[np.bool_]) -> str:
    """Return why there is no ROC curve of [n] outcomes; "" if there is one."""
    if not len(positive):
        return "there is no image"
    if positive.all():
        return "no image is negative"
    return "" if positive.any() else "no image is positive"


def at_specificity(positive: NDArray[np.bool_], scores: Floats, specificity: float) -> Point:
    """Find the largest sensitivity at this specificity or a higher one; no image may be positive there."""
    if reason := one_sided(positive):
        return Point.undefined(reason)
    roc = Roc.of(positive, scores)
    last = int((roc.false_positive_rate <= 1 - specificity + ROUNDING).sum()) - 1
    if last < 0:
        return Point(math.inf, 0.0, 1.0)
    # Of points with this sensitivity the one with the highest threshold has the fewest false positives.
    best = int(np.argmax(roc.sensitivity >= roc.sensitivity[last]))
    return _point(roc, best) if roc.sensitivity[last] > 0 else Point(math.inf, 0.0, 1.0)


def youden(positive: NDArray[np.bool_], scores: Floats) -> Point:
    """Find the point with the largest sensitivity + specificity - 1; of equal ones the highest threshold.

    Source: Youden 1950, "Index for rating diagnostic tests", Cancer 3, 32.
    """
    if reason := one_sided(positive):
        return Point.undefined(reason)
    roc = Roc.of(positive, scores)
    index = roc.sensitivity - roc.false_positive_rate
    best = int(np.argmax(index >= index.max() - ROUNDING))
    if index[best] <= ROUNDING:
        return Point.undefined("no threshold does better than chance")
    return _point(roc, best)


def _point(roc: Roc, place: int) -> Point:
    specificity = 1 - float(roc.false_positive_rate[place])
    return Point(float(roc.threshold[place]), float(roc.sensitivity[place]), specificity)


@dataclass(frozen=True)
class Proportion:
    """A proportion with its 95 % interval.

    Attributes:
        value: NaN without rows.
        low, high: NaN where there is no interval.
        images, patients: it is over.
        reason: why a number is NaN; "" if none is.
    """

    value: float
    low: float
    high: float
    images: int
    patients: int
    reason: str = ""

    def to_dict(self) -> JsonObject:
        """Return all fields for JSON; `reason` only if there is one."""
        return {name: value for name, value in asdict(self).items() if name != "reason" or value}


def proportion(hits: NDArray[np.bool_], groups: NDArray[np.int64], what: str = "image") -> Proportion:
    """Return a share of rows and its Wilson interval, whose sample size takes patients' images together.

    Where patients have one row each, it is Wilson's score interval (J. American Statistical Association 22
    (1927) 209). Otherwise n is divided by the design effect, the cluster-robust variance of the share over
    the binomial one, at least 1, and by (t / z)^2 for the number of patients G (Korn, Graubard, Survey
    Methodology 24 (1998) 193; Dean, Pavlou, Survey Methodology 41 (2015)). A share of 0 or 1 has no
    variance: n is then G.

    Args:
        hits: bool [n]; groups: [n] patients.
        what: rows are called in the reason.
    """
    n = len(hits)
    if not n:
        return Proportion(math.nan, math.nan, math.nan, 0, 0, f"there is no {what}")
    codes = np.unique(groups, return_inverse=True)[1]
    count, share = int(codes.max()) + 1, float(hits.mean())
    if count < 2:
        return Proportion(share, math.nan, math.nan, n, count, "one patient: an interval needs two")
    low, high = _wilson(share, _effective(hits, codes, share, count))
    return Proportion(share, low, high, n, count)


def _effective(hits: NDArray[np.bool_], codes: NDArray[np.intp], share: float, count: int) -> float:
    """Return the number of independent rows that would say as much."""
    n = len(hits)
    if count == n:
        return n
    if share in (0.0, 1.0):
        return count
    sums = np.bincount(codes, weights=hits - share)
    variance = count / (count - 1) * float(sums @ sums) / n**2
    effect = max(1.0, variance * n / (share * (1 - share)))
    return n / effect * (_Z / student_t(count - 1)) ** 2


def _wilson(share: float, n: float) -> tuple[float, float]:
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)
