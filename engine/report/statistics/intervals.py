"""95 % intervals of means over named models: normal, and by the bootstrap."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.kernels.episodes import Stream
from engine.kernels.summaries import bootstrap_interval, normal_interval
from engine.report.statistics.named import LeftOut, Numbers, array, usable


@dataclass(frozen=True)
class GroupInterval:
    """A mean over models with its 95 % interval: how far other models of the same kind could move it.

    Attributes:
        mean: NaN without models.
        low, high: ends; NaN with fewer than two models.
        kind: `normal` or `bootstrap`.
        n: number of models.
        models: that entered, in order.
        left_out: models that did not, and why.
        reason: why a number is NaN; "" if all are numbers.
    """

    mean: float
    low: float
    high: float
    kind: Literal["normal", "bootstrap"]
    n: int
    models: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    reason: str = ""


def group_interval(
    numbers: Numbers,
    models: Sequence[str],
    *,
    resamples: int = 0,
    stream: Stream | None = None,
    name: str = "value",
) -> GroupInterval:
    """Return the mean over models with 1.96 standard errors, or with percentiles of resampled means.

    Args:
        models: all that are meant to enter; those without a number are left out, and listed.
        resamples: of the bootstrap; 0 for the normal interval.
        stream: of random numbers for the bootstrap.
        name: of the numbers in reasons.

    Raises:
        ValueError: a model occurs twice, or resamples are wanted without a stream.
    """
    entered, left_out = usable(models, {name: numbers})
    values = array(numbers, entered)
    kind: Literal["normal", "bootstrap"] = "bootstrap" if resamples else "normal"
    if not resamples:
        result = normal_interval(values)
    elif stream is None:
        raise ValueError("a bootstrap draws from a stream of random numbers")
    else:
        result = bootstrap_interval(values, resamples, stream)
    reason = result.reason.replace("patient", "model").replace(" (or images)", "")
    return GroupInterval(result.mean, result.low, result.high, kind, result.n, entered, left_out, reason)
