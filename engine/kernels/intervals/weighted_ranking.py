"""Weighted AUROC and average precision of one class against the rest, for many row weights at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.kernels.metrics import Floats
from engine.kernels.operating_points import ROUNDING


@dataclass(frozen=True)
class WeightedRanking:
    """One class against the rest, sorted once for all row weights.

    Attributes:
        positive, negative: rows, by ascending score.
        below, upto: [positives], number of negatives with a smaller score, and with a score not larger.
        tied: [positives], position of the first positive with the same score.
    """

    positive: NDArray[np.intp]
    negative: NDArray[np.intp]
    below: NDArray[np.intp]
    upto: NDArray[np.intp]
    tied: NDArray[np.intp]

    @classmethod
    def of(cls, positive: NDArray[np.bool_], scores: Floats) -> "WeightedRanking":
        """Sort rows by score.

        Args:
            positive: bool [n].
            scores: float64 [n], larger is likelier.
        """
        order = np.argsort(scores, kind="stable")
        p, n = order[positive[order]], order[~positive[order]]
        below, upto = (np.searchsorted(scores[n], scores[p], side) for side in ("left", "right"))
        return cls(p, n, below, upto, np.searchsorted(scores[p], scores[p], "left"))

    def areas(self, weights: Floats, specificity: float | None = None) -> tuple[Floats, ...]:
        """Return AUROC and average precision [r] for row weights [n, r]; NaN where a side has no weight.

        Args:
            specificity: also return the largest sensitivity [r] at it, 0 where no positive reaches it.
        """
        positive_weights = weights[self.positive]
        positive_sums, negative_sums = _from_zero(positive_weights), _from_zero(weights[self.negative])
        lower = negative_sums[self.below]
        pairs_won = 0.5 * (lower + negative_sums[self.upto]) if (self.below != self.upto).any() else lower
        true_positives = positive_sums[-1] - positive_sums[self.tied]
        false_positives = negative_sums[-1] - lower
        precision = np.divide(
            true_positives,
            true_positives + false_positives,
            out=np.zeros_like(true_positives),
            where=true_positives > 0,
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            area = np.einsum("ir,ir->r", positive_weights, pairs_won) / (
                positive_sums[-1] * negative_sums[-1]
            )
            average = np.einsum("ir,ir->r", positive_weights, precision) / positive_sums[-1]
        defined = np.isfinite(area)
        areas = area, np.where(defined, average, np.nan)
        if specificity is None:
            return areas
        # Thresholds between scores of positives only add false positives.
        limit = (1 - specificity) * negative_sums[-1] + ROUNDING
        hits = np.where(false_positives <= limit, true_positives, 0.0).max(axis=0, initial=0.0)
        with np.errstate(invalid="ignore"):
            return *areas, np.where(defined, hits / positive_sums[-1], np.nan)


def _from_zero(weights: Floats) -> Floats:
    """Return the sums [m + 1, r] of the first 0, 1, ... m rows."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums
