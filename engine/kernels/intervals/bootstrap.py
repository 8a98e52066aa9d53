"""Percentile bootstrap over patients (groups): 95 % intervals of ratios."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.episodes import Stream
from stores.json_types import JsonObject

#: Random numbers drawn at a time for a block of bootstrap resamples.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Bootstrap:
    """Percentile interval of a ratio (an accuracy) when groups (query patients) are resampled.

    Attributes:
        low, high: 2.5th and 97.5th percentile of the resampled ratios; NaN if there is no interval.
        groups: number of groups resampled.
        resamples: number of resamples.
        reason: why low and high are NaN; "" if they are numbers.
    """

    low: float
    high: float
    groups: int
    resamples: int
    reason: str = ""

    def to_dict(self) -> JsonObject:
        """Return all fields for JSON; `reason` only if there is one."""
        return {name: value for name, value in asdict(self).items() if name != "reason" or value}


def undefined_reason(groups: int, resamples: int) -> str:
    """Return why a bootstrap gives no interval; "" if it gives one.

    All resamples of a single group are equal: an interval of zero width would look like certainty.
    """
    if groups < 2:
        return f"{groups} patient{'' if groups == 1 else 's'} (or images) to draw from: an interval needs two"
    return "" if resamples >= 2 else f"{resamples} resample: an interval needs two, and 1000 are usual"


def bootstrap_ratio(
    correct: NDArray[Any], asked: NDArray[Any], groups: NDArray[np.int64], resamples: int, stream: Stream
) -> Bootstrap:
    """Bootstrap a pooled accuracy over groups (patients), each with all of its queries in all episodes.

    The support is not resampled: the interval shows how the accuracy depends on the patients queried, not on
    those that the prototypes were computed from.

    Args:
        correct: [N], number of correct predictions of each image.
        asked: [N], number of queries of each image.
        groups: int64 [N], group of each image, from 0.
        resamples: number of bootstrap samples.
    """
    queried = np.flatnonzero(asked)
    codes = np.unique(groups[queried], return_inverse=True)[1]
    asked_by_group = np.bincount(codes, weights=asked[queried])
    correct_by_group = np.bincount(codes, weights=correct[queried])
    if reason := undefined_reason(len(asked_by_group), resamples):
        return Bootstrap(math.nan, math.nan, len(asked_by_group), resamples, reason)
    step, accuracies = max(1, _BLOCK // len(asked_by_group)), []
    for start in range(0, resamples, step):
        numbers = stream.uniform(min(step, resamples - start), len(asked_by_group))
        drawn = (numbers * len(asked_by_group)).astype(np.int64)
        accuracies.append(correct_by_group[drawn].sum(axis=1) / asked_by_group[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(accuracies), [2.5, 97.5])
    return Bootstrap(float(low), float(high), len(asked_by_group), resamples)
