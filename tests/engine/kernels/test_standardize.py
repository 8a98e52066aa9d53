"""Scaler against scikit-learn's scaler and exact arithmetic."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from engine.kernels.standardize import Scaler


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 9999),
    rows=st.integers(1, 3000),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    offset=st.sampled_from([0.0, 100.0]),
)
def test_moments_are_those_of_scikit_learn(seed: int, rows: int, dtype: type, offset: float) -> None:
    rng = np.random.default_rng(seed)
    features = (rng.normal(offset, rng.uniform(0.5, 3, 5), (rows + 7, 5))).astype(dtype)
    features[:, 2] = 0.1
    chosen = rng.permutation(rows + 7)[:rows]
    oracle = StandardScaler().fit(features[chosen].astype(np.float64))
    found = Scaler.of(features, chosen)
    np.testing.assert_allclose(found.mean, oracle.mean_, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.scale, oracle.scale_, rtol=1e-9)
    tensor = Scaler.of(torch.from_numpy(features), chosen)
    np.testing.assert_allclose(tensor.mean, oracle.mean_, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(tensor.scale, oracle.scale_, rtol=1e-9)
    assert tensor.constant == found.constant
    assert found.constant == (
        5 if rows == 1 else 1 + sum(np.ptp(features[chosen], axis=0)[[0, 1, 3, 4]] == 0)
    )


def test_a_small_spread_far_from_zero_is_not_lost() -> None:
    """A million times the spread away from zero, where a mean of squares has no digit left."""
    features = np.tile([1e8, 1e8 + 1, 1e8 + 2], 1000)[:, None]
    found = Scaler.of(features, np.arange(3000))
    assert found.mean[0] == pytest.approx(1e8 + 1, rel=1e-15)
    assert found.scale[0] == pytest.approx(np.sqrt(2 / 3), rel=1e-12)
    tensor = Scaler.of(torch.from_numpy(features), np.arange(3000))
    assert tensor.mean[0] == pytest.approx(1e8 + 1, rel=1e-15)
    assert tensor.scale[0] == pytest.approx(np.sqrt(2 / 3), rel=1e-12)
