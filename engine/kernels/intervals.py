"""95 % intervals of accuracies: over episodes, between models on the same episodes, over patients."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.episodes import Stream

#: Numbers that a block of bootstrap resamples may draw at a time.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean and the half width of its 95 % interval."""

    mean: float
    ci95: float


def over_episodes(values: NDArray[np.float64], *, population: bool = False) -> Interval:
    """Mean of [E] values and 1.96 s / sqrt(E), E at least 2.

    Args:
        population: let s divide by E, as the study's code does, instead of E - 1.
    """
    spread = values.std(ddof=0 if population else 1)
    return Interval(float(values.mean()), float(1.96 * spread / np.sqrt(len(values))))


def paired(first: NDArray[np.float64], second: NDArray[np.float64]) -> Interval:
    """Difference first - second of two models on the same episodes [E], from its value in each episode."""
    return over_episodes(first - second)


@dataclass(frozen=True)
class Bootstrap:
    """Percentile interval of an accuracy when its query patients are drawn anew.

    Attributes:
        low, high: 2.5th and 97.5th percentile of the resampled accuracies.
        groups: that were drawn from.
        resamples: how often.
    """

    low: float
    high: float
    groups: int
    resamples: int


def over_groups(
    correct: NDArray[Any], asked: NDArray[Any], groups: NDArray[np.int64], resamples: int, stream: Stream
) -> Bootstrap:
    """Bootstrap the pooled accuracy over groups (patients), each with all of its queries in all episodes.

    What it does not vary is the support: it says how the accuracy depends on who is asked, not on whom the
    prototypes were made of.

    Args:
        correct: [N] right answers of each image; asked: [N] how often it was a query.
        groups: int64 [N], group of each image, from 0.
        resamples: number of bootstrap samples.
    """
    queried = np.flatnonzero(asked)
    codes = np.unique(groups[queried], return_inverse=True)[1]
    n = np.bincount(codes, weights=asked[queried])
    c = np.bincount(codes, weights=correct[queried])
    step, found = max(1, _BLOCK // len(n)), []
    for start in range(0, resamples, step):
        numbers = stream.uniform(min(step, resamples - start), len(n))
        drawn = (numbers * len(n)).astype(np.int64)
        found.append(c[drawn].sum(axis=1) / n[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
    return Bootstrap(float(low), float(high), len(n), resamples)
