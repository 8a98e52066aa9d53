"""Streaming moments against numpy and scikit-learn in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf

from engine.errors import Refused
from engine.kernels import covariance, sample_moments
from engine.kernels.covariance import moments


def features(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Like pooled ReLU features, sorted so that their mean drifts, as float16."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, d)) @ (rng.normal(size=(d, d)) * 0.3 + np.eye(d))
    return (np.abs(mixed + 1) + np.linspace(0, 3, n)[:, None]).astype(np.float16)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_moments, "_BLOCK_ROWS", 100)
    monkeypatch.setattr(covariance, "_PIECE", 32)
    monkeypatch.setattr(sample_moments, "_SAMPLE", 7)  # so that the shift is not the mean


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_mean_covariance_and_quartic_equal_numpy(dtype: type) -> None:
    x = features(1234, 23).astype(dtype)
    found, truth = moments(x), x.astype(np.float64)
    centred = truth - truth.mean(axis=0)
    np.testing.assert_allclose(found.mean, truth.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance(), np.cov(truth, rowvar=False), rtol=1e-10, atol=1e-12)
    assert found.quartic == pytest.approx(((centred**2).sum(axis=1) ** 2).sum(), rel=1e-11)
    assert (found.count, found.dim) == (1234, 23)


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 300), d=st.integers(1, 40))
def test_shrinkage_is_scikit_learns(seed: int, n: int, d: int) -> None:
    x = features(n, d, seed)
    assert moments(x).shrinkage() == pytest.approx(
        LedoitWolf().fit(x.astype(np.float64)).shrinkage_, abs=1e-9
    )


@pytest.mark.usefixtures("small_blocks")
def test_rows_perhaps_repeated() -> None:
    x = features(500, 9)
    rows = np.random.default_rng(0).integers(0, 500, 321)
    expected = np.cov(x[rows].astype(np.float64), rowvar=False)
    np.testing.assert_allclose(moments(x, rows).covariance(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", [500, 20_000])
def test_float32_products_keep_the_stated_error(n: int) -> None:
    x = features(n, 48)
    truth = np.cov(x.astype(np.float64), rowvar=False)
    scale = np.sqrt(np.outer(np.diag(truth), np.diag(truth)))
    error = np.abs(moments(x, arithmetic="float32").covariance() - truth) / scale
    assert 0 < error.max() < 1e-6


def test_far_from_zero_nothing_cancels() -> None:
    x = (np.random.default_rng(0).normal(size=(300, 5)) + 1e6).astype(np.float64)
    np.testing.assert_allclose(moments(x).covariance(), np.cov(x, rowvar=False), rtol=1e-8)


@pytest.mark.parametrize("arithmetic", ["float64", "float32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(arithmetic: str, bad: float) -> None:
    x = features(50, 4)
    x[17, 2] = bad
    with pytest.raises(Refused, match="not finite"):
        moments(x, arithmetic=arithmetic)
    rows = np.delete(np.arange(50), 17)
    assert np.isfinite(moments(x, rows, arithmetic=arithmetic).scatter).all()


def test_too_few_rows_and_unknown_arithmetic() -> None:
    with pytest.raises(Refused, match="1 images"):
        moments(features(1, 4))
    with pytest.raises(Refused, match="bfloat16"):
        moments(features(5, 4), arithmetic="bfloat16")  # type: ignore[arg-type]


@pytest.mark.parametrize("arithmetic", ["float64", "float32"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def test_the_device_route_equals_numpy(device: str, arithmetic: str) -> None:
    """torch's route, on the CPU as well: `cpu:0` is torch's name for what `cpu` leaves to numpy."""
    x = features(3000, 17)
    found = moments(x, arithmetic=arithmetic, device="cpu:0" if "cpu" in device else device).to_host()
    truth = moments(x)
    np.testing.assert_allclose(found.mean, truth.mean, rtol=1e-6)
    scale = np.sqrt(np.outer(np.diag(truth.scatter), np.diag(truth.scatter)))
    assert (np.abs(found.scatter - truth.scatter) / scale).max() < (
        1e-12 if arithmetic == "float64" else 1e-6
    )
    assert found.shrinkage() == pytest.approx(truth.shrinkage(), rel=1e-4)
