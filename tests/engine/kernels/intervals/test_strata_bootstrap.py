"""Metrics of resampled strata and their largest gap: scikit-learn on repeated rows and a plain loop."""

import math

import numpy as np
import pytest
from sklearn import metrics as oracle

from benchmarks.simulations import strata
from engine.kernels.intervals.metrics_bootstrap import SENSITIVITY, bootstrap_metrics, group_counts
from engine.kernels.intervals.strata_bootstrap import largest_gap, resampled_in_strata
from engine.kernels.operating_points import at_specificity


def answers(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth [n], probabilities [n, 2] and patients [n]."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    p = 1 / (1 + np.exp(-(rng.normal(0, 1, n) + 2 * truth - 1)))
    return truth, np.stack([1 - p, p], axis=1), rng.integers(0, n // 3, n)


def test_resampled_metrics_are_those_of_repeated_rows() -> None:
    truth, p, groups = answers(90, 0)
    rows_of = [np.arange(90)[np.arange(90) % 3 == s] for s in range(3)]
    found, reason = resampled_in_strata(truth, p, groups, rows_of, resamples=20, seed=3)
    assert not reason
    codes = np.unique(groups, return_inverse=True)[1]
    (counts,) = group_counts(3, 20, codes.max() + 1, 90)
    for r in range(20):
        for s, rows in enumerate(rows_of):
            again = np.repeat(rows, counts[r, codes[rows]].astype(int))
            assert found["accuracy"][r, s] == pytest.approx(np.mean(p[again].argmax(1) == truth[again]))
            assert found["auroc"][r, s] == pytest.approx(oracle.roc_auc_score(truth[again], p[again, 1]))
            assert found["log_loss"][r, s] == pytest.approx(oracle.log_loss(truth[again], p[again]))


def test_sensitivities_are_bootstrapped_with_the_other_metrics() -> None:
    truth, p, groups = answers(120, 1)
    plain = bootstrap_metrics(truth, p, groups, resamples=50, seed=2)
    found = bootstrap_metrics(truth, p, groups, resamples=50, seed=2, specificity=0.9)
    assert {name: found[name] for name in plain} == plain
    codes = np.unique(groups, return_inverse=True)[1]
    (counts,) = group_counts(2, 50, codes.max() + 1, 120)
    values = []
    for own in counts:
        again = np.repeat(np.arange(120), own[codes].astype(int))
        values.append(at_specificity(truth[again] == 1, p[again, 1], 0.9).sensitivity)
    interval = found[SENSITIVITY]
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


def test_the_gap_is_a_loops() -> None:
    rng = np.random.default_rng(0)
    values = np.array([0.7, math.nan, 0.9, 0.8])
    resampled = values + rng.normal(0, [0.05, 1, 0.02, 0.1], (400, 4))
    found = largest_gap(values, resampled)
    pairs = [(0, 2), (0, 3), (2, 3)]
    sd = {(a, b): np.std(resampled[:, a] - resampled[:, b], ddof=1) for a, b in pairs}
    worst = [
        max(abs(row[a] - row[b] - (values[a] - values[b])) / sd[a, b] for a, b in pairs) for row in resampled
    ]
    half = np.percentile(worst, 95) * sd[0, 2]
    assert (found.highest, found.lowest, found.strata) == (2, 0, 3)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2 - half, 0.2 + half))


def test_gaps_without_an_interval_say_why() -> None:
    assert "needs two" in largest_gap([0.5, math.nan], None).reason
    assert largest_gap([0.5, 0.6], None, "none drawn").reason == "none drawn"
    undefined = np.full((10, 2), math.nan)
    assert "0 of 10 resamples" in largest_gap([0.5, 0.6], undefined).reason
    same = largest_gap([1.0, 0.5], np.tile([1.0, 0.5], (10, 1)))
    assert same.value == 0.5 and math.isnan(same.low) and "same" in same.reason
    assert "needs two" in resampled_in_strata(
        np.array([0, 1]), np.eye(2), np.array([4, 4]), [np.arange(2)], resamples=5
    )[1]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("count", "studies"), [(2, 40), pytest.param(5, 300, marks=pytest.mark.thorough)])
def test_gaps_of_equal_strata_are_seldom_told_apart(count: int, studies: int) -> None:
    """The largest of all gaps is chosen, and yet 0 is outside of its interval in about 5 % of the cases."""
    assert max(strata.false_gaps(studies, count, 200).values()) <= 0.05 + 4 * (0.05 * 0.95 / studies) ** 0.5
