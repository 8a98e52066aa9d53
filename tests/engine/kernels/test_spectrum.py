"""Spectrum of a covariance, effective rank and participation ratio against numpy's own and SciPy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy

from engine.kernels.spectrum import covariance_spectrum, effective_rank, participation_ratio


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (12, 12), (2, 5)])
def test_the_spectrum_is_that_of_numpys_covariance(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(sum(shape)).normal(3.0, 2.0, shape)
    expected = np.linalg.eigvalsh(np.cov(x, rowvar=False))[::-1]
    found = covariance_spectrum(x)
    assert len(found) == min(shape) and (np.diff(found) <= 0).all()
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-12)
    np.testing.assert_allclose(expected[len(found) :], 0, atol=1e-12)
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(found, singular**2 / (shape[0] - 1), atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 9])
def test_features_of_a_rank_have_as_many_eigenvalues_and_no_more_effective_dimensions(rank: int) -> None:
    rng = np.random.default_rng(rank)
    x = rng.normal(size=(60, rank)) @ rng.normal(size=(rank, 30))
    values = covariance_spectrum(x)
    assert int((values > 1e-10 * values[0]).sum()) == np.linalg.matrix_rank(x - x.mean(axis=0)) == rank
    assert 1 <= participation_ratio(values) <= effective_rank(values) * (1 + 1e-12)
    assert effective_rank(values) <= rank * (1 + 1e-6)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1e3)))
def test_the_effective_rank_is_scipys_entropy(values: np.ndarray) -> None:
    if not values.sum() > 1e-9:
        return
    assert effective_rank(values) == pytest.approx(math.exp(entropy(values / values.sum())), rel=1e-9)
    shares = values / values.sum()
    assert participation_ratio(values) == pytest.approx(1 / (shares**2).sum(), rel=1e-9)


def test_equal_eigenvalues_count_all_and_zeros_none() -> None:
    assert effective_rank(np.full(6, 0.2)) == pytest.approx(6) == participation_ratio(np.full(6, 0.2))
    assert effective_rank(np.array([5.0, 0.0])) == 1 == participation_ratio(np.array([5.0, 0.0]))
    assert math.isnan(effective_rank(np.zeros(3))) and math.isnan(participation_ratio(np.zeros(3)))
