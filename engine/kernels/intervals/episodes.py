"""95 % intervals of means over few-shot episodes, and of differences between models on the same episodes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """A mean and the half width of its 95 % interval."""

    mean: float
    ci95: float


def over_episodes(values: NDArray[np.float64], *, population: bool = False) -> Interval:
    """Return the mean of [E] values and 1.96 s / sqrt(E), E at least 2.

    Args:
        population: divide by E in s, as the study's code does, instead of by E - 1.
    """
    spread = values.std(ddof=0 if population else 1)
    return Interval(float(values.mean()), float(1.96 * spread / np.sqrt(len(values))))


def paired(first: NDArray[np.float64], second: NDArray[np.float64]) -> Interval:
    """Return the mean difference first - second of two models on the same episodes [E], with its interval."""
    return over_episodes(first - second)
