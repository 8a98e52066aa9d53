"""Means with standard deviations, and 95 % intervals of means: normal, and by the bootstrap."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.kernels.episodes import Stream
from engine.kernels.intervals.bootstrap import bootstrap_ratio
from engine.kernels.intervals.cluster_robust import mean_interval
from engine.kernels.summaries.checks import count, undefined, vectors


@dataclass(frozen=True)
class Mean:
    """A mean with its standard deviation.

    Attributes:
        mean: NaN without values.
        sd: standard deviation with divisor n - ddof; NaN with ddof values or fewer.
        n: number of values.
        ddof: 1 for a sample, 0 for a population.
        reason: why a number is NaN; "" if both are numbers.
    """

    mean: float
    sd: float
    n: int
    ddof: int
    reason: str = ""


def mean_sd(values: ArrayLike, ddof: int = 1) -> Mean:
    """Return the mean and the standard deviation of [n] values.

    Args:
        ddof: n - ddof is the divisor of the variance.

    Raises:
        ValueError: not a vector.
    """
    (array,) = vectors(values)
    n = len(array)
    if reason := undefined(array) or ("" if n else "no value"):
        return Mean(math.nan, math.nan, n, ddof, reason)
    if n <= ddof:
        return Mean(float(array.mean()), math.nan, n, ddof, f"{count(n)}: a deviation needs {ddof + 1}")
    return Mean(float(array.mean()), float(array.std(ddof=ddof)), n, ddof)


@dataclass(frozen=True)
class MeanInterval:
    """A mean with its 95 % interval.

    Attributes:
        mean: NaN without values.
        low, high: ends; NaN if there is no interval.
        n: number of values.
        groups: number of independent groups of values (patients).
        reason: why a number is NaN; "" if all are numbers.
    """

    mean: float
    low: float
    high: float
    n: int
    groups: int
    reason: str = ""


def _prepared(
    values: ArrayLike, groups: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.int64], int, str]:
    """Return values, groups from 0, their number, and why there is no mean."""
    (array,) = vectors(values)
    codes = np.arange(len(array)) if groups is None else np.asarray(groups)
    if codes.shape != array.shape:
        raise ValueError(f"{len(array)} values, and groups of shape {codes.shape}")
    codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    reason = undefined(array) or ("" if len(array) else "no value")
    return array, codes, len(np.unique(codes)), reason


def normal_interval(values: ArrayLike, groups: ArrayLike | None = None) -> MeanInterval:
    """Return the mean of [n] values and 1.96 standard errors to both sides.

    Without groups the standard error is s / sqrt(n), s with divisor n - 1. With groups it is cluster-robust
    (Liang, Zeger, Biometrika 73 (1986) 13): only groups are independent.

    Args:
        groups: [n], codes or names; None for independent values.

    Raises:
        ValueError: not vectors of one length.
    """
    array, codes, independent, reason = _prepared(values, groups)
    if reason:
        return MeanInterval(math.nan, math.nan, math.nan, len(array), independent, reason)
    interval = mean_interval(array, codes)
    if independent < 2:
        reason = f"{count(independent, 'independent value')}: an interval needs two"
    half = interval.ci95
    return MeanInterval(
        interval.mean, interval.mean - half, interval.mean + half, len(array), independent, reason
    )


def bootstrap_interval(
    values: ArrayLike, resamples: int, stream: Stream, groups: ArrayLike | None = None
) -> MeanInterval:
    """Return the mean of [n] values and the 2.5th and 97.5th percentile of resampled means.

    Groups are drawn with replacement, each with all of its values (Efron, Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 13; Davison, Hinkley, Bootstrap Methods, 1997, section 3.8).

    Args:
        resamples: at least 2; 1000 are usual.
        stream: of random numbers; the same stream gives the same interval.
        groups: [n], codes or names; None for independent values.

    Raises:
        ValueError: not vectors of one length.
    """
    array, codes, independent, reason = _prepared(values, groups)
    if reason:
        return MeanInterval(math.nan, math.nan, math.nan, len(array), independent, reason)
    drawn = bootstrap_ratio(array, np.ones(len(array)), codes, resamples, stream)
    return MeanInterval(float(array.mean()), drawn.low, drawn.high, len(array), independent, drawn.reason)
