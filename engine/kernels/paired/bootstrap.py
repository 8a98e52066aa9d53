"""Paired bootstrap over patients: the same resamples for all models.

Percentile and BCa intervals after Efron, Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and
14. Drawn are patients with all of their images, and never images of a patient; models are not refitted.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr

from engine.kernels.episodes import Stream
from engine.kernels.paired.weighted_areas import RankedRows

Floats = NDArray[np.float64]
Weights = NDArray[np.float32]

#: Resamples of a block: its weights of 10,000 patients stay in the cache.
BLOCK = 64
#: Parts that are left out in turn for BCa, where there are more patients.
MOST_LEFT_OUT = 2_000


class Statistic(Protocol):
    """A number of each of M models that depends on how often each patient is drawn."""

    def values(self, weights: Weights) -> Floats:
        """Return the numbers float64 [M, r] for weights of patients float32 [G, r]; NaN where undefined."""


@dataclass(frozen=True, eq=False)
class Ratios:
    """Weighted means over K parts (classes, findings) of ratios of sums over patients.

    Accuracy, balanced accuracy and log loss are such means.

    Attributes:
        numerators: float64 [M, G, K].
        denominators: float64 [M or 1, G, K].
        shares: float64 [K], weights of the parts; they sum to 1.
    """

    numerators: Floats
    denominators: Floats
    shares: Floats

    def values(self, weights: Weights) -> Floats:
        """Return the means float64 [M, r]; NaN where a part has no weight."""
        drawn = weights.T.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = (drawn @ self.numerators) / (drawn @ self.denominators)
        means: Floats = ratios @ self.shares
        return means


@dataclass(frozen=True, eq=False)
class Areas:
    """Means over K parts (classes or findings) of AUROCs or average precisions.

    Attributes:
        rows: [M][K], sorted.
        kind: of the number.
    """

    rows: Sequence[Sequence[RankedRows]]
    kind: Literal["auroc", "average_precision"]

    def values(self, weights: Weights) -> Floats:
        """Return the means float64 [M, r]; NaN where a part is undefined."""
        return np.array(
            [np.mean([getattr(part, self.kind)(weights) for part in own], axis=0) for own in self.rows]
        )


def resample_weights(groups: int, resamples: int, seed: int) -> Iterator[Weights]:
    """Yield blocks float32 [G, r] of how often each of G patients is drawn, with replacement.

    They are those of `engine.kernels.intervals.metrics_bootstrap` for the same seed.
    """
    stream = Stream(hashlib.sha256(f"embank bootstrap 1 {seed}".encode()).digest()[:16])
    for start in range(0, resamples, BLOCK):
        r = min(BLOCK, resamples - start)
        places = (stream.uniform(r, groups) * groups).astype(np.int64)
        places *= r
        places += np.arange(r)[:, None]
        counts = np.bincount(places.ravel(), minlength=groups * r)
        yield counts.reshape(groups, r).astype(np.float32)


def left_out_weights(groups: int) -> Iterator[Weights]:
    """Yield blocks float32 [G, r] in which one patient after the other (or part of them) has no weight."""
    parts = min(groups, MOST_LEFT_OUT)
    part_of = np.arange(groups) * parts // max(groups, 1)
    for start in range(0, parts, BLOCK):
        columns = np.arange(start, min(start + BLOCK, parts))
        yield (part_of[:, None] != columns).astype(np.float32)


def replicates(statistics: Sequence[Statistic], blocks: Iterator[Weights], threads: int = 1) -> list[Floats]:
    """Return the numbers float64 [M, R] of each statistic in all resamples.

    Args:
        blocks: weights of patients, e.g. of `resample_weights`; all statistics see the same.
        threads: that share the statistics.
    """
    own: list[list[Floats]] = [[] for _ in statistics]
    with ThreadPoolExecutor(max(1, threads)) as pool:
        run: Callable[..., Iterator[Floats]] = map if threads <= 1 else pool.map
        for weights in blocks:
            for values, block in zip(own, run(_values, statistics, [weights] * len(own)), strict=True):
                values.append(block)
    return [np.concatenate(values, axis=1) for values in own]


def _values(statistic: Statistic, weights: Weights) -> Floats:
    return statistic.values(weights)


@dataclass(frozen=True)
class BootstrapInterval:
    """An interval of one number.

    Attributes:
        low, high: bounds; NaN where there are none.
        deviation: standard deviation of the resamples.
        left_out: resamples in which the number is undefined, e.g. because a class is missing.
        reason: why there are no bounds; "" if there are.
    """

    low: float
    high: float
    deviation: float
    left_out: int
    reason: str = ""


def interval_of(
    resampled: Floats, estimate: float, left_out: Floats | None = None, level: float = 0.95
) -> BootstrapInterval:
    """Return the percentile interval, or BCa's if values without each patient are given.

    Args:
        resampled: float64 [R]; those that are NaN are left out.
        estimate: the number itself.
        left_out: float64 [G], without one patient each.
    """
    values = resampled[np.isfinite(resampled)]
    missing = len(resampled) - len(values)
    if math.isnan(estimate) or len(values) < 2:
        reason = "it is undefined" if math.isnan(estimate) else "it is defined in fewer than two resamples"
        return BootstrapInterval(math.nan, math.nan, math.nan, missing, reason)
    deviation = float(values.std(ddof=1))
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if left_out is not None and deviation > 0:
        tails, reason = _corrected(tails, values, estimate, left_out)
        if reason:
            return BootstrapInterval(math.nan, math.nan, deviation, missing, reason)
    low, high = np.quantile(values, tails)
    return BootstrapInterval(float(low), float(high), deviation, missing)


def _corrected(tails: Floats, values: Floats, estimate: float, left_out: Floats) -> tuple[Floats, str]:
    """Return BCa's levels (equation 14.10), and why there are none."""
    below = (float((values < estimate).mean()) + float((values <= estimate).mean())) / 2
    if not 0 < below < 1:
        return tails, "all resamples lie on one side of the value: BCa has no bias correction"
    if not np.isfinite(left_out).all():
        return tails, "it is undefined without one of the patients: BCa has no acceleration"
    influence = left_out.mean() - left_out
    spread = float((influence**2).sum())
    acceleration = float((influence**3).sum()) / (6 * spread**1.5) if spread else 0.0
    shift = ndtri(below)
    normal = shift + ndtri(tails)
    levels: Floats = ndtr(shift + normal / (1 - acceleration * normal))
    return levels, ""


def p_value(difference: float, deviation: float, groups: int) -> float:
    """Return the two-sided p of a difference by its bootstrap deviation, with Student's t of G - 1.

    Counting resamples beyond zero instead could not go below 2 / resamples, which no adjustment for many
    pairs would survive. NaN where the deviation is 0 or undefined.

    Args:
        difference: the value; deviation: standard deviation of the resamples.
        groups: G, patients that were resampled.
    """
    if not deviation > 0 or groups < 2:
        return math.nan
    corrected = deviation * math.sqrt(groups / (groups - 1))
    return float(2 * stdtr(groups - 1, -abs(difference) / corrected))
