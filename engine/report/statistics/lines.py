"""Straight lines through named models, weighted by the errors of y or not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.kernels.summaries import Line, least_squares, weighted_least_squares
from engine.report.statistics.named import LeftOut, Numbers, array, usable


@dataclass(frozen=True)
class LineFit:
    """A straight line by least squares.

    Attributes:
        line: slope, intercept, standard errors, chi-square and degrees of freedom; NaN with a reason.
        n: number of models.
        models: that entered, in order.
        left_out: models that did not, and why.
    """

    line: Line
    n: int
    models: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


def fit_line(
    x: Numbers,
    y: Numbers,
    models: Sequence[str],
    sigma: Numbers | None = None,
    *,
    names: tuple[str, str, str] = ("x", "y", "error"),
    without: Mapping[str, str] | None = None,
) -> LineFit:
    """Fit y = intercept + slope x over models.

    Args:
        models: all that are meant to enter; those without a number are left out, and listed.
        sigma: standard errors of y; None for a line that is not weighted.
        names: of x, y and sigma in reasons.
        without: model -> why it is left out though it has the numbers.

    Raises:
        ValueError: a model occurs twice, or `without` has one that is not among them.
    """
    parts = {names[0]: x, names[1]: y} | ({} if sigma is None else {names[2]: sigma})
    entered, left_out = usable(models, parts, without)
    first, second = array(x, entered), array(y, entered)
    if sigma is None:
        line = least_squares(first, second)
    else:
        line = weighted_least_squares(first, second, array(sigma, entered))
    return LineFit(line, len(entered), entered, left_out)
