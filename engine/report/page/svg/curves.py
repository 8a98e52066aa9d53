"""Charts of curves: lines with bands, points, intervals and names, over two axes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from engine.report.page.svg import legend, marks
from engine.report.page.svg.element import Markup, drawing, group, joined
from engine.report.page.svg.frame import TICK_SIZE, Axis, bottom_axis, left_axis
from engine.report.page.svg.looks import Look
from engine.report.page.svg.scale import Scale, scale_of
from engine.report.page.svg.words import BOLD, clipped, label

#: Widths of panels in units: about a phone, and half of it.
WIDE, NARROW = 340.0, 172.0


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        name: shown; "" for none.
        x, y: numbers of its points; NaN leaves a gap.
        low, high: of its band, as many, or none.
        look: how it is drawn.
        step: `pre` or `post`: before or after a point the line is level; "" for straight lines.
        marked: whether points are drawn; lined: whether a line is.
        ringed, crossed: points of it that stand out: chosen ones, and such as cannot be trusted.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    look: Look = field(default_factory=Look)
    step: Literal["", "pre", "post"] = ""
    marked: bool = False
    lined: bool = True
    ringed: tuple[tuple[float, float], ...] = ()
    crossed: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Dimension:
    """What an axis of a chart shows.

    Attributes:
        title: what is measured.
        log: whether it is logarithmic.
        also: numbers that the axis has, besides those of the curves, e.g. of other panels.
        within: limits that the axis does not pass.
        ticks: (number, label) instead of round numbers; None for these.
        fixed: whether the axis ends with `also`, without a margin.
        most: ticks at most.
    """

    title: str = ""
    log: bool = False
    also: tuple[float, ...] = ()
    within: tuple[float, float] = (-math.inf, math.inf)
    ticks: tuple[tuple[float, str], ...] | None = None
    fixed: bool = False
    most: int = 6

    def scale(self, values: Sequence[float], start: float, end: float, nice: bool) -> Scale:
        """Return the scale over values and `also`."""
        shown = self.also if self.fixed else (*self.also, *values)
        return scale_of(
            shown,
            start,
            end,
            log=self.log,
            nice=nice and not self.fixed,
            within=self.within,
            most=self.most,
        )


@dataclass(frozen=True)
class Panel:
    """A chart of curves.

    Attributes:
        identity: of the drawing, unique on the page.
        heading: above the plot; "" for none.
        description: what a person who cannot see it is told.
        series: curves, the first on top.
        x, y: axes.
        width, height: of the whole panel and of the plot, units.
        note: a line below the heading, e.g. numbers.
        keyed: whether names are drawn; beside: at the ends of lines where they fit, else in a key.
        guides: straight lines behind, (x1, y1, x2, y2) in numbers.
        levels: y of dotted lines from side to side, in numbers.
        bars, outlines: boxes from the bottom, (x from, x to, y), filled and as outlines, in numbers.
    """

    identity: str
    heading: str
    description: str
    series: tuple[Series, ...]
    x: Dimension
    y: Dimension
    width: float = WIDE
    height: float = 190.0
    note: str = ""
    keyed: bool = True
    beside: bool = True
    guides: tuple[tuple[float, float, float, float], ...] = ()
    levels: tuple[float, ...] = ()
    bars: tuple[tuple[float, float, float], ...] = ()
    outlines: tuple[tuple[float, float, float], ...] = ()


def draw(panel: Panel) -> Markup:
    """Return the drawing of a chart of curves."""
    head = 17.0 * bool(panel.heading) + 15.0 * bool(panel.note) + 15.0 * bool(panel.y.title)
    top = head + 7
    bottom = top + panel.height
    named = [series.name for series in panel.series if series.name] if panel.keyed else []
    besides = panel.beside and bool(named) and panel.width >= WIDE and legend.fits_beside(named)
    y = Axis(panel.y.scale(_upright(panel), bottom, top, True), ticks=panel.y.ticks)
    left = y.labels_width + 8
    right = panel.width - (legend.MARGIN if besides else 15)
    across = [value for series in panel.series for value in series.x]
    x = Axis(panel.x.scale(across, left, right, False), panel.x.title, panel.x.ticks)
    parts = [
        _words(panel, left),
        left_axis(y, left, right),
        bottom_axis(x, top, bottom),
        _boxes(panel.bars, "bar", x.scale, y.scale),
        _boxes(panel.outlines, "bar-outline", x.scale, y.scale),
        _guides(panel, x.scale, y.scale),
        group(joined(*(_drawn(series, x.scale, y.scale) for series in reversed(panel.series)))),
    ]
    below = bottom + 21 + 17 * bool(panel.x.title)
    entries = [_entry(series, x.scale, y.scale) for series in panel.series if series.name and panel.keyed]
    if besides:
        parts.append(legend.beside(entries, right + 10, top, bottom))
    elif entries:
        names, height = legend.key(entries, 0, panel.width, below)
        parts.append(names)
        below += height
    title = panel.heading or panel.y.title
    return drawing(panel.identity, panel.width, below, title, panel.description, joined(*parts))


def _upright(panel: Panel) -> list[float]:
    """Return all numbers along the vertical axis."""
    series = [value for one in panel.series for value in (*one.y, *one.low, *one.high)]
    return [*series, *panel.levels]


def _words(panel: Panel, left: float) -> Markup:
    parts, y = [], 0.0
    if panel.heading:
        y += 13
        parts.append(label(0, y, clipped(panel.heading, panel.width * BOLD), "heading"))
        y += 4
    if panel.note:
        y += 11
        parts.append(label(0, y, clipped(panel.note, panel.width, TICK_SIZE), "note"))
        y += 4
    if panel.y.title:
        parts.append(label(0, y + 11, clipped(panel.y.title, panel.width, TICK_SIZE), "axis-title"))
    return joined(*parts)


def _boxes(boxes: Sequence[tuple[float, float, float]], class_: str, x: Scale, y: Scale) -> Markup:
    areas = ((x(first) + 0.5, y(up), x(last) - x(first) - 1, y.start - y(up)) for first, last, up in boxes)
    return marks.bars(areas, class_)


def _guides(panel: Panel, x: Scale, y: Scale) -> Markup:
    lines = [marks.rule(x(x1), y(y1), x(x2), y(y2), "guide") for x1, y1, x2, y2 in panel.guides]
    levels = [value for value in panel.levels if math.isfinite(y(value))]
    return joined(*lines, *(marks.rule(x.start, y(at), x.end, y(at), "guide") for at in levels))


def _drawn(series: Series, x: Scale, y: Scale) -> Markup:
    """Return the marks of a curve, clamped to the plot where a band goes beyond the axis."""
    inside = _clamp(y)
    places = [(x(across), y(up)) for across, up in zip(series.x, series.y, strict=True)]
    parts = []
    if series.low:
        edges = [
            (x(across), inside(y(low)), inside(y(high)))
            for across, low, high in zip(series.x, series.low, series.high, strict=True)
        ]
        parts.append(marks.band(edges, series.look))
    if series.lined:
        parts.append(marks.line(stepped(places, series.step), series.look))
    if series.marked:
        parts.append(marks.points(places, series.look))
    parts.append(marks.crosses([(x(a), y(b)) for a, b in series.crossed], series.look))
    parts.append(marks.rings([(x(a), y(b)) for a, b in series.ringed], series.look))
    return joined(*parts)


def _clamp(scale: Scale) -> Callable[[float], float]:
    low, high = sorted((scale.start, scale.end))

    def inside(place: float) -> float:
        return min(max(place, low), high) if math.isfinite(place) else place

    return inside


def stepped(places: marks.Places, step: str) -> list[tuple[float, float]]:
    """Return the corners of a line that is level before (`pre`) or after (`post`) each of its places."""
    if not step or not places:
        return list(places)
    corners = [places[0]]
    for (x1, y1), (x2, y2) in pairwise(places):
        corners += [(x1, y2) if step == "pre" else (x2, y1), (x2, y2)]
    return [corners[0], *(corner for last, corner in pairwise(corners) if corner != last)]


def _entry(series: Series, x: Scale, y: Scale) -> legend.Entry:
    ends = [
        (x(across), y(up))
        for across, up in zip(series.x, series.y, strict=True)
        if math.isfinite(x(across)) and math.isfinite(y(up))
    ]
    end = max(ends, default=(math.nan, math.nan))
    return legend.Entry(series.name, series.look, end, series.marked, series.lined)
