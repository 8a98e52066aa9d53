"""Marks: lines, bands, points and intervals, from places in the drawing."""

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from engine.report.page.svg.element import Markup, element, number
from engine.report.page.svg.looks import Look
from engine.report.page.svg.thin import thinned

#: Places (x, y) in units; one that is NaN is left out, and leaves a gap in a line.
Places: TypeAlias = Sequence[tuple[float, float]]
#: Corners from which lines are thinned.
_LONG = 30


def runs(places: Iterable[tuple[float, ...]]) -> list[list[tuple[float, ...]]]:
    """Split places at those that are not finite."""
    parts: list[list[tuple[float, ...]]] = [[]]
    for place in places:
        if all(map(math.isfinite, place)):
            parts[-1].append(place)
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]


def _path(places: Iterable[tuple[float, ...]]) -> str:
    return "M" + " ".join(f"{number(x)} {number(y)}" for x, y in places)


def line(places: Places, look: Look, class_: str = "") -> Markup:
    """Return a line through places; a single one between gaps becomes a dot.

    Of long lines, corners are left out that could not be seen.
    """
    parts = [thinned(part) if len(part) > _LONG else part for part in runs(places)]
    path = "".join(_path(part) + ("h0" if len(part) == 1 else "") for part in parts)
    classes = " ".join(word for word in ("line", look.colour, look.dash, class_) if word)
    return element("path", d=path, class_=classes) if path else Markup("")


def band(edges: Iterable[tuple[float, float, float]], look: Look) -> Markup:
    """Return an area between two lines.

    Args:
        edges: (x, low, high) each.
    """
    path = ""
    for part in runs(edges):
        there = [(x, low) for x, low, _ in part]
        back = [(x, high) for x, _, high in reversed(part)]
        path += f"{_path([*there, *back])}z"
    return element("path", d=path, class_=f"band {look.colour}") if path else Markup("")


def points(places: Places, look: Look, class_: str = "") -> Markup:
    """Return points; each begins with its centre, `M x y`, from where its shape is drawn."""
    path = "".join(
        f"M{number(x)} {number(y)}{look.shape}" for x, y in places if math.isfinite(x) and math.isfinite(y)
    )
    classes = f"point {look.colour}{' hollow' * look.hollow}{f' {class_}' if class_ else ''}"
    return element("path", d=path, class_=classes) if path else Markup("")


def rings(places: Places, look: Look) -> Markup:
    """Return large open circles around places."""
    path = "".join(
        f"M{number(x)} {number(y)}m-6 0a6 6 0 1 0 12 0a6 6 0 1 0-12 0z"
        for x, y in places
        if math.isfinite(x) and math.isfinite(y)
    )
    return element("path", d=path, class_=f"ring {look.colour}") if path else Markup("")


def crosses(places: Places, look: Look) -> Markup:
    """Return crosses at places."""
    path = "".join(
        f"M{number(x)} {number(y)}m-3-3l6 6m0-6l-6 6"
        for x, y in places
        if math.isfinite(x) and math.isfinite(y)
    )
    return element("path", d=path, class_=f"cross {look.colour}") if path else Markup("")


def intervals(places: Iterable[tuple[float, float, float]], look: Look) -> Markup:
    """Return horizontal intervals (low, high, y); nothing where an end is undefined."""
    path = "".join(
        f"M{number(low)} {number(y)}H{number(high)}"
        for low, high, y in places
        if all(map(math.isfinite, (low, high, y)))
    )
    return element("path", d=path, class_=f"interval {look.colour}") if path else Markup("")


def bars(boxes: Iterable[tuple[float, float, float, float]], class_: str) -> Markup:
    """Return filled rectangles (x, y, width, height) as one path."""
    path = "".join(
        f"M{number(x)} {number(y)}h{number(width)}v{number(height)}h{number(-width)}z"
        for x, y, width, height in boxes
        if all(map(math.isfinite, (x, y, width, height))) and width > 0 and height > 0
    )
    return element("path", d=path, class_=class_) if path else Markup("")


def rule(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line of the frame."""
    return element("path", d=f"M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}", class_=class_)
