"""Pearson's correlation over named models, and without each of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.kernels.paired.holm import holm
from engine.kernels.summaries import leave_one_out, pearson
from engine.report.statistics.named import LeftOut, Numbers, array, usable


@dataclass(frozen=True)
class Without:
    """Pearson's r and p without one model; NaN where undefined."""

    model: str
    r: float
    p: float


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation of two numbers over models.

    Attributes:
        r: NaN if undefined.
        p: two-sided, of Student's t with n - 2 degrees of freedom.
        low, high: 95 % interval of r, by Fisher's z; NaN with fewer than four models.
        n: number of models.
        models: that entered, in order.
        left_out: models that did not, and why.
        leave_one_out: r without each model, in the order of `models`; empty with fewer than four.
        reason: why r is NaN; "" if it is a number.
        p_adjusted: p adjusted for all tests of a family (`adjusted`); NaN before.
    """

    r: float
    p: float
    low: float
    high: float
    n: int
    models: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    leave_one_out: tuple[Without, ...]
    reason: str = ""
    p_adjusted: float = math.nan

    @property
    def most_influential(self) -> Without | None:
        """Return the model without which r differs most, the first of equals; None if there is none."""
        defined = [one for one in self.leave_one_out if not math.isnan(one.r)]
        return max(defined, key=lambda one: abs(one.r - self.r), default=None)

    @property
    def r_range(self) -> tuple[float, float]:
        """Return the smallest and the largest r without one model; NaN if there is none."""
        defined = [one.r for one in self.leave_one_out if not math.isnan(one.r)]
        return (min(defined), max(defined)) if defined else (math.nan, math.nan)


def correlate(
    x: Numbers,
    y: Numbers,
    models: Sequence[str],
    *,
    names: tuple[str, str] = ("x", "y"),
    without: Mapping[str, str] | None = None,
) -> Correlation:
    """Return Pearson's correlation of x and y over models.

    Args:
        models: all that are meant to enter; those without a number are left out, and listed.
        names: of x and y in reasons, e.g. `("accuracy", "cosine")`.
        without: model -> why it is left out though it has both numbers.

    Raises:
        ValueError: a model occurs twice, or `without` has one that is not among them.
    """
    entered, left_out = usable(models, {names[0]: x, names[1]: y}, without)
    first, second = array(x, entered), array(y, entered)
    result, others = pearson(first, second), leave_one_out(first, second)
    one_by_one = (
        tuple(
            Without(model, float(r), float(p))
            for model, r, p in zip(entered, others.r, others.p, strict=True)
        )
        if not others.reason
        else ()
    )
    reason = result.reason
    for letter, name in zip("xy", names, strict=True):
        reason = reason.replace(f"{letter} is constant", f"{name} is the same for all models")
    return Correlation(
        result.r, result.p, result.low, result.high, result.n, entered, left_out, one_by_one, reason
    )


def adjusted(correlations: Sequence[Correlation]) -> tuple[Correlation, ...]:
    """Return correlations with p adjusted by Holm's method for all of them; undefined ones are no tests."""
    p = holm([one.p for one in correlations])
    return tuple(replace(one, p_adjusted=float(new)) for one, new in zip(correlations, p, strict=True))
