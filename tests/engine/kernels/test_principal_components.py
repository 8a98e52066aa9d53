"""Principal components against scikit-learn's, up to sign."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from engine.kernels.principal_components import principal_components


@given(st.integers(0, 10**6), st.integers(3, 40), st.integers(2, 40), st.sampled_from([1e-3, 1.0, 1e4]))
def test_components_are_scikit_learns(seed: int, n: int, d: int, far: float) -> None:
    rng = np.random.default_rng(seed)
    stretched = np.linspace(3, 1, d) ** 2  # so that no two variances are the same
    rows = (rng.normal(size=(n, d)) * stretched + far).astype(np.float32)
    ours = principal_components(rows)
    oracle = PCA(2, svd_solver="full").fit(rows.astype(np.float64))
    np.testing.assert_allclose(ours.shares, oracle.explained_variance_ratio_, atol=1e-9)
    if ours.shares[1] < 1e-9 or oracle.explained_variance_ratio_[0] / ours.shares[1] < 1.01:
        return  # directions of equal variances are arbitrary
    expected = oracle.transform(rows.astype(np.float64))
    signs = np.sign((ours.coordinates * expected).sum(axis=0))
    others = PCA(min(n, d), svd_solver="full").fit(rows.astype(np.float64)).explained_variance_
    if len(others) > 2 and others[1] / max(others[2], 1e-300) < 1.01:
        signs, expected, ours_shown = signs[:1], expected[:, :1], ours.coordinates[:, :1]
    else:
        ours_shown = ours.coordinates
    np.testing.assert_allclose(ours_shown * signs, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(30, 5), (5, 30)])
def test_the_sign_is_that_of_the_largest_loading(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(1).normal(size=shape) * np.linspace(1, 3, shape[1])
    ours = principal_components(rows).coordinates
    np.testing.assert_allclose(principal_components(-rows).coordinates, -ours, atol=1e-10)
    loadings = (rows - rows.mean(axis=0)).T @ ours
    assert (loadings[np.abs(loadings).argmax(axis=0), [0, 1]] > 0).all()


def test_rows_on_a_line_and_equal_rows() -> None:
    line = np.outer(np.arange(4.0), [3.0, 4.0, 0.0])
    ours = principal_components(line)
    np.testing.assert_allclose(ours.shares, [1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(ours.coordinates[:, 0], [-7.5, -2.5, 2.5, 7.5])
    equal = principal_components(np.full((3, 4), 0.1))
    assert np.isnan(equal.shares).all() and not equal.coordinates.any()
