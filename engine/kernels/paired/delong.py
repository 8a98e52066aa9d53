"""DeLong's covariance of several models' areas under the ROC curve, images independent or of patients.

DeLong, DeLong, Clarke-Pearson, Biometrics 44 (1988) 837, doi 10.2307/2531595, from midranks as in Sun, Xu,
IEEE Signal Processing Letters 21 (2014) 1389, doi 10.1109/LSP.2014.2337313: n log n instead of the number of
pairs. For clustered images Obuchowski, Biometrics 53 (1997) 567, doi 10.2307/2533958, equation 3 and the
covariance below it; with one image a cluster it is DeLong's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr

Floats = NDArray[np.float64]

#: A variance of a difference below this share of the two variances is rounding, i.e. zero.
_ROUNDING = 1e-13


def placements(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> Floats:
    """Return the placement of each row, float64 [n]; ties count half.

    That of a positive is the share of negatives with a smaller score, that of a negative the share of
    positives with a larger one. The mean over either class is the AUROC.

    Args:
        positive: bool [n], with at least one True and one False.
        scores: [n], larger is likelier positive.
    """
    order = np.argsort(scores)
    ranked, sorted_scores = positive[order], scores[order]
    new = np.empty(len(order), np.bool_)
    new[:1] = True
    np.not_equal(sorted_scores[1:], sorted_scores[:-1], out=new[1:])
    starts = np.flatnonzero(new)
    sizes = np.diff(starts, append=len(order))
    upto = np.cumsum(ranked)  # positives up to and with each row
    through = upto[starts + sizes - 1]
    before = np.concatenate([[0], through[:-1]])
    positives, tied = int(upto[-1]), through - before
    negatives = len(order) - positives
    above = np.repeat((positives - before - 0.5 * tied) / positives, sizes)
    below = np.repeat((starts - before + 0.5 * (sizes - tied)) / negatives, sizes)
    values = np.empty(len(order))
    values[order] = np.where(ranked, below, above)
    return values


@dataclass(frozen=True, eq=False)
class Components:
    """Structural components of the AUROCs of M models, summed over G units (images or patients).

    Attributes:
        areas: float64 [M].
        positive, negative: float64 [M, G], sums over each unit's positives and negatives of placement - area.
        positives, negatives: rows of either class.
        present: bool [2, G], units with a positive, and with a negative.
    """

    areas: Floats
    positive: Floats
    negative: Floats
    positives: int
    negatives: int
    present: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        positive: NDArray[np.bool_],
        scores: NDArray[np.floating],
        units: NDArray[np.integer] | None = None,
        count: int | None = None,
    ) -> "Components":
        """Compute the components.

        Args:
            positive: bool [n], with at least one True and one False.
            scores: [M, n], finite.
            units: int [n], unit of each row, from 0; None makes every row one.
            count: G, if there are units without rows here.
        """
        codes = np.arange(len(positive)) if units is None else units
        total = int(codes.max()) + 1 if count is None else count
        positives = int(positive.sum())
        sides = [positive, ~positive]
        areas, sums = np.empty(len(scores)), np.empty((2, len(scores), total))
        for model, own in enumerate(scores):
            values = placements(positive, own)
            areas[model] = values[positive].mean()
            for side, rows in enumerate(sides):
                weights = values[rows] - areas[model]
                sums[side, model] = np.bincount(codes[rows], weights, minlength=total)
        present = np.stack([np.bincount(codes[rows], minlength=total) > 0 for rows in sides])
        return cls(areas, sums[0], sums[1], positives, len(positive) - positives, present)

    @property
    def reason(self) -> str:
        """Why there is no covariance; "" if there is one."""
        positive, negative = self.present.sum(axis=1).tolist()
        if min(positive, negative) >= 2:
            return ""
        return f"{positive} with positives and {negative} with negatives: a test needs two of each"

    @property
    def covariance(self) -> Floats:
        """Obuchowski's covariance of the areas, float64 [M, M]; NaN with fewer than two units of a class."""
        if self.reason:
            return np.full((len(self.areas),) * 2, np.nan)
        m, n = self.positives, self.negatives
        both, positive, negative = map(
            _small_sample, (self.present.any(axis=0), self.present[0], self.present[1])
        )
        across = self.positive @ self.negative.T
        return (
            positive / m**2 * (self.positive @ self.positive.T)
            + negative / n**2 * (self.negative @ self.negative.T)
            + both / (m * n) * (across + across.T)
        )

    @property
    def influence(self) -> Floats:
        """Influence of each unit on each area, float64 [M, G]."""
        return self.positive / self.positives + self.negative / self.negatives


def mean_covariance(parts: Sequence[Components]) -> Floats:
    """Return the covariance [M, M] of the models' means of several AUROCs (findings, or classes of one task).

    The units' influences on the AUROCs are averaged, then their products summed and multiplied by
    G / (G - 1): the cluster-robust variance of a linearised mean. One AUROC alone is `Components.covariance`.

    Args:
        parts: over the same G units.
    """
    if len(parts) == 1:
        return parts[0].covariance
    influence = np.mean([part.influence for part in parts], axis=0)
    present = np.any([part.present.any(axis=0) for part in parts], axis=0)
    if present.sum() < 2:
        return np.full((len(influence),) * 2, np.nan)
    covariance: Floats = _small_sample(present) * (influence @ influence.T)
    return covariance


def _small_sample(present: NDArray[np.bool_]) -> float:
    """Return G / (G - 1) for the number of units that are present."""
    count = int(present.sum())
    return count / (count - 1)


@dataclass(frozen=True)
class Differences:
    """Differences between all pairs of M models.

    Attributes:
        z: float64 [M, M], (value of row - value of column) / its standard error; NaN where there is none.
        p: float64 [M, M], two-sided.
    """

    z: Floats
    p: Floats


def differences_of(values: Floats, covariance: Floats, freedom: int | None = None) -> Differences:
    """Test all pairs of M values by their covariance, with the normal distribution or Student's t.

    Where a difference has no variance (equal scores, or perfect ones) z and p are NaN.

    Args:
        values: float64 [M].
        covariance: float64 [M, M].
        freedom: degrees of freedom of t, for patients one less than their number: a cluster-robust variance
            of few comes out too small (Cameron, Miller, J. Human Resources 50 (2015) 317). None is normal.
    """
    own = np.diag(covariance)
    scale = own[:, None] + own
    variance = scale - 2 * covariance
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(
            variance > _ROUNDING * scale, (values[:, None] - values) / np.sqrt(np.abs(variance)), np.nan
        )
    tail = ndtr(-np.abs(z)) if freedom is None else stdtr(freedom, -np.abs(z))
    return Differences(z, 2 * tail)
