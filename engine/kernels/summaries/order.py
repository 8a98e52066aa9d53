"""The five numbers of a box plot."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from engine.kernels.summaries.checks import undefined, vectors


@dataclass(frozen=True)
class FiveNumbers:
    """Smallest value, quartiles and largest value of n values; all NaN with a reason if undefined."""

    low: float
    q1: float
    median: float
    q3: float
    high: float
    n: int
    reason: str = ""


def five_numbers(values: ArrayLike) -> FiveNumbers:
    """Return the extremes and the quartiles of [n] values.

    Quartiles are interpolated linearly: type 7 of Hyndman, Fan, The American Statistician 50 (1996) 361.

    Raises:
        ValueError: not a vector.
    """
    (array,) = vectors(values)
    if reason := undefined(array) or ("" if len(array) else "no value"):
        return FiveNumbers(math.nan, math.nan, math.nan, math.nan, math.nan, len(array), reason)
    low, q1, median, q3, high = (float(x) for x in np.percentile(array, [0, 25, 50, 75, 100]))
    return FiveNumbers(low, q1, median, q3, high, len(array))
