"""Scales: from numbers to places and back, for all ranges that records can have."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.report.page.svg.scale import Scale, scale_of

FINITE = st.floats(allow_nan=False, allow_infinity=False)
ANY = st.lists(st.floats(), max_size=8)


@given(values=ANY, log=st.booleans(), nice=st.booleans())
def test_every_number_is_drawn_within_the_axis(values: list[float], log: bool, nice: bool) -> None:
    scale = scale_of(values, 300, 20, log=log, nice=nice)
    assert scale.low < scale.high
    for value in values:
        place = scale(value)
        if math.isfinite(value) and (value > 0 or not log):
            assert 20 - 1e-6 <= place <= 300 + 1e-6
        else:
            assert math.isnan(place)


@given(a=st.floats(-1e12, 1e12), b=st.floats(-1e12, 1e12), share=st.floats(0, 1))
def test_linear_scales_invert(a: float, b: float, share: float) -> None:
    scale = scale_of([a, b], 10, 330)
    value = scale.low + share * (scale.high - scale.low)
    assert math.isclose(
        scale.invert(scale(value)), value, abs_tol=1e-9 * max(abs(scale.low), abs(scale.high))
    )


@given(a=st.floats(1e-9, 1e9), b=st.floats(1e-9, 1e9))
def test_logarithmic_scales_invert(a: float, b: float) -> None:
    scale = scale_of([a, b], 10, 330, log=True)
    for value in (a, b):
        assert math.isclose(scale.invert(scale(value)), value, rel_tol=1e-9)


def test_linear_scale_by_hand() -> None:
    scale = Scale(0, 10, 100, 300)
    assert [scale(value) for value in (0, 2.5, 10)] == [100, 150, 300]


def test_logarithmic_scale_by_hand() -> None:
    scale = Scale(1, 100, 0, 200, log=True)
    assert [scale(value) for value in (1, 10, 100)] == pytest.approx([0, 100, 200])


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([], 0, 1), ([math.nan], 0, 1), ([0.4, 0.4], 0.36, 0.44), ([0.0], -0.5, 0.5)],
)
def test_ranges_of_few_numbers(values: list[float], low: float, high: float) -> None:
    scale = scale_of(values, 0, 100, nice=False)
    assert (scale.low, scale.high) == pytest.approx((low, high))


def test_limits_are_not_passed() -> None:
    scale = scale_of([-0.2, 0.5, 1.3], 0, 100, within=(0, 1))
    assert (scale.low, scale.high) == (0, 1)


def test_the_largest_numbers_do_not_overflow() -> None:
    scale = scale_of([-1.7e308, 1.7e308], 0, 100)
    assert scale(0) == pytest.approx(50)
