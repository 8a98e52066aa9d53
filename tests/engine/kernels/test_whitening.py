"""Whitening: what must hold of it, and equality with the plain loop."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf

from engine.errors import Refused
from engine.kernels import whitening
from engine.kernels.covariance import moments
from engine.kernels.intervals.cluster_robust import defined_rows, mean_across_groups, taken
from engine.kernels.whitening import Agreement, Regularisation, Whitening, fit_whitener
from engine.kernels.whitening_place import whitening_on
from tests.oracles.invariance_loop import loop

NONE, LEDOIT_WOLF = Regularisation("none"), Regularisation()


def agreement(whitening: Whitening, images: np.ndarray, views: np.ndarray) -> Agreement:
    return whitening.agreement(images, views)


def features(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ (rng.normal(size=(d, d)) * 0.5 + np.eye(d)) + rng.normal(size=d)


def pairs(n: int, k: int, d: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = features(n, d, seed)
    return images, images[:, None] + 0.3 * rng.normal(size=(n, k, d))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    d=st.integers(1, 20),
    how=st.sampled_from(["none", "ledoit-wolf", "ridge=0.01"]),
    arithmetic=st.sampled_from(["float64", "float32"]),
)
def test_equals_the_plain_loop(seed: int, d: int, how: str, arithmetic: str) -> None:
    x = features(200, d, seed)
    images, views = pairs(5, 7, d, seed + 1)
    expected = {
        "none": np.cov(x, rowvar=False),
        "ridge=0.01": np.cov(x, rowvar=False) + 0.01 * np.eye(d),
        "ledoit-wolf": LedoitWolf().fit(x).covariance_,
    }[how]
    cosine, distance = loop(x.mean(axis=0), np.atleast_2d(expected), images, views)
    found = agreement(
        Whitening(fit_whitener(moments(x), Regularisation.parse(how)), arithmetic=arithmetic), images, views
    )
    accuracy = 1e-8 if arithmetic == "float64" else 2e-4
    np.testing.assert_allclose(found.cosine, cosine, atol=accuracy)
    np.testing.assert_allclose(found.distance, distance, rtol=accuracy * 10, atol=accuracy)


@pytest.mark.parametrize("blocks", [3, 2048])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    monkeypatch.setattr(whitening, "BLOCK_ROWS", blocks)
    x = features(300, 10)
    images, views = pairs(8, 4, 10)
    cosine, distance = loop(x.mean(axis=0), np.cov(x, rowvar=False), images, views)
    found = agreement(Whitening(fit_whitener(moments(x), NONE)), images, views)
    np.testing.assert_allclose(found.cosine, cosine, atol=1e-9)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-9)


def test_whitened_training_features_have_identity_covariance() -> None:
    x = features(400, 30)
    z = Whitening(fit_whitener(moments(x), NONE))(x)
    np.testing.assert_allclose(np.cov(z, rowvar=False), np.eye(30), atol=1e-9)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-9)
    p = Whitening(fit_whitener(moments(x), Regularisation("components", 12)))(x)
    np.testing.assert_allclose(np.cov(p, rowvar=False), np.eye(12), atol=1e-9)


def test_identity_gives_one_and_no_distance() -> None:
    x = features(400, 30)
    images = features(6, 30, 5)
    for how in ("none", "ledoit-wolf", "components=7"):
        found = agreement(
            Whitening(fit_whitener(moments(x), Regularisation.parse(how))),
            images,
            images[:, None].repeat(3, 1),
        )
        np.testing.assert_allclose(found.cosine, 1, atol=1e-12)
        np.testing.assert_allclose(found.distance, 0, atol=1e-7)


def test_an_invertible_linear_map_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    x, (images, views) = features(500, 15), pairs(6, 5, 15)
    turn, move = rng.normal(size=(15, 15)) + 2 * np.eye(15), rng.normal(size=15)
    plain = agreement(Whitening(fit_whitener(moments(x), NONE)), images, views)
    mapped = agreement(
        Whitening(fit_whitener(moments(x @ turn + move), NONE)), images @ turn + move, views @ turn + move
    )
    np.testing.assert_allclose(mapped.cosine, plain.cosine, atol=1e-8)
    np.testing.assert_allclose(mapped.distance, plain.distance, rtol=1e-7)


def test_independent_features_give_zero_with_the_spread_of_unrelated_directions() -> None:
    d, rng = 256, np.random.default_rng(0)
    x = rng.normal(size=(20_000, d))
    images, views = rng.normal(size=(200, d)), rng.normal(size=(200, 20, d))
    cosine = agreement(Whitening(fit_whitener(moments(x), NONE)), images, views).cosine
    assert abs(cosine.mean()) < 5 / np.sqrt(d * cosine.size)
    assert cosine.std() == pytest.approx(1 / np.sqrt(d), rel=0.05)


def test_condition_is_that_of_what_is_inverted() -> None:
    for d in (40, 300):  # all eigenvalues, and the outer ones by Lanczos
        x = features(3 * d, d)
        found = fit_whitener(moments(x), Regularisation("ridge", 0.5))
        assert found.condition == pytest.approx(
            np.linalg.cond(np.cov(x, rowvar=False) + 0.5 * np.eye(d)), rel=1e-3
        )
    found = fit_whitener(moments(x), LEDOIT_WOLF)
    oracle = LedoitWolf().fit(x)
    assert found.condition == pytest.approx(np.linalg.cond(oracle.covariance_), rel=1e-3)
    assert found.shrinkage == pytest.approx(oracle.shrinkage_)


def test_fewer_images_than_dimensions() -> None:
    x = features(20, 50)
    for refused in ("none", "components=20"):
        with pytest.raises(Refused, match="20 images"):
            fit_whitener(moments(x), Regularisation.parse(refused))
    assert fit_whitener(moments(x), Regularisation("components", 19)).variance == pytest.approx(1)
    assert fit_whitener(moments(x), LEDOIT_WOLF).condition < 1e4
    # A small ridge lets every image of the sample be itself and everything else be unrelated to it.
    images, views = x[:5], x[:5, None] + 0.1 * np.random.default_rng(0).normal(size=(5, 4, 50))
    collapsed = agreement(Whitening(fit_whitener(moments(x), Regularisation("ridge", 1e-6))), images, views)
    assert np.abs(collapsed.cosine).max() < 0.1
    assert agreement(Whitening(fit_whitener(moments(x), LEDOIT_WOLF)), images, views).cosine.min() > 0.5


@pytest.mark.parametrize("arithmetic", ["float64", "float32"])
def test_a_feature_that_follows_from_others_is_rank_deficient(arithmetic: str) -> None:
    x = features(300, 10)
    x[:, 9] = x[:, 3] - x[:, 4]
    with pytest.raises(Refused, match="Rank-deficient"):
        fit_whitener(moments(x, arithmetic=arithmetic), NONE, arithmetic=arithmetic)
    x[:, 9] = 7.0
    with pytest.raises(Refused, match="ledoit-wolf"):
        fit_whitener(moments(x, arithmetic=arithmetic), NONE, arithmetic=arithmetic)
    with pytest.raises(Refused, match="rank 9"):
        fit_whitener(moments(x), Regularisation("components", 10))
    with pytest.raises(Refused, match="same feature"):
        fit_whitener(moments(np.ones((30, 4))), LEDOIT_WOLF)


def test_an_image_at_the_mean_has_no_direction() -> None:
    found = fit_whitener(moments(features(200, 6)), NONE)
    agreed = agreement(Whitening(found), found.mean[None], np.ones((1, 2, 6)))
    assert np.isnan(agreed.cosine).all() and np.isnan(agreed.images).all()
    assert (agreed.distance > 0).all()


@pytest.mark.parametrize(
    "text",
    ["", "ridge", "ridge=0", "ridge=-1", "ridge=x", "ridge=inf", "components=1.5", "components=0", "oas"],
)
def test_unknown_shrinkage_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="shrinkage"):
        Regularisation.parse(text)


def test_shrinkage_is_written_as_it_is_read() -> None:
    for text in ("ledoit-wolf", "none", "ridge=1e-06", "components=30"):
        assert str(Regularisation.parse(text)) == text


DEVICES = ["cpu:0", pytest.param("cuda:0", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("arithmetic", ["float64", "float32"])
@pytest.mark.parametrize("how", ["ledoit-wolf", "ridge=0.1", "none", "components=9"])
@pytest.mark.parametrize("device", DEVICES)
def test_the_device_route_equals_numpy(device: str, how: str, arithmetic: str) -> None:
    """Fitted there and fitted here, whitening features of the host and of the device."""
    x = features(300, 20)
    images, views = pairs(4, 6, 20)
    there = torch.from_numpy(x).to(device)
    regularisation, close = Regularisation.parse(how), 1e-10 if arithmetic == "float64" else 2e-5
    found = fit_whitener(moments(x), regularisation)
    truth = agreement(Whitening(found), images, views)
    rows = np.arange(300)[::-1]
    sums = moments(there, rows, arithmetic=arithmetic, device=device)
    fitted = fit_whitener(sums, regularisation, arithmetic=arithmetic)
    names = ("shrinkage", "condition", "variance")
    for name in names:
        assert getattr(fitted, name) == pytest.approx(getattr(found, name), rel=max(500 * close, 1e-6)), name
    assert (fitted.count, fitted.rank, fitted.method) == (found.count, found.rank, found.method)
    on_device = torch.from_numpy(images).to(device), torch.from_numpy(views).to(device)
    for whitener, inputs in ((found, (images, views)), (fitted, on_device)):
        other = whitening_on(device, whitener, arithmetic=arithmetic).agreement(*inputs)
        # float32 moments are off by its rounding, times what an inversion magnifies.
        bound = 10 * close if arithmetic == "float64" else np.finfo(np.float32).eps * found.condition + 2e-4
        np.testing.assert_allclose(other.cosine, truth.cosine, atol=bound)
        np.testing.assert_allclose(other.distance, truth.distance, rtol=bound)


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_shrinks_as_scikit_learn(device: str) -> None:
    for n, d in ((30, 50), (200, 8), (40, 1)):
        x = features(n, d, n)
        found = fit_whitener(moments(x, device=device), LEDOIT_WOLF).to_host()
        truth = LedoitWolf().fit(x)
        assert found.shrinkage == pytest.approx(truth.shrinkage_, abs=1e-9)
        np.testing.assert_allclose(found.factor @ found.factor.T, truth.covariance_, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
        assert found.condition == pytest.approx(np.linalg.cond(truth.covariance_), rel=1e-8)


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_refuses_what_the_cpu_refuses(device: str) -> None:
    few, constant = features(10, 20), np.ones((30, 4))
    flat = np.concatenate([features(60, 3), np.zeros((60, 1))], axis=1)
    cases = [
        (few, NONE), (few, Regularisation("components", 10)), (constant, LEDOIT_WOLF), (constant, NONE),
        (constant, Regularisation("components", 1)), (flat, NONE),
    ]  # fmt: skip
    for x, how in cases:
        with pytest.raises(Refused) as here:
            fit_whitener(moments(x), how)
        with pytest.raises(Refused) as there:
            fit_whitener(moments(x, device=device), how)
        assert str(there.value) == str(here.value)
    with pytest.raises(Refused, match="not finite"):
        moments(np.array([[1.0], [np.nan], [2.0]]), device=device)


@pytest.mark.parametrize("device", DEVICES)
def test_pairs_on_a_device_are_the_cpus(device: str) -> None:
    x = features(60, 7)
    first, second, groups = np.arange(0, 40), np.arange(20, 60), np.arange(40) // 3
    found = fit_whitener(moments(x), LEDOIT_WOLF)
    x[first[3]] = found.mean  # no direction, so no cosine
    here = whitening_on("cpu", found).compare(x, first, second)
    there = whitening_on(device, found).compare(torch.from_numpy(x).to(device), first, second)
    np.testing.assert_allclose(there.cosine, here.cosine, atol=1e-10)
    np.testing.assert_allclose(there.distance, here.distance, rtol=1e-10)
    defined = defined_rows(there.first, there.second)
    assert np.flatnonzero(~defined).tolist() == [3]
    rows = np.flatnonzero(defined)
    intervals = [
        mean_across_groups(taken(one.first, rows), taken(one.second, rows), groups[rows])
        for one in (here, there)
    ]
    assert intervals[1][0].mean == pytest.approx(intervals[0][0].mean, abs=1e-7)
    assert intervals[1][0].ci95 == pytest.approx(intervals[0][0].ci95, rel=1e-5)
    assert intervals[1][1] == intervals[0][1]


@pytest.mark.parametrize("arithmetic", ["float64", "float32"])
def test_statistics_that_cannot_be_written_to_are_uploaded_without_a_word(arithmetic: str) -> None:
    """As they come from a file that is mapped: torch warns of such memory, and may write to it."""
    found = fit_whitener(moments(features(300, 20)), Regularisation.parse("ledoit-wolf"))
    for array in (found.mean, found.factor):
        array.flags.writeable = False
    images = features(5, 20)
    images.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there = whitening_on("cpu:0", found, arithmetic=arithmetic)(images)
    np.testing.assert_allclose(there, Whitening(found, arithmetic=arithmetic)(images), rtol=1e-4, atol=1e-5)
