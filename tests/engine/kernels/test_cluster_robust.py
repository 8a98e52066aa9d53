"""Intervals over groups, and means over pairs of different groups, against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.kernels import cluster_robust
from engine.kernels.cluster_robust import across_groups, clustered, own_groups, ratio, student_t
from engine.kernels.intervals import over_episodes


def test_groups_of_one_give_the_classical_interval() -> None:
    values = np.random.default_rng(0).normal(size=40)
    found, classical = clustered(values, np.arange(40)), over_episodes(values)
    assert (found.mean, found.ci95) == pytest.approx((classical.mean, classical.ci95))


def test_copies_of_a_patients_value_add_nothing() -> None:
    values = np.random.default_rng(0).normal(size=40)
    found = clustered(values.repeat(5), np.arange(40).repeat(5))
    once = clustered(values, np.arange(40))
    assert (found.mean, found.ci95) == pytest.approx((once.mean, once.ci95))


def test_what_is_not_defined_is_nan() -> None:
    assert math.isnan(clustered(np.array([]), np.array([], np.int64)).mean)
    assert math.isnan(clustered(np.array([1.0, 2.0]), np.array([3, 3])).ci95)
    one = np.ones((2, 3)) / math.sqrt(3)
    found, pairs = across_groups(one, one, np.array([4, 4]))
    assert math.isnan(found.mean) and pairs == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 30))
def test_a_ratio_is_the_mean_of_all_values_with_their_clustered_interval(seed: int, count: int) -> None:
    """`clustered` on the values themselves, and scipy's t."""
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(count), rng.integers(0, count, 40)])
    values = rng.normal(size=len(groups)) + rng.normal(size=count)[groups]
    found = ratio(np.bincount(groups, values), np.bincount(groups).astype(float))
    whole = clustered(values, groups)
    half = whole.ci95 / 1.96 * stats.t.ppf(0.975, count - 1)
    assert (found.low, found.high) == pytest.approx((whole.mean - half, whole.mean + half))
    assert found.groups == count and found.reason == ""


def test_student_s_t_is_scipys() -> None:
    for df in (*range(1, 60), 99, 200, 201, 1000, 10**6):
        assert student_t(df) == pytest.approx(stats.t.ppf(0.975, df), abs=1e-6)


def test_one_patient_has_no_interval_over_patients() -> None:
    found = ratio(np.array([3.0]), np.array([4.0]))
    assert math.isnan(found.low) and found.to_dict()["reason"] == "1 patient: an interval needs two"


@pytest.mark.parametrize("count", [6, 40])
def test_the_interval_over_patients_covers_and_the_one_over_values_does_not(count: int) -> None:
    """Patients of different size whose values go together, 1000 times; 95 % is 19 of 20."""
    rng = np.random.default_rng(0)
    inside, naive = 0, 0
    for _ in range(1000):
        groups = np.repeat(np.arange(count), rng.integers(4, 12, count))
        values = 0.3 + rng.normal(size=count)[groups] + rng.normal(size=len(groups))
        found = ratio(np.bincount(groups, values), np.bincount(groups).astype(float))
        inside += found.low < 0.3 < found.high
        naive += abs(values.mean() - 0.3) < over_episodes(values).ci95
    assert 920 <= inside <= 975 and naive < 750


def _plain(a: np.ndarray, b: np.ndarray, groups: np.ndarray) -> float:
    n = len(groups)
    return float(np.mean([a[i] @ b[j] for i in range(n) for j in range(n) if groups[i] != groups[j]]))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), same=st.booleans(), at_once=st.sampled_from([1, 3, 1024]))
def test_pairs_across_groups_equal_the_loop(seed: int, same: bool, at_once: int) -> None:
    cluster_robust._GROUPS = at_once
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(4), rng.integers(0, 6, 10)]).astype(np.int64)
    a, b = rng.normal(size=(2, 14, 5)) + 0.3
    b = a if same else b
    found, pairs = across_groups(a, b, groups)
    cluster_robust._GROUPS = 1024
    assert found.mean == pytest.approx(_plain(a, b, groups))
    assert pairs == sum(g != h for g in groups for h in groups)
    names = np.unique(groups)
    each = np.array([_plain(*(x[groups != g] for x in (a, b, groups))) for g in names])
    spread = (len(names) - 1) / len(names) * ((each - each.mean()) ** 2).sum()
    assert found.ci95 == pytest.approx(1.96 * math.sqrt(spread))


def test_rows_without_a_group_are_their_own() -> None:
    assert own_groups(np.array([3, -1, 3, -1, 0], np.int32)).tolist() == [1, 2, 1, 3, 0]
