"""Thinned lines look like the line."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.report.page.svg.thin import thinned

CORNERS = st.lists(st.tuples(st.floats(0, 300), st.floats(0, 300)), max_size=40)


def distance(point: tuple[float, float], line: list[tuple[float, float]]) -> float:
    """Return the distance of a point from a line, by a plain loop over fine steps of each segment."""
    x, y = point
    best = min(np.hypot(x - a, y - b) for a, b in line)
    for (x1, y1), (x2, y2) in itertools.pairwise(line):
        length = (x2 - x1) ** 2 + (y2 - y1) ** 2
        if length > 0:
            share = min(max(((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / length, 0), 1)
            best = min(best, np.hypot(x - x1 - share * (x2 - x1), y - y1 - share * (y2 - y1)))
    return float(best)


@given(corners=CORNERS, tolerance=st.floats(0.1, 20))
def test_no_left_out_corner_is_far(corners: list[tuple[float, float]], tolerance: float) -> None:
    thin = thinned(corners, tolerance)
    assert thin[:1] == corners[:1]
    assert thin[-1:] == corners[-1:]
    assert all(distance(corner, thin) <= tolerance + 1e-6 for corner in corners)


def test_corners_on_a_straight_line_are_left_out() -> None:
    line = [(float(i), 2.0 * i) for i in range(1000)]
    assert thinned(line) == [line[0], line[-1]]


def test_stairs_stay() -> None:
    stairs = [(float(i // 2 * 10), float((i + 1) // 2 * 10)) for i in range(20)]
    assert thinned(stairs) == stairs
