"""Prototype few-shot against scikit-learn's NearestCentroid and against what must hold."""

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from engine.errors import Refused
from engine.evals.fewshot import Protocol, _episode, fewshot


def _clusters(
    n: int = 400, d: int = 16, classes: int = 6, spread: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, n)
    centres = generator.normal(size=(classes, d))
    return (centres[labels] + spread * generator.normal(size=(n, d))).astype(np.float32), labels


def test_each_episode_equals_nearest_centroid() -> None:
    features, labels = _clusters()
    protocol = Protocol(n_way=4, n_shot=5, n_query=7, episodes=50)
    rows = [np.flatnonzero(labels == c) for c in range(6)]
    for seed in range(20):
        ours = _episode(features, rows, protocol, np.random.default_rng(seed))
        generator = np.random.default_rng(seed)
        classes = generator.choice(6, 4, replace=False)
        drawn = np.stack([generator.choice(rows[c], 12, replace=False) for c in classes])
        x, y = features[drawn].astype(np.float64), np.repeat(np.arange(4), 12).reshape(4, 12)
        model = NearestCentroid().fit(x[:, :5].reshape(20, -1), y[:, :5].ravel())
        assert ours == pytest.approx(model.score(x[:, 5:].reshape(28, -1), y[:, 5:].ravel()), abs=1e-9)


def test_support_and_query_never_share_an_image() -> None:
    # every image is its own direction: a query equal to a support image would be found, others are at chance
    labels = np.repeat(np.arange(5), 8)
    features = np.eye(40, dtype=np.float32)
    found = fewshot(features, labels, Protocol(n_way=5, n_shot=4, n_query=4, episodes=200))
    assert found.accuracy == pytest.approx(0.2, abs=1e-9)  # ties go to the first prototype: one class of five


def test_random_features_give_chance_within_the_interval() -> None:
    features = np.random.default_rng(1).normal(size=(500, 32)).astype(np.float32)
    found = fewshot(features, np.arange(500) % 5, Protocol(episodes=600))
    assert abs(found.accuracy - 0.2) < 4 * found.ci95 / 1.96


def test_the_interval_is_the_classical_one() -> None:
    features, labels = _clusters(spread=3.0)
    found = fewshot(features, labels, Protocol(n_way=3, n_shot=2, n_query=3, episodes=100))
    assert found.ci95 == pytest.approx(1.96 * np.std(found.per_episode, ddof=1) / 10, rel=1e-12)


def test_failed_and_unlabelled_rows_are_masked_and_counted() -> None:
    features, labels = _clusters()
    protocol = Protocol(n_way=3, n_shot=5, n_query=5, episodes=20)
    features[:7] = np.nan
    labels[10:13] = -1
    found = fewshot(features, labels, protocol)
    assert (found.used, found.masked) == (390, 10)
    assert np.isfinite(found.per_episode).all()


def test_models_see_the_same_episodes() -> None:
    features, labels = _clusters(spread=2.0)
    protocol = Protocol(n_way=3, n_shot=2, n_query=5, episodes=50)
    one = fewshot(features, labels, protocol, data_set="a").per_episode
    rotated = fewshot(features[:, ::-1] * 2, labels, protocol, data_set="a").per_episode
    other = fewshot(features, labels, protocol, data_set="b").per_episode
    np.testing.assert_array_equal(one, rotated)  # distances scale alike, so equality means equal episodes
    assert (one != other).any()


def test_too_small_classes_are_refused_with_numbers() -> None:
    features, labels = _clusters(n=60)
    with pytest.raises(Refused, match=r"0 of 6 classes have 35 usable images"):
        fewshot(features, labels, Protocol())


@pytest.mark.parametrize("bad", [{"n_way": 1}, {"n_shot": 0}, {"n_query": 0}, {"episodes": 1}, {"seed": -1}])
def test_nonsense_protocols_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(Refused):
        Protocol(**bad)
