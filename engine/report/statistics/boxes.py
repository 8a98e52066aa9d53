"""The five numbers of box plots over named values."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.kernels.summaries import FiveNumbers, five_numbers
from engine.report.statistics.named import LeftOut, Numbers, array, usable


@dataclass(frozen=True)
class Box:
    """Extremes and quartiles; whiskers reach the extremes.

    Attributes:
        numbers: the five; NaN with a reason if there are none.
        n: number of values.
        names: that entered, in order: models, data sets, or `model on data set`.
        left_out: names that did not, and why.
    """

    numbers: FiveNumbers
    n: int
    names: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


def box(numbers: Numbers, names: Sequence[str], name: str = "value") -> Box:
    """Return the five numbers of a box plot.

    Args:
        names: all that are meant to enter; those without a number are left out, and listed.
        name: of the numbers in reasons.

    Raises:
        ValueError: a name occurs twice.
    """
    entered, left_out = usable(names, {name: numbers})
    return Box(five_numbers(array(numbers, entered)), len(entered), entered, left_out)
