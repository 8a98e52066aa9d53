"""The frame of a chart: gridlines, tick labels and titles of both axes."""

import math
from dataclasses import dataclass

from engine.report.page.svg.element import Markup, element, joined, number
from engine.report.page.svg.scale import Scale
from engine.report.page.svg.words import clipped, label, width_of

#: Size of tick labels in units, as `charts.css` has it.
TICK_SIZE = 11.0
#: Longest tick label that is written out, in units.
_LONGEST = 64.0


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        scale: its scale.
        title: what it measures, with the unit; "" for none.
        ticks: (place as a number of the scale, label) instead of the scale's own; None for these.
        labelled: whether tick labels are written.
    """

    scale: Scale
    title: str = ""
    ticks: tuple[tuple[float, str], ...] | None = None
    labelled: bool = True

    @property
    def marks(self) -> tuple[tuple[float, str], ...]:
        """Ticks and their labels."""
        if self.ticks is not None:
            return self.ticks
        return tuple(zip(self.scale.ticks, self.scale.labels, strict=True))

    @property
    def labels_width(self) -> float:
        """Width of the widest label."""
        if not self.labelled:
            return 0.0
        return min(max((width_of(text, TICK_SIZE) for _, text in self.marks), default=0.0), _LONGEST)


def bottom_axis(axis: Axis, top: float, bottom: float, baseline: bool = True) -> Markup:
    """Return the gridlines, labels and title of a horizontal axis below a plot.

    Args:
        top, bottom: of the plot, units.
        baseline: whether a line is drawn along the bottom.
    """
    scale, marks = axis.scale, _without_overlap(axis)
    grid = "".join(f"M{number(scale(at))} {number(top)}V{number(bottom)}" for at, _ in axis.marks)
    parts = [element("path", d=grid, class_="grid")] if grid else []
    if baseline:
        left, right = number(min(scale.start, scale.end)), number(max(scale.start, scale.end))
        parts.append(element("path", d=f"M{left} {number(bottom)}H{right}", class_="axis"))
    if axis.labelled:
        parts += [label(scale(at), bottom + 16, text, "tick", "middle") for at, text in marks]
    if axis.title:
        middle, room = (scale.start + scale.end) / 2, abs(scale.end - scale.start) + 60
        below = bottom + (31 if axis.labelled else 16)
        parts.append(label(middle, below, clipped(axis.title, room, TICK_SIZE), "axis-title", "middle"))
    return joined(*parts)


def _without_overlap(axis: Axis) -> list[tuple[float, str]]:
    """Return the ticks whose labels do not touch the one before; the first is written."""
    written: list[tuple[float, str]] = []
    end = -math.inf
    for at, text in sorted(axis.marks, key=lambda mark: axis.scale(mark[0])):
        half = width_of(text, TICK_SIZE) / 2
        if axis.scale(at) - half > end + 3:
            written.append((at, text))
            end = axis.scale(at) + half
    return written


def left_axis(axis: Axis, left: float, right: float) -> Markup:
    """Return the gridlines and labels of a vertical axis left of a plot; its title stands above the plot.

    Args:
        left, right: of the plot, units.
    """
    scale = axis.scale
    grid = "".join(f"M{number(left)} {number(scale(at))}H{number(right)}" for at, _ in axis.marks)
    parts = [element("path", d=grid, class_="grid")] if grid else []
    if axis.labelled:
        parts += [
            label(left - 5, scale(at) + 4, clipped(text, _LONGEST, TICK_SIZE), "tick", "end")
            for at, text in axis.marks
        ]
    return joined(*parts)
