"""Curves are scikit-learn's; bands are those of a plain loop over repeated rows."""

import numpy as np
import pytest
from sklearn import metrics as oracle

from engine.kernels.intervals.curve_bands import precision_recall_curve, roc_curve
from engine.kernels.intervals.metrics_bootstrap import group_counts


def scored(values: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    positive = rng.random(90) < 0.3
    score = rng.normal(0, 1, 90) + positive
    return positive, np.round(score * values) / values, rng.integers(0, 30, 90)


@pytest.mark.parametrize("values", [2, 1000])
def test_curves_are_scikit_learns(values: int) -> None:
    positive, score, groups = scored(values)
    fpr, tpr, _ = oracle.roc_curve(positive, score, drop_intermediate=False)
    roc = roc_curve(positive, score, groups, 0)
    np.testing.assert_allclose((roc.x, roc.y), (fpr, tpr))
    precision, recall, _ = oracle.precision_recall_curve(positive, score)
    found = precision_recall_curve(positive, score, groups, 0)
    np.testing.assert_allclose((found.x, found.y), (recall[::-1][1:], precision[::-1][1:]))
    assert np.isnan(roc.low).all() and "needs two" in roc.reason


@pytest.mark.parametrize("values", [2, 1000])
def test_bands_are_those_of_repeated_rows(values: int) -> None:
    positive, score, groups = scored(values)
    codes = np.unique(groups, return_inverse=True)[1]
    (counts,) = group_counts(1, 40, codes.max() + 1, 90)
    places = np.linspace(0, 1, 101)
    sensitivity, precision = [], []
    for own in counts:
        again = np.repeat(np.arange(90), own[codes].astype(int))
        fpr, tpr, _ = oracle.roc_curve(positive[again], score[again], drop_intermediate=False)
        sensitivity.append([tpr[fpr <= place + 1e-9].max() for place in places])
        p, r, _ = oracle.precision_recall_curve(positive[again], score[again])
        p, r = p[:-1][::-1], r[:-1][::-1]
        precision.append([p[np.flatnonzero(r >= place - 1e-9)[0]] for place in places])
    for curve, values_at in ((roc_curve, sensitivity), (precision_recall_curve, precision)):
        found = curve(positive, score, groups, 40, 1)
        low, high = np.percentile(values_at, [2.5, 97.5], axis=0)
        np.testing.assert_allclose((found.low, found.high), (low, high))


def test_one_class_has_no_curve() -> None:
    found = roc_curve(np.full(5, True), np.arange(5.0), np.arange(5), 10)
    assert "negative" in found.reason and not len(found.x)
