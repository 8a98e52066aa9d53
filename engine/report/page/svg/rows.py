"""Charts of rows: a name, and one or several points with intervals, over a common axis.

A name stands above its row, so that names are legible on a phone.
"""

import math
from dataclasses import dataclass, field

from engine.report.page.svg import legend, marks
from engine.report.page.svg.curves import WIDE, Dimension
from engine.report.page.svg.element import Markup, drawing, joined
from engine.report.page.svg.frame import TICK_SIZE, Axis, bottom_axis
from engine.report.page.svg.looks import Look
from engine.report.page.svg.scale import Scale
from engine.report.page.svg.words import BOLD, clipped, fitted, label, width_of

#: Height of a name, of a point below it, and of the space below a row.
_NAME, _POINT, _SPACE = 15.0, 11.0, 6.0


@dataclass(frozen=True)
class Dot:
    """A point with its interval.

    Attributes:
        value: NaN where undefined. low, high: ends of its interval; NaN where there is none.
        look: how it is drawn.
        reason: why it is undefined.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    look: Look = field(default_factory=Look)
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """A row.

    Attributes:
        name: above it. dots: below one another.
        aside: text at the right of the name, e.g. a number.
        strong: whether the name is emphasised.
        under: heading that it stands under, with the rows before that have the same; "" for none.
    """

    name: str
    dots: tuple[Dot, ...]
    aside: str = ""
    strong: bool = False
    under: str = ""


@dataclass(frozen=True)
class RowsPanel:
    """A chart of rows.

    Attributes:
        identity: of the drawing, unique on the page.
        heading: above it; "" for none. note: a line below the heading.
        description: what a person who cannot see it is told.
        rows: from above.
        x: the axis; zero: whether a line marks 0.
        series: names and looks of a key; none where rows have one dot each.
        width: units.
    """

    identity: str
    heading: str
    description: str
    rows: tuple[Row, ...]
    x: Dimension
    zero: bool = False
    note: str = ""
    series: tuple[tuple[str, Look], ...] = ()
    width: float = WIDE


def draw_rows(panel: RowsPanel) -> Markup:
    """Return the drawing of a chart of rows."""
    top = 17.0 * bool(panel.heading) + 15.0 * bool(panel.note) + 5
    begins = _begins(panel.rows)
    heights = [
        _NAME * (1 + begin) + _POINT * max(len(row.dots), 1) + _SPACE
        for row, begin in zip(panel.rows, begins, strict=True)
    ]
    bottom = top + sum(heights)
    values = [v for row in panel.rows for dot in row.dots for v in (dot.value, dot.low, dot.high)]
    scale = panel.x.scale([*values, *([0.0] if panel.zero else [])], 12, panel.width - 12, True)
    parts = [_words(panel), bottom_axis(Axis(scale, panel.x.title, panel.x.ticks), top, bottom)]
    names, drawn = _names(panel), _Marks(scale)
    for row, height, begin in zip(panel.rows, heights, begins, strict=True):
        if begin:
            parts.append(label(0, top + 12, clipped(row.under, panel.width), "halo soft"))
        parts.append(_texts(row, names[row.name], top + _NAME * begin, panel.width))
        if panel.zero:  # beside the points alone: names stand above them
            below_name = top + _NAME * (1 + begin)
            parts.append(marks.rule(scale(0), below_name, scale(0), top + height - 2, "zero"))
        for place, dot in enumerate(row.dots):
            drawn.add(dot, top + _NAME * (1 + begin) + _POINT * (place + 0.5))
        top += height
    parts.append(drawn.drawing())
    below = bottom + 21 + 17 * bool(panel.x.title)
    if panel.series:
        entries = [legend.Entry(name, look, lined=False) for name, look in panel.series]
        key, height = legend.key(entries, 0, panel.width, below)
        parts.append(key)
        below += height
    return drawing(panel.identity, panel.width, below, panel.heading, panel.description, joined(*parts))


def _begins(rows: tuple[Row, ...]) -> list[bool]:
    """Return for each row whether its heading stands before it."""
    before = ["", *(row.under for row in rows)]
    return [bool(row.under) and row.under != last for row, last in zip(rows, before, strict=False)]


def _words(panel: RowsPanel) -> Markup:
    heading = label(0, 13, clipped(panel.heading, panel.width * BOLD), "heading") if panel.heading else ""
    y = 11 + 17 * bool(panel.heading)
    note = label(0, y, clipped(panel.note, panel.width, TICK_SIZE), "note") if panel.note else ""
    return joined(heading, note)


def _names(panel: RowsPanel) -> dict[str, str]:
    room = panel.width - max((width_of(row.aside) for row in panel.rows), default=0.0) - 12
    return fitted([row.name for row in panel.rows], max(room, 60.0))


def _texts(row: Row, name: str, top: float, width: float) -> Markup:
    aside = label(width, top + 12, row.aside, "halo soft", "end") if row.aside else ""
    return joined(label(0, top + 12, name, "halo strong" if row.strong else "halo"), aside)


class _Marks:
    """Points and intervals, drawn together by their looks, so that files are small."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._points: dict[Look, list[tuple[float, float]]] = {}
        self._intervals: dict[Look, list[tuple[float, float, float]]] = {}
        self._notes: list[Markup] = []

    def add(self, dot: Dot, y: float) -> None:
        """Add a point at a height; an undefined one becomes a text."""
        low, high = sorted((self._scale.start, self._scale.end))
        if not math.isfinite(dot.value):
            text = f"undefined{f': {dot.reason}' if dot.reason else ''}"
            self._notes.append(label(low, y + 4, clipped(text, high - low, TICK_SIZE), "note"))
            return
        self._points.setdefault(dot.look, []).append((self._scale(dot.value), y))
        if not math.isnan(dot.low) and not math.isnan(dot.high):
            ends = [min(max(self._scale(end), low), high) for end in (dot.low, dot.high)]
            self._intervals.setdefault(dot.look, []).append((ends[0], ends[1], y))

    def drawing(self) -> Markup:
        """Return all marks, intervals below points."""
        intervals = (marks.intervals(places, look) for look, places in self._intervals.items())
        points = (marks.points(places, look) for look, places in self._points.items())
        return joined(*intervals, *points, *self._notes)
