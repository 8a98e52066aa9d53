"""ROC and precision-recall curves with pointwise 95 % bands from a bootstrap over patients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.intervals.bootstrap import undefined_reason
from engine.kernels.intervals.cluster_robust import compact_groups
from engine.kernels.intervals.metrics_bootstrap import group_counts
from engine.kernels.metrics import Floats
from engine.kernels.operating_points import one_sided

#: Places of the horizontal axis at which bands are computed.
_PLACES = 101


@dataclass(frozen=True)
class Curve:
    """A curve, and its band.

    Attributes:
        x, y: float64 [m], of the curve at all distinct scores.
        places: float64 [101], from 0 to 1.
        low, high: float64 [101], 2.5th and 97.5th percentile of y there; NaN where there is no band.
        reason: why there is no curve or no band; "" if there are both.
    """

    x: Floats
    y: Floats
    places: Floats
    low: Floats
    high: Floats
    reason: str = ""


@dataclass(frozen=True)
class _Ranked:
    """Rows by descending score; ends: [m], rows with at least each distinct score."""

    order: NDArray[np.intp]
    positive: NDArray[np.bool_]
    ends: NDArray[np.intp]

    @classmethod
    def of(cls, positive: NDArray[np.bool_], scores: Floats) -> "_Ranked":
        order = np.argsort(-scores, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(scores[order])) + 1, len(order))
        return cls(order, positive[order], ends)

    def counts(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return true and false positives [m] at each distinct score for row weights [n]."""
        own = weights[self.order]
        hits = np.cumsum(own * self.positive)[self.ends - 1]
        return hits, np.cumsum(own)[self.ends - 1] - hits


def roc_curve(
    positive: NDArray[np.bool_],
    scores: Floats,
    groups: NDArray[np.integer[Any]],
    resamples: int,
    seed: int = 0,
) -> Curve:
    """Return sensitivity against the false positive rate, beginning at 0.

    The band at a place is over resamples of the patients, of the largest sensitivity whose false positive
    rate is not above that place.

    Args:
        positive: bool [n]; scores: float64 [n], larger is likelier.
        groups: int [n] patients; a row with a negative code is one of its own.
    """

    def points(hits: Floats, alarms: Floats) -> tuple[Floats, Floats]:
        return np.append(0, alarms / alarms[-1]), np.append(0, hits / hits[-1])

    def at(x: Floats, y: Floats, places: Floats) -> Floats:
        return y[np.searchsorted(x, places + 1e-12, side="right") - 1]

    return _banded(positive, scores, groups, (resamples, seed), points, at)


def precision_recall_curve(
    positive: NDArray[np.bool_],
    scores: Floats,
    groups: NDArray[np.integer[Any]],
    resamples: int,
    seed: int = 0,
) -> Curve:
    """Return precision against recall; arguments as for `roc_curve`.

    The band at a place is of the precision at the highest threshold whose recall is at least that place.
    """

    def points(hits: Floats, alarms: Floats) -> tuple[Floats, Floats]:
        drawn = hits + alarms > 0  # rows of the highest scores may have no weight
        return hits[drawn] / hits[-1], hits[drawn] / (hits + alarms)[drawn]

    def at(x: Floats, y: Floats, places: Floats) -> Floats:
        return y[np.searchsorted(x, places - 1e-12, side="left")]

    return _banded(positive, scores, groups, (resamples, seed), points, at)


def _banded(
    positive: NDArray[np.bool_],
    scores: Floats,
    groups: NDArray[np.integer[Any]],
    draws: tuple[int, int],
    points: Callable[[Floats, Floats], tuple[Floats, Floats]],
    at: Callable[[Floats, Floats, Floats], Floats],
) -> Curve:
    places, (resamples, seed) = np.linspace(0, 1, _PLACES), draws
    none = np.full(_PLACES, np.nan)
    if reason := one_sided(positive):
        return Curve(np.zeros(0), np.zeros(0), places, none, none, reason)
    ranked, codes = _Ranked.of(positive, scores), compact_groups(groups)
    x, y = points(*ranked.counts(np.ones(len(scores))))
    count = int(codes.max()) + 1
    if reason := undefined_reason(count, resamples):
        return Curve(x, y, places, none, none, reason)
    values = []
    for block in group_counts(seed, resamples, count, len(scores)):
        for weights in block[:, codes]:
            hits, alarms = ranked.counts(weights)
            if hits[-1] > 0 and alarms[-1] > 0:
                values.append(at(*points(hits, alarms), places))
    if len(values) < 2:
        return Curve(x, y, places, none, none, "fewer than two resamples have both classes")
    low, high = np.percentile(values, [2.5, 97.5], axis=0)
    return Curve(x, y, places, low, high)
