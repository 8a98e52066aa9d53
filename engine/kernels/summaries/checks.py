"""Checks of the numbers that are to be summed up."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Deviations from the mean that are rounding, as a share of the mean (as for scipy's `pearsonr`).
_ROUNDING = 1e-13


def vectors(*arrays: ArrayLike) -> tuple[Floats, ...]:
    """Return arrays as float64 vectors of one length.

    Raises:
        ValueError: another number of dimensions, or two lengths.
    """
    converted = tuple(np.asarray(array, np.float64) for array in arrays)
    if any(array.ndim != 1 or len(array) != len(converted[0]) for array in converted):
        raise ValueError(f"vectors of one length expected, not shapes {[array.shape for array in converted]}")
    return converted


def count(n: int, what: str = "value") -> str:
    """Return a number with its noun, e.g. `1 value`, `3 points`."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def undefined(values: Floats) -> str:
    """Return why numbers cannot be summed up at all; "" if all are finite."""
    missing = int((~np.isfinite(values)).sum())
    return f"{missing} of {count(len(values))} undefined" if missing else ""


def is_constant(values: Floats) -> bool:
    """Return whether [n] values, n at least 1, are equal up to rounding."""
    mean = values.mean()
    return bool(np.abs(values - mean).max() <= _ROUNDING * abs(mean))
