"""Means, intervals, scalings and quartiles against numpy, scipy and plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.kernels.episodes import Identity, Stream
from engine.kernels.summaries import bootstrap_interval, five_numbers, mean_sd, min_max, normal_interval

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30).map(np.array)


def stream() -> Stream:
    return Identity(0, "summaries", 2, 1, 1).stream("bootstrap")


@settings(max_examples=40, deadline=None)
@given(values, st.sampled_from([0, 1]))
def test_mean_and_deviation_equal_numpy(array: np.ndarray, ddof: int) -> None:
    result = mean_sd(array, ddof)
    assert (result.mean, result.sd) == pytest.approx((np.mean(array), np.std(array, ddof=ddof)), nan_ok=True)
    assert (result.n, result.ddof, result.reason) == (len(array), ddof, "")


def test_a_deviation_needs_more_values_than_ddof() -> None:
    one = mean_sd([3.0])
    assert one.mean == 3 and math.isnan(one.sd) and one.reason == "1 value: a deviation needs 2"
    assert mean_sd([3.0], ddof=0).sd == 0
    for array, reason in (([], "no value"), ([1, math.nan], "1 of 2 values undefined")):
        none = mean_sd(array)
        assert math.isnan(none.mean) and math.isnan(none.sd) and none.reason == reason


@settings(max_examples=40, deadline=None)
@given(values)
def test_normal_interval_is_1_96_standard_errors(array: np.ndarray) -> None:
    result, half = normal_interval(array), 1.96 * stats.sem(array)
    assert (result.low, result.high) == pytest.approx((array.mean() - half, array.mean() + half), abs=1e-9)
    assert (result.n, result.groups) == (len(array), len(array))


def test_normal_interval_of_groups_of_equal_values_is_that_of_the_groups() -> None:
    single = normal_interval([1.0, 2.0, 5.0])
    doubled = normal_interval([1.0, 1.0, 2.0, 2.0, 5.0, 5.0], groups=["a", "a", "b", "b", "c", "c"])
    assert (doubled.low, doubled.high) == pytest.approx((single.low, single.high))
    assert (doubled.n, doubled.groups) == (6, 3)


def test_bootstrap_equals_a_loop_over_the_same_draws() -> None:
    array, groups = np.array([1.0, 4.0, 2.0, 8.0, 3.0]), np.array([0, 0, 1, 2, 2])
    result = bootstrap_interval(array, 500, stream(), groups)
    members = [array[groups == group] for group in range(3)]
    means = [np.concatenate([members[int(u * 3)] for u in row]).mean() for row in stream().uniform(500, 3)]
    assert (result.low, result.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    assert (result.mean, result.n, result.groups) == (array.mean(), 5, 3)


def test_bootstrap_of_many_values_is_near_scipys() -> None:
    array = np.random.default_rng(1).gamma(2, size=200)
    result = bootstrap_interval(array, 4000, stream())
    expected = stats.bootstrap(
        (array,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (result.low, result.high) == pytest.approx(expected, abs=0.15 * (expected.high - expected.low) / 2)


@pytest.mark.parametrize(
    "interval", [normal_interval, lambda x, g=None: bootstrap_interval(x, 9, stream(), g)]
)
def test_intervals_that_are_undefined_have_a_reason(interval: object) -> None:
    assert callable(interval)
    for array, reason in (([], "no value"), ([1, math.inf], "1 of 2 values undefined")):
        result = interval(array)
        assert math.isnan(result.mean) and math.isnan(result.low) and result.reason == reason
    for result in (interval([2.0]), interval([1.0, 3.0], ["a", "a"])):
        assert result.mean == 2 and math.isnan(result.low) and math.isnan(result.high)
        assert "an interval needs two" in result.reason and result.groups == 1
    with pytest.raises(ValueError, match="groups of shape"):
        interval([1.0, 2.0], ["a"])


@settings(max_examples=40, deadline=None)
@given(values.filter(lambda array: np.ptp(array) > 1e-6))
def test_scaled_values_are_from_0_to_1(array: np.ndarray) -> None:
    result = min_max(array)
    expected = (array - array.min()) / (array.max() - array.min())
    assert result.scaled == pytest.approx(expected, abs=1e-12)
    assert result.scaled.min() == 0 and result.scaled.max() == 1
    assert (result.low, result.high, result.n) == (array.min(), array.max(), len(array))


def test_the_set_gives_the_scale_and_missing_values_stay_missing() -> None:
    result = min_max([0, 1, 3, math.nan, 5], over=[False, True, True, True, False])
    assert result.scaled == pytest.approx([-0.5, 0, 1, math.nan, 2], nan_ok=True)
    assert (result.low, result.high, result.n, result.reason) == (1, 3, 2, "")


@pytest.mark.parametrize(
    ("array", "over", "reason"),
    [
        ([1, 2], [False, False], "0 values in the set: a scale needs two"),
        ([1, 2], [True, False], "1 value in the set: a scale needs two"),
        ([1, math.nan], [True, True], "1 value in the set: a scale needs two"),
        ([4, 4, 1], [True, True, False], "all 2 values of the set are equal"),
    ],
)
def test_a_set_without_a_width_gives_no_scale(array: list[float], over: list[bool], reason: str) -> None:
    result = min_max(array, over)
    assert (
        np.isnan(result.scaled).all()
        and result.reason == reason
        and result.n == sum(over) - (math.nan in array)
    )


def test_a_wide_set_does_not_overflow() -> None:
    assert min_max([-1.5e308, 0, 1.5e308]).scaled == pytest.approx([0, 0.5, 1])
    with pytest.raises(ValueError, match="a set of shape"):
        min_max([1, 2], [True])


@settings(max_examples=40, deadline=None)
@given(values)
def test_five_numbers_equal_the_quantiles_of_python(array: np.ndarray) -> None:
    import statistics

    result = five_numbers(array)
    quartiles = statistics.quantiles(array.tolist(), n=4, method="inclusive")
    assert (result.q1, result.median, result.q3) == pytest.approx(quartiles, abs=1e-9)
    assert (result.low, result.high, result.n) == (array.min(), array.max(), len(array))


def test_five_numbers_of_nothing_have_a_reason() -> None:
    for array, reason in (([], "no value"), ([math.nan], "1 of 1 value undefined")):
        assert five_numbers(array).reason == reason and math.isnan(five_numbers(array).median)
