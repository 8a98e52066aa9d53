"""Min-max scaling of numbers over a reference set among them."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.kernels.summaries.checks import count, vectors


@dataclass(frozen=True)
class MinMax:
    """Numbers scaled so that the smallest of a set is 0 and the largest is 1.

    Attributes:
        scaled: float64 [n]; NaN where a number is undefined, and all NaN if the set gives no scale.
        low, high: smallest and largest number of the set; NaN if it has none.
        n: number of values in the set.
        reason: why all are NaN; "" if they are not.
    """

    scaled: NDArray[np.float64]
    low: float
    high: float
    n: int
    reason: str = ""


def min_max(values: ArrayLike, over: ArrayLike | None = None) -> MinMax:
    """Return (x - low) / (high - low) of [n] values; values outside the set may lie outside of [0, 1].

    Undefined values (NaN, infinite) do not enter the set, and `n` does not count them.

    Args:
        over: bool [n], the reference set; None for all.

    Raises:
        ValueError: not vectors of one length.
    """
    (array,) = vectors(values)
    members = np.ones(len(array), bool) if over is None else np.asarray(over, bool)
    if members.shape != array.shape:
        raise ValueError(f"{len(array)} values, and a set of shape {members.shape}")
    reference = array[members & np.isfinite(array)]
    n, nothing = len(reference), np.full(len(array), np.nan)
    if n < 2:
        ends = (float(reference[0]),) * 2 if n else (math.nan, math.nan)
        return MinMax(nothing, *ends, n, f"{count(n)} in the set: a scale needs two")
    low, high = float(reference.min()), float(reference.max())
    if low == high:
        return MinMax(nothing, low, high, n, f"all {n} values of the set are equal")
    # Halved, so that the width of a set that spans more than the largest number does not overflow.
    scaled = (array / 2 - low / 2) / (high / 2 - low / 2)
    return MinMax(np.where(np.isfinite(array), scaled, np.nan), low, high, n)
