"""The paired bootstrap against loops over resampled patients, scikit-learn, and scipy's BCa."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from engine.kernels.intervals.metrics_bootstrap import bootstrap_metrics
from engine.kernels.paired import bootstrap
from engine.kernels.paired.bootstrap import Areas, Ratios, interval_of, p_value, replicates, resample_weights
from engine.kernels.paired.weighted_areas import RankedRows


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 120), st.sampled_from([None, 0, 1]))
def test_weighted_areas_are_scikit_learns(seed: int, rows: int, digits: int | None) -> None:
    random = np.random.default_rng(seed)
    truth = random.permutation(np.arange(rows) < random.integers(1, rows))
    scores = random.normal(size=rows) + truth
    scores = scores if digits is None else np.round(scores, digits)
    units = random.integers(0, rows // 2, rows)
    ranked = RankedRows(truth, scores, units, rows // 2)
    weights = random.integers(0, 4, (rows // 2, 7)).astype(np.float32)
    areas, precisions = ranked.auroc(weights), ranked.average_precision(weights)
    for column in range(7):
        own = weights[units, column]
        if not own[truth].sum() or not own[~truth].sum():
            assert np.isnan(areas[column]) and np.isnan(precisions[column])
            continue
        assert areas[column] == pytest.approx(roc_auc_score(truth, scores, sample_weight=own), rel=1e-6)
        expected = average_precision_score(truth, scores, sample_weight=own)
        assert precisions[column] == pytest.approx(expected, rel=1e-6)


def test_replicates_equal_a_loop_over_resampled_patients() -> None:
    random = np.random.default_rng(3)
    groups = np.sort(random.integers(0, 20, 60))
    groups = np.unique(groups, return_inverse=True)[1]
    count = int(groups.max()) + 1
    truth = random.integers(0, 3, 60)
    scores = random.random((2, 60, 3)) + np.eye(3)[truth] * 0.3
    one_hot = np.eye(3)[truth]
    right = (scores.argmax(axis=2) == truth)[:, :, None] * one_hot
    sums = np.stack([[own[groups == g].sum(axis=0) for g in range(count)] for own in right])
    rows = np.stack([one_hot[groups == g].sum(axis=0) for g in range(count)])[None]
    areas = Areas(
        [[RankedRows(truth == c, own[:, c], groups, count) for c in range(3)] for own in scores], "auroc"
    )
    found = replicates(
        [Ratios(sums, rows, np.full(3, 1 / 3)), areas], resample_weights(count, 100, 5), threads=2
    )
    weights = np.concatenate(list(resample_weights(count, 100, 5)), axis=1)
    assert (weights.sum(axis=0) == count).all()
    for r in range(0, 100, 9):
        drawn = np.concatenate(
            [np.flatnonzero(groups == g) for g in np.repeat(np.arange(count), weights[:, r].astype(int))]
        )
        for model in range(2):
            own = scores[model][drawn]
            expected = balanced_accuracy_score(truth[drawn], own.argmax(axis=1))
            assert found[0][model, r] == pytest.approx(expected, rel=1e-12)
            expected = np.mean([roc_auc_score(truth[drawn] == c, own[:, c]) for c in range(3)])
            assert found[1][model, r] == pytest.approx(expected, rel=1e-6)


def test_the_resamples_are_those_of_the_probe() -> None:
    """One model's interval is the one that its probe's record has, for the same seed and patients."""
    random = np.random.default_rng(0)
    truth, groups = random.integers(0, 2, 90), np.repeat(np.arange(30), 3)
    probabilities = random.dirichlet([1, 1], 90)
    expected = bootstrap_metrics(truth, probabilities, groups, resamples=200, seed=4)["auroc"]
    rows = Areas([[RankedRows(truth == 1, probabilities[:, 1], groups, 30)]], "auroc")
    (own,) = replicates([rows], resample_weights(30, 200, 4))
    found = interval_of(own[0], 0.5)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_bca_is_scipys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A skewed mean; scipy computes bias and acceleration by itself, from the same resamples."""
    random = np.random.default_rng(2)
    data, count = random.exponential(size=40), 40
    weights = np.concatenate(list(resample_weights(count, 4000, 0)), axis=1).astype(int)
    resampled = np.array([np.repeat(data, own).mean() for own in weights.T])
    (left_out,) = replicates(
        [Ratios(data[None, :, None], np.ones((1, count, 1)), np.ones(1))], bootstrap.left_out_weights(count)
    )
    assert left_out[0] == pytest.approx([np.delete(data, place).mean() for place in range(count)])
    found = interval_of(resampled, float(data.mean()), left_out[0])
    result = stats.bootstrap(
        (data,), np.mean, n_resamples=0, bootstrap_result=_Distribution(resampled), method="BCa"
    )
    assert (found.low, found.high) == pytest.approx(tuple(result.confidence_interval), rel=1e-9)
    plain = interval_of(resampled, float(data.mean()))
    assert (plain.low, plain.high) == pytest.approx(tuple(np.percentile(resampled, [2.5, 97.5])))
    monkeypatch.setattr(bootstrap, "MOST_LEFT_OUT", 10)
    (parts,) = replicates(
        [Ratios(data[None, :, None], np.ones((1, count, 1)), np.ones(1))], bootstrap.left_out_weights(count)
    )
    assert parts[0] == pytest.approx([np.delete(data, range(4 * k, 4 * k + 4)).mean() for k in range(10)])


class _Distribution:
    def __init__(self, resampled: np.ndarray) -> None:
        self.bootstrap_distribution = resampled


def test_undefined_resamples_are_left_out_and_counted() -> None:
    found = interval_of(np.array([0.1, np.nan, 0.3, 0.2]), 0.2)
    assert found.left_out == 1 and found.low == pytest.approx(np.percentile([0.1, 0.3, 0.2], 2.5))
    none = interval_of(np.full(3, np.nan), 0.2)
    assert np.isnan(none.low) and "fewer than two" in none.reason
    assert "one side" in interval_of(np.array([0.3, 0.4]), 0.2, np.ones(3)).reason


def test_p_is_students() -> None:
    deviation = 0.02
    expected = stats.t.sf(0.05 / (deviation * np.sqrt(30 / 29)), 29) * 2
    assert p_value(-0.05, deviation, 30) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(p_value(0.0, 0.0, 30)) and np.isnan(p_value(0.1, 0.1, 1))
