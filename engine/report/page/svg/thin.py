"""Fewer points for a line that looks the same."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def thinned(places: Sequence[tuple[float, ...]], tolerance: float = 0.3) -> list[tuple[float, ...]]:
    """Return the corners of a line from which no left-out corner is farther than a tolerance.

    Ramer, Computer Graphics and Image Processing 1 (1972) 244; Douglas and Peucker, Cartographica 10 (1973)
    112. The first and the last corner stay.

    Args:
        places: finite corners, units.
        tolerance: units.
    """
    points = np.asarray(places, np.float64).reshape(-1, 2)
    keep = np.zeros(len(points), np.bool_)
    keep[:1] = keep[-1:] = True
    waiting = [(0, len(points) - 1)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        distance = _distances(points[first + 1 : last], points[first], points[last])
        farthest = int(distance.argmax())
        if distance[farthest] > tolerance:
            middle = first + 1 + farthest
            keep[middle] = True
            waiting += [(first, middle), (middle, last)]
    return [(float(x), float(y)) for x, y in points[keep]]


def _distances(
    points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distances [n] of points [n, 2] from the segment between two points."""
    along = end - start
    square = float(along @ along)
    share = np.clip((points - start) @ along / square, 0, 1) if square > 0 else np.zeros(len(points))
    gap: NDArray[np.float64] = points - start - share[:, None] * along
    return np.hypot(gap[:, 0], gap[:, 1])
