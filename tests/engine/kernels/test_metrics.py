"""Metrics against scikit-learn's, and what must not change them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from engine.kernels.metrics import Classification, accuracy, auroc, mean_per_class_accuracy


def drawn(seed: int, n: int, classes: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth with every class in it, and scores with ties whose rows sum to 1."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), rng.integers(0, classes, n)])
    scores = rng.integers(0, levels, (len(truth), classes)).astype(float) + (np.eye(classes)[truth] + 0.25)
    return truth, scores / scores.sum(axis=1, keepdims=True)


sizes = {"seed": st.integers(0, 10_000), "n": st.integers(0, 60), "classes": st.integers(2, 6)}


@settings(max_examples=80, deadline=None)
@given(**sizes, levels=st.integers(1, 5))
def test_equal_scikit_learns(seed: int, n: int, classes: int, levels: int) -> None:
    truth, scores = drawn(seed, n, classes, levels)
    found = Classification.of(truth, scores)
    predicted = scores.argmax(axis=1)
    assert found.accuracy == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)
    assert found.mean_per_class_accuracy == pytest.approx(
        balanced_accuracy_score(truth, predicted), abs=1e-12
    )
    expected = (
        roc_auc_score(truth, scores[:, 1])
        if classes == 2
        else roc_auc_score(truth, scores, multi_class="ovr", average="macro")
    )
    assert found.auroc == pytest.approx(expected, abs=1e-12)
    assert "auroc_reason" not in found.to_dict()


@settings(max_examples=40, deadline=None)
@given(**sizes)
def test_order_of_rows_and_names_of_classes_do_not_matter(seed: int, n: int, classes: int) -> None:
    truth, scores = drawn(seed, n, classes, 50)
    rng = np.random.default_rng(seed)
    scores = scores + rng.random(scores.shape) * 1e-6  # no ties between classes of one row
    rows, names = rng.permutation(len(truth)), rng.permutation(classes)
    plain = Classification.of(truth, scores)
    back = np.argsort(names)
    moved = Classification.of(names[truth[rows]], scores[rows][:, back])
    assert moved.accuracy == pytest.approx(plain.accuracy, abs=1e-12)
    assert moved.mean_per_class_accuracy == pytest.approx(plain.mean_per_class_accuracy, abs=1e-12)
    if classes > 2:  # of two classes, the second one's scores alone are ranked
        assert moved.auroc == pytest.approx(plain.auroc, abs=1e-12)


def test_classes_absent_from_the_truth() -> None:
    truth, predicted = np.array([0, 0, 2, 2]), np.array([0, 1, 2, 2])
    with pytest.warns(UserWarning, match="not in y_true"):
        assert mean_per_class_accuracy(truth, predicted) == balanced_accuracy_score(truth, predicted) == 0.75
    area, reason = auroc(truth, np.eye(3)[predicted])
    assert math.isnan(area)
    assert reason.startswith("1 of 3 classes")


def test_one_class_only_is_nan_with_a_reason() -> None:
    found = Classification.of(np.array([1, 1]), np.array([[0.2, 0.8], [0.7, 0.3]])).to_dict()
    assert found["accuracy"] == 0.5
    assert math.isnan(found["auroc"])
    assert "only one class" in found["auroc_reason"]


def test_nothing_tested() -> None:
    none = np.array([], dtype=int)
    assert math.isnan(accuracy(none, none))
    assert math.isnan(mean_per_class_accuracy(none, none))
    assert math.isnan(auroc(none, np.empty((0, 3)))[0])
