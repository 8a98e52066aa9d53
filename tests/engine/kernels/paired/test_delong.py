"""DeLong against pROC's published example, MLstatkit's numbers, and loops over all pairs of images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from engine.kernels.paired.delong import Components, differences_of, mean_covariance, placements

#: The order of the 113 patients of pROC's data set aSAH by s100b and by wfns, the 41 with a poor outcome
#: first; it follows from the placements in pROC's tests.
S100B = """
8 5 11 7 25 30 28 2 19 4 2 23 21 27 30 15 30 30 30 2 30 17 0 4 13 30 15 30 3 15 8 5 6 13 30 9 30 18 30 30
25 8 9 5 1 26 12 5 5 1 3 1 4 6 2 12 2 6 8 12 1 11 9 20 4 29 26 11 2 24 26 6 3 4 3 1 8 5 9 10 1 1 4 1 4 3
11 4 3 19 6 16 2 5 18 2 1 14 22 5 10 3 9 5 2 1 12 10 26 12 10 29 27
"""
WFNS = """
2 1 3 4 4 4 4 1 4 1 0 1 4 3 3 1 4 4 4 1 4 1 4 1 3 4 3 3 0 3 3 1 1 4 4 1 1 4 4 4 4 0 0 0 0 4 0 1 1 0 1 1 0
0 0 1 0 1 0 0 2 3 0 3 0 4 4 0 0 1 3 0 0 1 1 0 1 0 1 1 0 0 0 0 1 0 1 0 0 2 1 3 1 0 3 0 0 4 3 1 1 0 0 0 2 0
1 1 3 3 0 0 0
"""


def scores_of(*texts: str) -> np.ndarray:
    return np.array([[float(word) for word in text.split()] for text in texts])


def test_procs_published_example() -> None:
    """Area, z and p of `roc.test(wfns, s100b)`, and the covariance, as pROC's own tests have them."""
    components = Components.of(np.arange(113) < 41, scores_of(S100B, WFNS))
    assert components.areas == pytest.approx([0.731368563685637, 0.823678861788618], abs=1e-14)
    assert components.covariance[0, 1] == pytest.approx(0.00119615567376754, rel=1e-12)
    tested = differences_of(components.areas, components.covariance)
    assert tested.z[1, 0] == pytest.approx(2.20898359144091, abs=1e-12)
    assert tested.p[0, 1] == pytest.approx(0.0271757822291882, abs=1e-12)


@pytest.mark.parametrize(
    ("ties", "z", "p", "variance"),
    [  # MLstatkit 0.1.91, Delong_test
        (False, 0.7612193835805093, 0.44652604248098604, 0.0025981221575983615),
        (True, 0.4835345133518325, 0.6287162600793723, 0.002654335641587068),
    ],
)
def test_mlstatkits_numbers(ties: bool, z: float, p: float, variance: float) -> None:
    random = np.random.RandomState(7)
    truth = random.uniform(size=150) < 0.3
    a = truth + random.standard_normal(150)
    b = 0.6 * truth + 0.5 * a + random.standard_normal(150)
    scores = np.round(np.stack([a, b]) * 2) / 2 if ties else np.stack([a, b])
    components = Components.of(truth, scores)
    assert np.array([-1, 1]) @ components.covariance @ [-1, 1] == pytest.approx(variance, rel=1e-12)
    tested = differences_of(components.areas, components.covariance)
    assert (tested.z[1, 0], tested.p[1, 0]) == pytest.approx((z, p), abs=1e-12)


def pairs_loop(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of pairs won by each positive and by each negative, pair by pair."""
    wins = [[1.0 if x > y else 0.5 if x == y else 0.0 for y in scores[~truth]] for x in scores[truth]]
    return np.mean(wins, axis=1), np.mean(wins, axis=0)


def obuchowski_loop(truth: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the covariance of Obuchowski 1997, cluster by cluster."""
    m, n, models = int(truth.sum()), int((~truth).sum()), len(scores)
    sums = {}
    for g in np.unique(groups):
        own = np.zeros((2, models))
        for model in range(models):
            v10, v01 = pairs_loop(truth, scores[model])
            own[0, model] = sum(v10[i] - v10.mean() for i in np.flatnonzero(groups[truth] == g))
            own[1, model] = sum(v01[j] - v01.mean() for j in np.flatnonzero(groups[~truth] == g))
        sums[g] = own
    with_positive, with_negative = len(set(groups[truth])), len(set(groups[~truth]))
    total = np.zeros((models, models))
    for own in sums.values():
        for a in range(models):
            for b in range(models):
                total[a, b] += with_positive / (with_positive - 1) * own[0, a] * own[0, b] / m**2
                total[a, b] += with_negative / (with_negative - 1) * own[1, a] * own[1, b] / n**2
                both = own[0, a] * own[1, b] + own[1, a] * own[0, b]
                total[a, b] += len(sums) / (len(sums) - 1) * both / (m * n)
    return total


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(6, 24), st.booleans())
def test_placements_and_covariances_equal_loops(seed: int, rows: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    truth = random.permutation(np.arange(rows) < random.integers(2, rows - 1))
    scores = random.normal(size=(3, rows)) + truth
    scores = np.round(scores) if ties else scores
    v10, v01 = pairs_loop(truth, scores[0])
    values = placements(truth, scores[0])
    np.testing.assert_allclose(values[truth], v10, atol=1e-12)
    np.testing.assert_allclose(values[~truth], v01, atol=1e-12)
    alone = Components.of(truth, scores)
    assert alone.areas == pytest.approx([roc_auc_score(truth, own) for own in scores], abs=1e-12)
    each = [pairs_loop(truth, own) for own in scores]
    expected = np.cov([a for a, _ in each]) / truth.sum() + np.cov([b for _, b in each]) / (~truth).sum()
    np.testing.assert_allclose(alone.covariance, expected, atol=1e-12)
    groups = random.integers(0, rows // 2 + 1, rows)
    clustered = Components.of(truth, scores, groups, rows)
    if not clustered.reason:
        np.testing.assert_allclose(clustered.covariance, obuchowski_loop(truth, scores, groups), atol=1e-10)


def test_the_variance_of_a_mean_over_findings_is_that_of_simulations() -> None:
    """Two findings of the same 60 patients with two images each, in 400 draws."""
    random, means, variances = np.random.default_rng(1), [], []
    groups = np.repeat(np.arange(60), 2)
    for _ in range(400):
        patient = np.repeat(random.normal(size=60), 2)
        parts = []
        for _ in range(2):
            truth = patient + random.normal(size=120) > 0.3
            parts.append(Components.of(truth, (patient + truth + random.normal(size=120))[None], groups))
        means.append(np.mean([part.areas[0] for part in parts]))
        variances.append(mean_covariance(parts)[0, 0])
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.2)
    assert mean_covariance(parts[:1])[0, 0] == parts[0].covariance[0, 0]


def test_undefined_comparisons_are_nan_with_a_reason() -> None:
    truth, scores = np.array([1, 0, 0, 1], bool), np.array([[0.3, 0.2, 0.1, 0.4], [0.3, 0.2, 0.1, 0.4]])
    lone = Components.of(truth, scores, np.array([0, 1, 2, 0]))
    assert "1 with positives and 2 with negatives" in lone.reason
    assert np.isnan(lone.covariance).all()
    assert np.isnan(mean_covariance([lone, Components.of(truth, scores, np.zeros(4, int), 3)])).sum() == 0
    assert np.isnan(mean_covariance([Components.of(truth, scores, np.zeros(4, int), 3)] * 2)).all()
    alike = Components.of(truth, np.random.default_rng(0).normal(size=(1, 4)).repeat(2, axis=0))
    assert np.isnan(differences_of(alike.areas, alike.covariance).p).all()
