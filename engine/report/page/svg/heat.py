"""Heat maps of shares: a square for each cell, its shade by the share, its text in an ink that stands out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.report.page.svg.curves import WIDE
from engine.report.page.svg.element import Markup, drawing, element, group, joined, number
from engine.report.page.svg.words import BOLD, clipped, fitted, label, width_of

#: Shades, `heat-0` to `heat-9` of `charts.css`; those from `_HIGH` on need the other ink.
SHADES, _HIGH = 10, 6
#: Classes up to which numbers are written in the cells, and up to which names stand beside them.
_WRITTEN, _NAMED = 10, 30
#: Room for names at the left, and height of those at the top, at most.
_LEFT, _TOP = 92.0, 64.0


@dataclass(frozen=True)
class HeatMap:
    """A heat map of counts, shaded by the shares of each row.

    Attributes:
        identity: of the drawing, unique on the page.
        heading: above it; "" for none. description: for a person who cannot see it.
        names: of rows and columns. counts: a row for each name.
        down, across: what rows and columns are.
        width: units.
    """

    identity: str
    heading: str
    description: str
    names: tuple[str, ...]
    counts: tuple[tuple[float, ...], ...]
    down: str = "true"
    across: str = "predicted"
    width: float = WIDE


def shares_of(counts: Sequence[float]) -> list[float]:
    """Return the shares of a row; NaN where it is empty."""
    total = math.fsum(counts)
    return [count / total if total > 0 else math.nan for count in counts]


def shade_of(share: float) -> int:
    """Return the shade of a share, 0 to 9."""
    return min(max(int(share * SHADES), 0), SHADES - 1) if math.isfinite(share) else 0


def draw_heat_map(heat: HeatMap) -> Markup:
    """Return the drawing of a heat map."""
    count = len(heat.names)
    named = count <= _NAMED
    widest = max((width_of(name, 11) for name in heat.names), default=0.0)
    left = (min(widest, _LEFT) + 6 if named else 0.0) + 15
    side = (heat.width - left - 2) / max(count, 1)
    side = min(side, 62.0)
    slanted = widest > side - 4
    head = 17.0 * bool(heat.heading) + 16.0 + (min(widest * 0.62 + 12, _TOP) if slanted else 14.0) * named
    bottom = head + side * count
    words = [label(0, 13, clipped(heat.heading, heat.width * BOLD), "heading")] * bool(heat.heading)
    words.append(label(left + side * count / 2, 11 + 17 * bool(heat.heading), heat.across, "tick", "middle"))
    middle = number(head + side * count / 2)
    words.append(label(11, head + side * count / 2, heat.down, "tick", "middle", f"rotate(-90 11 {middle})"))
    if named:
        words.append(_names(heat, left, head, side, slanted))
    content = joined(*words, _cells(heat, left, head, side))
    return drawing(heat.identity, heat.width, bottom + 3, heat.heading, heat.description, content)


def _names(heat: HeatMap, left: float, top: float, side: float, slanted: bool) -> Markup:
    short = fitted(heat.names, _LEFT, 11)
    parts = []
    for place, name in enumerate(heat.names):
        middle = (place + 0.5) * side
        parts.append(label(left - 6, top + middle + 4, short[name], "tick", "end"))
        x, y = left + middle, top - 5
        turn = f"rotate(-38 {number(x)} {number(y)})" if slanted else None
        parts.append(label(x, y, short[name], "tick", "start" if slanted else "middle", turn))
    return joined(*parts)


def _cells(heat: HeatMap, left: float, top: float, side: float) -> Markup:
    """Return the squares and their texts; squares of one shade are one path."""
    squares: dict[int, str] = {}
    texts = []
    written = len(heat.names) <= _WRITTEN
    gap = 1.0 if side > 8 else 0.0
    for i, row in enumerate(heat.counts):
        for j, (count, share) in enumerate(zip(row, shares_of(row), strict=True)):
            x, y, shade = left + j * side, top + i * side, shade_of(share)
            edge = number(side - gap)
            square = f"M{number(x)} {number(y)}h{edge}v{edge}h-{edge}z"
            squares[shade] = squares.get(shade, "") + square
            if written:
                texts.append(_text(x + side / 2, y + side / 2, count, share, side))
    paths = [element("path", d=path, class_=f"heat-{shade}") for shade, path in sorted(squares.items())]
    return joined(*paths, group(joined(*texts)))


def _text(x: float, y: float, count: float, share: float, side: float) -> Markup:
    """Return the count of a cell, and where there is room its share of the row."""
    ink = "high-ink" if shade_of(share) >= _HIGH else "low-ink"
    counted = f"{count:,.0f}"
    if side < 34 or not math.isfinite(share):
        small = width_of(counted) > side - 2
        return Markup("") if small else label(x, y + 4, counted, f"{ink} small", "middle")
    return joined(
        label(x, y - 1, counted, ink, "middle"), label(x, y + 12, f"{share:.0%}", f"{ink} small", "middle")
    )
