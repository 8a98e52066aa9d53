"""Ticks: round, within their range, and labelled so that the label says where they are."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.report.page.svg.ticks import (
    linear_ticks,
    log_labels,
    log_ticks,
    minus,
    nice_bounds,
    tick_labels,
)
from tests.engine.report.page.drawings import tick_number

FINITE = st.floats(allow_nan=False, allow_infinity=False)
USUAL = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (0, 1, 6, (0, 0.2, 0.4, 0.6, 0.8, 1)),
        (0, 1, 5, (0, 0.5, 1)),
        (0, 100, 6, (0, 20, 40, 60, 80, 100)),
        (-1, 1, 5, (-1, -0.5, 0, 0.5, 1)),
        (0.31, 0.78, 6, (0.4, 0.5, 0.6, 0.7)),
        (1998, 2003, 6, (1998, 1999, 2000, 2001, 2002, 2003)),
        (0, 3e-5, 4, (0, 1e-5, 2e-5, 3e-5)),
        (5, 5, 6, (5,)),
    ],
)
def test_known_ranges(low: float, high: float, most: int, ticks: tuple[float, ...]) -> None:
    assert linear_ticks(low, high, most) == ticks  # to the last bit: 0.6, never 0.6000000000000001


@pytest.mark.parametrize(
    ("low", "high", "bounds"),
    [(0.31, 0.78, (0.3, 0.8)), (-0.26, 0.54, (-0.4, 0.6)), (0, 1, (0, 1)), (3, 97, (0, 100))],
)
def test_known_bounds(low: float, high: float, bounds: tuple[float, float]) -> None:
    assert nice_bounds(low, high, 6) == bounds


@given(low=FINITE, high=FINITE, most=st.integers(2, 12))
def test_ticks_rise_within_their_range(low: float, high: float, most: int) -> None:
    low, high = sorted((low, high))
    ticks = linear_ticks(low, high, most)
    assert len(ticks) <= most
    assert all(low <= tick <= high for tick in ticks)
    assert list(ticks) == sorted(set(ticks))


@given(low=USUAL, width=st.floats(1e-2, 1e9), most=st.integers(3, 12))
def test_ticks_are_multiples_of_a_round_step(low: float, width: float, most: int) -> None:
    ticks = linear_ticks(low, low + width, most)
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    for step in steps:
        lead = step / 10 ** math.floor(math.log10(step) + 1e-6)
        assert min(abs(lead - round_one) for round_one in (1, 2, 5, 10)) < 1e-3
        assert math.isclose(step, steps[0], rel_tol=1e-3)


@given(low=USUAL, width=st.floats(1e-2, 1e9), most=st.integers(3, 12))
def test_bounds_end_with_ticks(low: float, width: float, most: int) -> None:
    first, last = nice_bounds(low, low + width, most)
    assert first <= low < low + width <= last
    ticks = linear_ticks(first, last, most)
    assert (ticks[0], ticks[-1]) == (first, last)


@pytest.mark.parametrize(
    ("low", "high", "most", "labels"),
    [
        (1e-5, 1e6, 4, ("10⁻⁵", "10⁻²", "10¹", "10⁴")),
        (0.9, 1200, 6, ("1", "10", "100", "1,000")),
        (1, 60, 6, ("1", "2", "5", "10", "20", "50")),
        (0.002, 0.03, 6, ("0.002", "0.005", "0.01", "0.02")),
    ],
)
def test_logarithmic_ticks(low: float, high: float, most: int, labels: tuple[str, ...]) -> None:
    assert log_labels(log_ticks(low, high, most)) == labels


@given(low=st.floats(1e-300, 1e290), factor=st.floats(1.01, 1e12), most=st.integers(2, 12))
def test_logarithmic_ticks_rise_within_their_range(low: float, factor: float, most: int) -> None:
    ticks = log_ticks(low, low * factor, most)
    assert ticks
    assert list(ticks) == sorted(set(ticks))
    assert all(low * 0.999 <= tick <= low * factor * 1.001 for tick in ticks)


@given(low=USUAL, width=st.floats(1e-2, 1e9))
def test_labels_say_where_ticks_are(low: float, width: float) -> None:
    ticks = linear_ticks(low, low + width)
    labels = tick_labels(ticks)
    assert len(set(labels)) == len(labels) or abs(low) / width > 1e3
    for tick, label in zip(ticks, labels, strict=True):
        assert math.isclose(tick_number(label), tick, rel_tol=1e-3, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ((0, 0.5, 1), ("0.0", "0.5", "1.0")),
        ((-0.1, 0, 0.1), ("−0.1", "0.0", "0.1")),
        ((0, 20000), ("0", "20,000")),
        ((0, 1e-5, 2e-5), ("0", "10⁻⁵", "2·10⁻⁵")),
        ((-2e6, 0, 2e6), ("−2·10⁶", "0", "2·10⁶")),
    ],
)
def test_known_labels(ticks: tuple[float, ...], labels: tuple[str, ...]) -> None:
    assert tick_labels(ticks) == labels


def test_zero_has_no_sign() -> None:
    assert minus(f"{-0.0001:.2f}") == "0.00"
    assert minus("-0.10") == "−0.10"
