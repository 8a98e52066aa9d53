"""Operating points: scikit-learn's ROC curve, scipy's Wilson interval and plain loops are the oracles."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, roc_curve

from benchmarks.simulations.strata import proportion_coverage
from engine.kernels.intervals.cluster_robust import ratio_interval
from engine.kernels.intervals.weighted_ranking import WeightedRanking
from engine.kernels.operating_points import (
    Roc,
    at_specificity,
    one_sided,
    proportion,
    youden,
)


def scored(n: int, seed: int, values: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and scores [n] with ties: `values` distinct scores at most."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    positive[:2] = True, False
    score = rng.normal(0, 1, n) + positive
    return positive, np.round(score * values / 6) / values


CASES = st.tuples(st.integers(2, 80), st.integers(0, 10_000), st.sampled_from([3, 20, 1000]))


@settings(deadline=None, max_examples=30)
@given(case=CASES, specificity=st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]))
def test_points_are_those_of_scikit_learns_curve(case: tuple[int, int, int], specificity: float) -> None:
    positive, score = scored(*case)
    fpr, tpr, threshold = roc_curve(positive, score, drop_intermediate=False)
    roc = Roc.of(positive, score)
    np.testing.assert_allclose(roc.sensitivity, tpr[1:])
    np.testing.assert_allclose(roc.false_positive_rate, fpr[1:])
    np.testing.assert_array_equal(roc.threshold, threshold[1:])

    found = at_specificity(positive, score, specificity)
    assert found.sensitivity == tpr[fpr <= 1 - specificity + 1e-12].max()
    assert found.specificity >= specificity - 1e-12
    chosen = youden(positive, score)
    index = tpr - fpr
    if index.max() <= 1e-9:
        assert "chance" in chosen.reason and math.isnan(chosen.threshold)
    else:
        assert chosen.threshold == threshold[np.flatnonzero(index >= index.max() - 1e-9)[0]]
    for point in (found, chosen):
        if not point.reason:
            (tn, fp), (fn, tp) = confusion_matrix(positive, score >= point.threshold, labels=[False, True])
            assert point.sensitivity == pytest.approx(tp / (tp + fn))
            assert point.specificity == pytest.approx(tn / (tn + fp))


def test_one_class_has_no_points() -> None:
    score = np.arange(4.0)
    for outcome, words in ((True, "negative"), (False, "positive")):
        positive = np.full(4, outcome)
        assert words in one_sided(positive)
        for point in (at_specificity(positive, score, 0.9), youden(positive, score)):
            assert words in point.reason and math.isnan(point.sensitivity)


@settings(deadline=None, max_examples=25)
@given(case=CASES, specificity=st.sampled_from([0.5, 0.9, 0.95]), seed=st.integers(0, 1000))
def test_weighted_sensitivities_are_those_of_repeated_rows(
    case: tuple[int, int, int], specificity: float, seed: int
) -> None:
    positive, score = scored(*case)
    weights = np.random.default_rng(seed).integers(0, 4, (len(score), 6)).astype(float)
    found = WeightedRanking.of(positive, score).areas(weights, specificity)[2]
    for r in range(6):
        again = np.repeat(np.arange(len(score)), weights[:, r].astype(int))
        if one_sided(positive[again]):
            assert math.isnan(found[r])
        else:
            assert found[r] == pytest.approx(
                at_specificity(positive[again], score[again], specificity).sensitivity
            )


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 200), hits=st.integers(0, 200))
def test_intervals_of_single_images_are_wilsons(n: int, hits: int) -> None:
    hits = min(hits, n)
    found = proportion(np.arange(n) < hits, np.arange(n))
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert found.value == hits / n and (found.images, found.patients) == (n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_intervals_of_patients_are_as_wide_as_the_cluster_robust_one() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(400), 5)
    hits = rng.random(2000) < rng.beta(2, 2, 400)[groups]
    found = proportion(hits, groups)
    robust = ratio_interval(np.bincount(groups, hits), np.bincount(groups).astype(float))
    assert found.high - found.low == pytest.approx(robust.high - robust.low, rel=0.01)
    alone = binomtest(int(hits.sum()), 2000).proportion_ci(method="wilson")
    assert found.high - found.low > 1.2 * (alone.high - alone.low)


def test_certainty_is_that_of_patients_not_of_images() -> None:
    found = proportion(np.full(50, True), np.arange(50) // 5)
    assert found.low == pytest.approx(binomtest(10, 10).proportion_ci(method="wilson").low)
    assert "one patient" in proportion(np.full(5, True), np.zeros(5, int)).reason
    empty = proportion(np.zeros(0, bool), np.zeros(0, int), "negative image")
    assert math.isnan(empty.value) and empty.reason == "there is no negative image"


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.8])
def test_intervals_of_patients_cover(share: float) -> None:
    assert 0.925 < proportion_coverage(600, share) < 0.985
