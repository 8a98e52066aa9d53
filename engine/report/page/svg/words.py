"""Words in drawings: their width, shortened to it, and their elements."""

import unicodedata
from collections.abc import Sequence
from typing import Literal

from engine.report.page.svg.element import Markup, element, escaped
from engine.report.tables import shortened
from stores.manifest.uri_policy import plain

Anchor = Literal["start", "middle", "end"]

#: Size of ordinary text in units, as `charts.css` has it.
SIZE = 12.0
#: Share of a width that a text may take by `width_of` where it is bold.
BOLD = 0.86
#: Widths of characters as a share of the size, rounded up over the usual sans-serif faces.
_NARROW, _WIDE, _USUAL = 0.34, 0.9, 0.585
_NARROWS, _WIDES = frozenset("iljtfrI.,:;'|!()[]/ "), frozenset("mwMW@%—")


def width_of(text: str, size: float = SIZE) -> float:
    """Return an upper estimate of the width of a text, in units."""
    return size * sum(map(_share, plain(text)))


def _share(character: str) -> float:
    if character in _NARROWS:
        return _NARROW
    if character in _WIDES:
        return _WIDE
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    return 0.7 if character.isupper() else _USUAL


def fitted(names: Sequence[str], width: float, size: float = SIZE) -> dict[str, str]:
    """Return name -> the name, its middle left out where it is wider; different names stay different."""
    distinct = [plain(name) for name in dict.fromkeys(names)]
    longest = max(map(len, distinct), default=1)
    room = longest
    while room > 4:
        short = shortened(distinct, room)
        if all(width_of(text, size) <= width for text in short.values()):
            break
        room = min(room - 1, int(room * 0.96))
    short = shortened(distinct, room)
    return {name: short[plain(name)] for name in names}


def clipped(text: str, width: float, size: float = SIZE) -> str:
    """Return a text, its middle left out where it is wider."""
    return fitted([text], width, size)[text]


def label(
    x: float,
    y: float,
    text: str,
    class_: str | None = None,
    anchor: Anchor = "start",
    transform: str | None = None,
) -> Markup:
    """Return a text whose baseline is at y.

    Args:
        class_: of `charts.css`; None for ordinary text.
    """
    return element(
        "text",
        escaped(text),
        x=x,
        y=y,
        class_=class_,
        text_anchor=None if anchor == "start" else anchor,
        transform=transform,
    )


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return places moved as little as possible so that neighbours are at least `gap` apart.

    Least squares in the order of the places, by pooling; where they do not fit between `low` and `high`
    they are evenly spaced there.

    Args:
        places: finite, in any order.
    """
    count = len(places)
    if count and (count - 1) * gap >= high - low:
        even = (high - low) / max(count - 1, 1)
        gap = even if count > 1 else gap
    order = sorted(range(count), key=lambda i: (places[i], i))
    blocks: list[tuple[float, int]] = []  # mean of the places less their offsets, members
    for position, i in enumerate(order):
        mean, members = places[i] - position * gap, 1
        while blocks and blocks[-1][0] >= mean:
            other, count_of = blocks.pop()
            mean = (mean * members + other * count_of) / (members + count_of)
            members += count_of
        blocks.append((mean, members))
    last = high - (count - 1) * gap
    flat = [min(max(mean, low), max(last, low)) for mean, members in blocks for _ in range(members)]
    moved = [0.0] * count
    for position, i in enumerate(order):
        moved[i] = flat[position] + position * gap
    return moved
