"""Names of series: at the ends of their lines where they fit, else in a key below the plot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.report.page.svg.element import Markup, joined
from engine.report.page.svg.looks import Look
from engine.report.page.svg.marks import line, points, rule
from engine.report.page.svg.words import fitted, label, spread, width_of

#: Room for names at the ends of lines, at most, and height of a line of text.
MARGIN, LINE = 104.0, 15.0
#: Width of the sample of a line in a key, with the space after it.
_SAMPLE = 30.0


@dataclass(frozen=True)
class Entry:
    """The name of a series.

    Attributes:
        name: text. look: of the series.
        end: place of the end of its line, (x, y); NaN where it has none.
        marked: whether the series has points; lined: whether it has a line.
    """

    name: str
    look: Look
    end: tuple[float, float] = (math.nan, math.nan)
    marked: bool = True
    lined: bool = True


def fits_beside(names: Sequence[str]) -> bool:
    """Return whether all names fit at the ends of their lines."""
    return all(width_of(name) <= MARGIN - 10 for name in names)


def beside(entries: Sequence[Entry], x: float, top: float, bottom: float) -> Markup:
    """Return the names at the ends of lines, moved apart where these lie close; a thin line leads there.

    Args:
        x: where names begin.
        top, bottom: of the plot.
    """
    ended = [entry for entry in entries if all(map(math.isfinite, entry.end))]
    places = spread([entry.end[1] for entry in ended], LINE, top + 4, bottom - 2)
    parts = []
    for entry, y in zip(ended, places, strict=True):
        if abs(y - entry.end[1]) > 3 or x - entry.end[0] > 14:
            parts.append(rule(entry.end[0] + 5, entry.end[1], x - 2, y, "leader"))
        parts.append(label(x, y + 4, entry.name))
    return joined(*parts)


def key(entries: Sequence[Entry], left: float, width: float, top: float) -> tuple[Markup, float]:
    """Return a key with a sample of each series before its name, and its height.

    Args:
        left, top: corner; width: that names may take.
    """
    names = fitted([entry.name for entry in entries], width - _SAMPLE)
    parts, x, y = [], left, top + 9
    for entry in entries:
        name = names[entry.name]
        if x > left and x + _SAMPLE + width_of(name) > left + width:
            x, y = left, y + LINE + 1
        middle = y - 4
        if entry.lined:
            parts.append(line([(x, middle), (x + 22, middle)], entry.look))
        if entry.marked:
            parts.append(points([(x + 11, middle)], entry.look))
        parts.append(label(x + _SAMPLE - 3, y, name))
        x += _SAMPLE + width_of(name) + 12
    return joined(*parts), (y + 6 - top if entries else 0.0)
