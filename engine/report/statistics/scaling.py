"""Min-max scaling over a named set of models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.kernels.summaries import min_max
from engine.report.statistics.named import LeftOut, Numbers, usable


@dataclass(frozen=True)
class Scaled:
    """Numbers scaled so that the smallest of a set is 0 and the largest is 1.

    Attributes:
        values: model -> scaled number, of all models that have a number; NaN if the set gives no scale.
        low, high: smallest and largest number of the set.
        n: models of the set that have a number.
        over: these models, in order.
        left_out: models of the set that have none, and why.
        reason: why all are NaN; "" if they are not.
    """

    values: Mapping[str, float]
    low: float
    high: float
    n: int
    over: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    reason: str = ""


def scale(numbers: Numbers, over: Sequence[str], name: str = "value") -> Scaled:
    """Return (x - low) / (high - low), with the extremes of a set of models.

    Args:
        over: the set; models outside of it are scaled as well, and may lie outside of [0, 1].
        name: of the numbers in reasons.

    Raises:
        ValueError: a model occurs twice in the set.
    """
    entered, left_out = usable(over, {name: numbers})
    models = [model for model in numbers if np.isfinite(numbers[model])]
    inside = set(entered)
    result = min_max([numbers[model] for model in models], [model in inside for model in models])
    values = {model: float(value) for model, value in zip(models, result.scaled, strict=True)}
    return Scaled(values, result.low, result.high, result.n, entered, left_out, result.reason)
