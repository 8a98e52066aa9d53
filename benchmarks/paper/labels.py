"""Places of short labels beside points, so that they cover neither points nor one another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Width of a character and height of a line, as shares of the font size.
_WIDE, _HIGH = 0.62, 1.0
#: Directions in which a label may stand, the preferred ones first.
_DIRECTIONS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True)
class Label:
    """The place of a label.

    Attributes:
        x, y: offset from its point, in points of type.
        across: `left`, `center` or `right`: which part of the label is there.
        up: `bottom`, `center` or `top`.
    """

    x: float
    y: float
    across: str
    up: str


def place_labels(
    places: NDArray[np.float64], texts: Sequence[str], font: float, radius: float
) -> tuple[Label, ...]:
    """Choose a direction for each label, in turn, that overlaps least with points and earlier labels.

    Args:
        places: [n, 2] of the points, in points of type (1/72 inch).
        texts: n labels.
        font: size of the type, in points.
        radius: of a marker, in points.
    """
    boxes = [(x - radius, y - radius, x + radius, y + radius) for x, y in places]
    chosen: list[Label] = []
    for (x, y), text in zip(places, texts, strict=True):
        candidates = [
            (_box(x, y, direction, len(text) * _WIDE * font, _HIGH * font, radius), direction)
            for direction in _DIRECTIONS
        ]
        best, direction = min(candidates, key=lambda one: sum(_overlap(one[0], other) for other in boxes))
        boxes.append(best)
        chosen.append(_label(direction, radius))
    return tuple(chosen)


def _box(
    x: float, y: float, direction: tuple[int, int], width: float, height: float, radius: float
) -> tuple[float, float, float, float]:
    label = _label(direction, radius)
    left = x + label.x + {"left": 0.0, "center": -width / 2, "right": -width}[label.across]
    below = y + label.y + {"bottom": 0.0, "center": -height / 2, "top": -height}[label.up]
    return left, below, left + width, below + height


def _label(direction: tuple[int, int], radius: float) -> Label:
    across, up = direction
    return Label(
        across * radius * (0.7 if up else 1.25),
        up * radius * 1.05,
        ("right", "center", "left")[across + 1],
        ("top", "center", "bottom")[up + 1],
    )


def _overlap(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> float:
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    return max(wide, 0.0) * max(high, 0.0)
