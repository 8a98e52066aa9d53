"""Holm's step-down adjustment of p values for many tests (Scandinavian Journal of Statistics 6 (1979) 65)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Return adjusted p values of the same shape; rejecting those <= a keeps the family-wise error at a.

    NaN stays NaN and does not count as a test.

    Args:
        p: of all tests of the family, in [0, 1] or NaN.
    """
    values = np.asarray(p, np.float64)
    adjusted = np.full(values.shape, np.nan)
    tested = np.isfinite(values)
    own = values[tested]
    order = np.argsort(own, kind="stable")
    steps = np.maximum.accumulate(own[order] * np.arange(len(own), 0, -1))
    ranked = np.empty(len(own))
    ranked[order] = np.minimum(steps, 1.0)
    adjusted[tested] = ranked
    return adjusted
