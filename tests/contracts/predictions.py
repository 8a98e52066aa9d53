"""Metrics computed again from tables of predictions, by numpy and scikit-learn."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score


def check_classes(table: pa.Table, reported: Mapping[str, Any]) -> None:
    """Compute accuracy, mean per-class accuracy and AUROC from truth, prediction and scores of classes."""
    truth, predicted = (np.array(table.column(name).to_pylist()) for name in ("truth", "predicted"))
    names = [n.removeprefix("score.") for n in table.column_names if n.startswith("score.")]
    scores = np.stack([table.column(f"score.{name}").to_numpy() for name in names], axis=1)
    assert (np.array(names)[scores.argmax(axis=1)] == predicted).all()
    assert scores.sum(axis=1) == pytest.approx(1)
    assert accuracy_score(truth, predicted) == pytest.approx(reported["accuracy"], rel=1e-12)
    balanced = balanced_accuracy_score(truth, predicted)
    assert balanced == pytest.approx(reported["mean_per_class_accuracy"], rel=1e-12)
    areas = [roc_auc_score(truth == name, scores[:, at]) for at, name in enumerate(names)]
    assert np.mean(areas) == pytest.approx(reported["auroc"], rel=1e-12)


def check_finding(table: pa.Table, name: str, reported: Mapping[str, Any]) -> None:
    """Compute accuracy and AUROC of one finding from the images for which it is not masked."""
    truth, predicted, score = (
        table.column(f"{column}.{name}").to_numpy() for column in ("truth", "predicted", "score")
    )
    there = ~np.isnan(truth)
    assert (np.isnan(predicted) == ~there).all() and (np.isnan(score) == ~there).all()
    truth, predicted, score = truth[there], predicted[there], score[there]
    assert set(truth.tolist()) <= {0.0, 1.0} and ((score > 0.5) == (predicted == 1)).all()
    assert accuracy_score(truth, predicted) == pytest.approx(reported["accuracy"], rel=1e-12)
    assert roc_auc_score(truth, score) == pytest.approx(reported["auroc"], rel=1e-12)
