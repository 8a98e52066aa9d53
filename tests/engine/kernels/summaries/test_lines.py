"""Straight lines against numpy's `polyfit`, scipy's `curve_fit` and `linregress`."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import curve_fit

from engine.kernels.summaries import least_squares, weighted_least_squares


def drawn(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(3, 2, n)
    return x, 0.3 * x + random.normal(size=n), random.uniform(0.01, 2, n)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 15))
def test_weighted_lines_equal_polyfit(seed: int, n: int) -> None:
    x, y, sigma = drawn(seed, n)
    line = weighted_least_squares(x, y, sigma)
    (slope, intercept), covariance = np.polyfit(x, y, 1, w=1 / sigma, cov="unscaled")
    assert (line.slope, line.intercept) == pytest.approx((slope, intercept), rel=1e-8, abs=1e-10)
    assert (line.slope_se, line.intercept_se) == pytest.approx(np.sqrt(np.diag(covariance)), rel=1e-8)
    assert line.covariance == pytest.approx(covariance[0, 1], rel=1e-8, abs=1e-12)
    chi2 = float((((y - slope * x - intercept) / sigma) ** 2).sum())
    assert (line.chi2, line.reduced_chi2) == pytest.approx((chi2, chi2 / (n - 2)), rel=1e-8)
    assert (line.dof, line.n, line.weighted, line.reason) == (n - 2, n, True, "")


def test_weighted_lines_equal_curve_fit_with_absolute_errors() -> None:
    x, y, sigma = drawn(5, 9)
    line = weighted_least_squares(x, y, sigma)
    fit, covariance = curve_fit(lambda x, a, b: a * x + b, x, y, sigma=sigma, absolute_sigma=True)
    assert (line.slope, line.intercept) == pytest.approx(fit, rel=1e-6)
    assert (line.slope_se, line.intercept_se) == pytest.approx(np.sqrt(np.diag(covariance)), rel=1e-5)
    places = np.array([-1.0, 3.0, 8.0])
    matrix = np.stack([places, np.ones(3)], axis=1)
    se = np.sqrt(np.einsum("ij,jk,ik->i", matrix, covariance, matrix))
    assert line.band(places) == pytest.approx(stats.norm.ppf(0.975) * se, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 15))
def test_unweighted_lines_equal_linregress(seed: int, n: int) -> None:
    x, y, _ = drawn(seed, n)
    line, expected = least_squares(x, y), stats.linregress(x, y)
    assert (line.slope, line.intercept) == pytest.approx((expected.slope, expected.intercept), abs=1e-9)
    assert line.slope_se == pytest.approx(expected.stderr, rel=1e-7, abs=1e-10)
    assert line.intercept_se == pytest.approx(expected.intercept_stderr, rel=1e-7, abs=1e-10)
    assert line.at([2.0]) == pytest.approx(expected.slope * 2 + expected.intercept, abs=1e-9)
    # The band at a place is that of the intercept if the place is moved to zero.
    for place in (-2.0, 0.0, 7.0):
        moved = stats.linregress(x - place, y)
        half = stats.t.ppf(0.975, n - 2) * moved.intercept_stderr
        assert line.band([place])[0] == pytest.approx(half, rel=1e-5, abs=1e-7)


def test_two_points_have_a_line_without_errors() -> None:
    line = least_squares([1, 3], [2, 6])
    assert (line.slope, line.intercept, line.chi2, line.dof) == pytest.approx((2, 0, 0, 0))
    assert math.isnan(line.slope_se) and math.isnan(line.reduced_chi2) and "degree of freedom" in line.reason
    assert np.isnan(line.band([2])).all()
    weighted = weighted_least_squares([1, 3], [2, 6], [0.5, 0.5])
    assert weighted.slope_se == pytest.approx(0.5 / math.sqrt(2)) and math.isnan(weighted.reduced_chi2)


@pytest.mark.parametrize(
    ("x", "y", "sigma", "reason"),
    [
        ([1], [2], [1], "1 point: a line needs two"),
        ([1, math.nan], [2, 3], [1, 1], "1 of 2 values undefined"),
        ([1, 2], [math.inf, 3], [1, 1], "1 of 2 values undefined"),
        ([2, 2, 2], [1, 2, 3], [1, 1, 1], "x is constant"),
        ([1, 2, 3], [1, 2, 3], [1, 0, 1], "an error is zero"),
        ([1, 2, 3], [1, 2, 3], [1, math.nan, 1], "an error is zero or undefined"),
    ],
)
def test_undefined_lines_have_a_reason(
    x: list[float], y: list[float], sigma: list[float], reason: str
) -> None:
    line = weighted_least_squares(x, y, sigma)
    assert math.isnan(line.slope) and math.isnan(line.reduced_chi2) and reason in line.reason
    assert (line.n, line.dof) == (len(x), len(x) - 2)
    if "error" not in reason:
        assert least_squares(x, y).reason == line.reason


def test_tiny_and_huge_errors_do_not_overflow() -> None:
    x, y = [1.0, 2.0, 3.0], [1.0, 2.5, 2.9]
    line = weighted_least_squares(x, y, np.full(3, 1e-140))
    assert line.slope == pytest.approx(0.95) and np.isfinite(line.chi2)
    assert weighted_least_squares(x, y, np.full(3, 1e140)).slope == pytest.approx(0.95)
