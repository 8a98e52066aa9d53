"""Scales: from numbers to units of the drawing and back."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from engine.report.page.svg.ticks import linear_ticks, log_labels, log_ticks, nice_bounds, tick_labels


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic scale.

    Attributes:
        low, high: ends of the range of numbers, low < high; positive where logarithmic.
        start, end: where they are drawn.
        log: whether it is logarithmic.
        most: ticks at most.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    most: int = 6

    def __call__(self, value: float) -> float:
        """Return where a number is drawn; NaN where it cannot be, e.g. 0 on a logarithmic scale."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return math.nan
        return self.start + self._share(value) * (self.end - self.start)

    def _share(self, value: float) -> float:
        low, high, value = (
            (math.log(self.low), math.log(self.high), math.log(value))
            if self.log
            else (self.low, self.high, value)
        )
        return (value / 2 - low / 2) / (high / 2 - low / 2)  # halves, since the span may overflow

    def invert(self, place: float) -> float:
        """Return the number that is drawn at a place."""
        share = (place - self.start) / (self.end - self.start)
        if self.log:
            return math.exp(math.log(self.low) * (1 - share) + math.log(self.high) * share)
        return self.low * (1 - share) + self.high * share

    @property
    def ticks(self) -> tuple[float, ...]:
        """Round numbers within the range."""
        return (log_ticks if self.log else linear_ticks)(self.low, self.high, self.most)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of `ticks`."""
        return (log_labels if self.log else tick_labels)(self.ticks)


def scale_of(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    log: bool = False,
    nice: bool = True,
    within: tuple[float, float] = (-math.inf, math.inf),
    most: int = 6,
) -> Scale:
    """Return a scale that has all values.

    Numbers that cannot be drawn are left out; of one number alone the range is one around it, of none
    0 to 1 (1 to 10 where logarithmic).

    Args:
        nice: outwards to the next ticks; of a logarithmic scale a margin of 3 %.
        within: limits that the range does not pass, e.g. 0 to 1 of a share whose intervals go beyond.
    """
    numbers = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    bottom, top = within
    numbers = [min(max(value, bottom), top) for value in numbers]
    if log:
        return _log_scale(numbers, start, end, nice, most)
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    if not low < high:
        low, high = _around(low)
    if nice:
        low, high = nice_bounds(max(low, bottom), min(high, top), most)
    return Scale(max(low, bottom), min(high, top), start, end, most=most)


def _around(value: float) -> tuple[float, float]:
    """Return a range around one number."""
    width = abs(value) * 0.1 or 0.5
    low, high = value - width, value + width
    if not math.isfinite(low) or not math.isfinite(high):
        return (value / 2, value) if value > 0 else (value, value / 2)
    return (low, high) if low < high else (value - 0.5, value + 0.5)


def _log_scale(numbers: list[float], start: float, end: float, nice: bool, most: int) -> Scale:
    low, high = (min(numbers), max(numbers)) if numbers else (1.0, 10.0)
    if not low < high:
        low, high = max(low / 2, 5e-324), max(min(high * 2, 1.79e308), high)
    if nice:
        margin = 0.03 * (math.log(high) - math.log(low))
        low = min(math.exp(max(math.log(low) - margin, -744.0)), low)
        high = max(math.exp(min(math.log(high) + margin, 709.7)), high)
    return Scale(low, high, start, end, True, most)
