"""McNemar's tests against scipy's binomial test, sums over all signs, and formulae of the papers."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.kernels.paired.mcnemar import FEW, clustered_mcnemar, mcnemar

#: Discordant pairs of 29 psychiatrists with 135 patients between them: Obuchowski 1998, table I.
PSYCHIATRY_B = [0, 1, 1, 1, 0, 3, 3, 3, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0]
PSYCHIATRY_C = [4, 2, 3, 2, 1, 3, 0, 2, 2, 4, 2, 4, 3, 2, 1, 3, 1, 2, 0, 0, 0, 2, 1, 2, 2, 0, 0, 1, 1]
PSYCHIATRY_N = [7, 6, 7, 6, 4, 6, 5, 8, 4, 7, 3, 6, 7, 6, 5, 4, 6, 5, 4, 3, 5, 4, 4, 2, 3, 2, 2, 3, 1]


def answers(b: list[int], c: list[int], n: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return answers of two models with b, c of n images of each patient right for one of them only."""
    first = [[True] * x + [False] * y + [True] * (z - x - y) for x, y, z in zip(b, c, n, strict=True)]
    second = [[False] * x + [True] * y + [True] * (z - x - y) for x, y, z in zip(b, c, n, strict=True)]
    return np.concatenate(first), np.concatenate(second), np.repeat(np.arange(len(n)), n)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_exact_and_mid_p_equal_scipy(b: int, c: int, same: int) -> None:
    first, second, _ = answers([b], [c], [b + c + same])
    found, mid = mcnemar(first.astype(bool), second.astype(bool)), None
    assert (found.first, found.second) == (b, c)
    if not b + c:
        assert np.isnan(found.p) and found.reason
        return
    assert found.p == pytest.approx(stats.binomtest(b, b + c).pvalue, abs=1e-12)
    mid = mcnemar(first, second, mid_p=True).p
    expected = 2 * stats.binom.cdf(min(b, c), b + c, 0.5) - stats.binom.pmf(min(b, c), b + c, 0.5)
    assert mid == pytest.approx(min(1, expected), abs=1e-12)


def test_clusters_of_the_psychiatry_data() -> None:
    """The statistic as Yang, Sun, Hardin give it, term by term; it is near Durkalski's published 7.54."""
    first, second, groups = answers(PSYCHIATRY_B, PSYCHIATRY_C, PSYCHIATRY_N)
    found = clustered_mcnemar(first, second, groups)
    d = [b - c for b, c in zip(PSYCHIATRY_B, PSYCHIATRY_C, strict=True)]
    assert found.name == ("mcnemar-yang" if sum(x != 0 for x in d) >= FEW else "mcnemar-signs")
    twice = np.concatenate([groups, groups + 29])
    doubled = clustered_mcnemar(np.tile(first, 2), np.tile(second, 2), twice)
    shift = sum(d) / sum(PSYCHIATRY_N)
    both = sum((x - n * shift) ** 2 + x**2 for x, n in zip(d, PSYCHIATRY_N, strict=True))
    assert doubled.statistic == pytest.approx(57 / 58 * (2 * sum(d)) ** 2 / both, rel=1e-12)
    assert doubled.p == pytest.approx(stats.chi2.sf(doubled.statistic, 1), abs=1e-12)
    assert (found.first, found.second) == (21, 50)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_few_patients_have_the_exact_distribution_of_signs(d: list[int]) -> None:
    b, c = [max(x, 0) for x in d], [max(-x, 0) for x in d]
    first, second, groups = answers(b, c, [5] * len(d))
    found = clustered_mcnemar(first, second, groups)
    steps = [abs(x) for x in d if x]
    if not steps:
        assert np.isnan(found.p) and found.reason
        return
    sums = [sum(s * x for s, x in zip(signs, steps, strict=True)) for signs in _signs(len(steps))]
    assert found.p == pytest.approx(np.mean([abs(total) >= abs(sum(d)) for total in sums]), abs=1e-12)


def _signs(count: int) -> list[tuple[int, ...]]:
    return list(itertools.product((-1, 1), repeat=count))


def test_one_image_a_patient_is_the_binomial_test() -> None:
    first, second, _ = answers([9], [4], [30])
    alone = clustered_mcnemar(first, second, np.arange(30))
    assert alone.p == pytest.approx(stats.binomtest(4, 13).pvalue, abs=1e-12)
    first, second, _ = answers([300], [240], [2000])
    many = clustered_mcnemar(first, second, np.arange(2000))
    assert many.p == pytest.approx(stats.chi2.sf(60**2 / 540, 1), rel=0.01)


def test_differences_that_cancel_have_no_p() -> None:
    first, second, groups = answers([1, 2], [1, 2], [4, 4])
    found = clustered_mcnemar(first, second, groups)
    assert np.isnan(found.p) and "cancel" in found.reason
