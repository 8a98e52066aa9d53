"""Correlations against scipy, and against their definition with points left out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.kernels.summaries import leave_one_out, pearson

numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))
points = st.lists(st.tuples(numbers, numbers), min_size=3, max_size=20).map(
    lambda pairs: np.array(pairs, float).T
)


def varied(points: np.ndarray) -> bool:
    return all(np.ptp(values) > 1e-6 * max(1.0, np.abs(values).max()) for values in points)


@settings(max_examples=60, deadline=None)
@given(points.filter(varied))
def test_r_p_and_interval_equal_scipy(points: np.ndarray) -> None:
    x, y = points
    result, expected = pearson(x, y), stats.pearsonr(x, y)
    assert result.r == pytest.approx(expected.statistic, abs=1e-11)
    assert result.n == len(x) and not result.reason
    if (
        abs(result.r) >= 0.999999
    ):  # of three points p is about the root of 1 - r^2, whose rounding it enlarges
        assert result.p < 1e-3
        return
    assert result.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-10)
    if len(x) > 3:
        assert (result.low, result.high) == pytest.approx(expected.confidence_interval(0.95), abs=1e-9)


def test_small_p_of_many_points_is_exact() -> None:
    x = np.linspace(0, 1, 60)
    y = x + 0.05 * np.sin(37 * x)
    result = pearson(x, y)
    t = result.r * math.sqrt(58 / (1 - result.r**2))
    assert 0 < result.p < 1e-40
    assert result.p == pytest.approx(2 * stats.t.sf(t, 58), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(points.filter(varied))
def test_without_each_point_equals_scipy_on_the_others(points: np.ndarray) -> None:
    x, y = points
    if len(x) < 4:
        assert leave_one_out(x, y).reason
        return
    result = leave_one_out(x, y)
    for place in range(len(x)):
        others = np.arange(len(x)) != place
        if not varied(points[:, others]):
            continue
        expected = stats.pearsonr(x[others], y[others])
        assert result.r[place] == pytest.approx(expected.statistic, abs=1e-9)
        if len(x) > 4:
            assert result.p[place] == pytest.approx(expected.pvalue, rel=1e-5, abs=1e-9)
    if result.most_influential >= 0:
        assert (result.low, result.high) == (np.nanmin(result.r), np.nanmax(result.r))
        change = abs(result.r[result.most_influential] - pearson(x, y).r)
        assert change == np.nanmax(np.abs(result.r - pearson(x, y).r))


def test_an_outlier_is_the_most_influential_point() -> None:
    x, y = np.arange(9.0), np.array([0, 1, 2, 3, 4, 5, 6, 7, -60.0])
    result = leave_one_out(x, y)
    assert result.most_influential == 8
    assert result.high == result.r[8] == pytest.approx(1)
    assert result.p[8] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([], [], "0 points: a correlation needs three"),
        ([1], [2], "1 point: a correlation needs three"),
        ([1, 2], [2, 5], "2 points: a correlation needs three"),
        ([1, 2, math.nan], [2, 5, 6], "1 of 3 values undefined"),
        ([1, 2, 3], [2, math.inf, 6], "1 of 3 values undefined"),
        ([0.1 + 0.2, 0.3, 0.3], [2, 5, 6], "x is constant"),
        ([1, 2, 3], [0, 0, 0], "y is constant"),
    ],
)
def test_undefined_correlations_have_a_reason(x: list[float], y: list[float], reason: str) -> None:
    result = pearson(x, y)
    assert math.isnan(result.r) and math.isnan(result.p) and math.isnan(result.low)
    assert (result.n, result.reason) == (len(x), reason)
    left_out = leave_one_out(x, y)
    assert left_out.reason == reason and left_out.most_influential == -1 and math.isnan(left_out.high)


def test_leaving_out_needs_four_points() -> None:
    result = leave_one_out([1, 2, 3], [1, 2, 4])
    assert "needs four" in result.reason and np.isnan(result.r).all() and math.isnan(result.low)


def test_without_one_of_two_values_the_rest_is_constant() -> None:
    result = leave_one_out([0, 0, 0, 1], [1, 2, 3, 4])
    assert math.isnan(result.r[3]) and np.isfinite(result.r[:3]).all()
    assert result.most_influential in (0, 1, 2)


def test_a_perfect_line_has_p_of_zero() -> None:
    result = pearson([1, 2, 3, 4], [2, 4, 6, 8])
    assert result.r == 1 and result.p == 0 and (result.low, result.high) == (1, 1)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="one length"):
        pearson([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="one length"):
        pearson([[1, 2, 3]], [[1, 2, 3]])


def test_large_numbers_do_not_overflow() -> None:
    x = np.array([1.0, 2.0, 4.0]) * 1e300
    assert pearson(x, [1, 2, 3]).r == pytest.approx(stats.pearsonr([1, 2, 4], [1, 2, 3]).statistic)
