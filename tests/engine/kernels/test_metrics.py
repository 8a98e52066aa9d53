"""Metrics against scikit-learn's, and what must not change them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from engine.errors import Refused
from engine.kernels.metrics import (
    Classification,
    Evaluation,
    Reliability,
    accuracy,
    auroc,
    mean_per_class_accuracy,
)


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
    assert found.accuracy == pytest.approx(sk.accuracy_score(truth, predicted), abs=1e-12)
    assert found.mean_per_class_accuracy == pytest.approx(
        sk.balanced_accuracy_score(truth, predicted), abs=1e-12
    )
    expected = (
        sk.roc_auc_score(truth, scores[:, 1])
        if classes == 2
        else sk.roc_auc_score(truth, scores, multi_class="ovr", average="macro")
    )
    assert found.auroc == pytest.approx(expected, abs=1e-12)
    assert "auroc_reason" not in found.to_dict()


@settings(max_examples=80, deadline=None)
@given(**sizes, levels=st.integers(1, 5))
def test_evaluation_equals_scikit_learns(seed: int, n: int, classes: int, levels: int) -> None:
    truth, scores = drawn(seed, n, classes, levels)
    found, one_hot = Evaluation.of(truth, scores), np.eye(classes)[truth]
    predicted = scores.argmax(axis=1)
    assert found.classification == Classification.of(truth, scores)
    np.testing.assert_allclose(found.class_auroc, sk.roc_auc_score(one_hot, scores, average=None), atol=1e-12)
    precisions = sk.average_precision_score(one_hot, scores, average=None)
    np.testing.assert_allclose(found.class_average_precision, precisions, atol=1e-12)
    wanted = precisions[1] if classes == 2 else precisions.mean()
    assert found.average_precision == pytest.approx(wanted, abs=1e-12)
    labels = np.arange(classes)
    assert found.log_loss == pytest.approx(sk.log_loss(truth, scores, labels=labels), abs=1e-12)
    np.testing.assert_array_equal(found.confusion, sk.confusion_matrix(truth, predicted, labels=labels))
    recalls = sk.recall_score(truth, predicted, labels=labels, average=None)
    np.testing.assert_allclose(found.class_accuracy, recalls, atol=1e-12)
    assert not any(found.class_reasons)
    assert not [name for name in found.to_dict([str(c) for c in labels]) if name.endswith("_reason")]


def calibration_error(truth: np.ndarray, scores: np.ndarray, bins: int = 15) -> float:
    """Guo et al. 2017, equation 3, as written there: a loop over bins (low, high]."""
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == truth
    total = 0.0
    for m in range(1, bins + 1):
        held = [i for i in range(len(truth)) if (m - 1) / bins < confidence[i] <= m / bins]
        if held:
            total += len(held) / len(truth) * abs(np.mean(right[held]) - np.mean(confidence[held]))
    return total


@settings(max_examples=60, deadline=None)
@given(**sizes, levels=st.integers(1, 40))
def test_calibration_error_is_equation_3(seed: int, n: int, classes: int, levels: int) -> None:
    truth, scores = drawn(seed, n, classes, levels)
    assert Evaluation.of(truth, scores).calibration_error == pytest.approx(
        calibration_error(truth, scores), abs=1e-12
    )


def test_reliability_of_two_classes_is_scikit_learns_calibration_curve() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(500)
    truth = (rng.random(500) < positive**2).astype(int)
    found = Evaluation.of(truth, np.stack([1 - positive, positive], axis=1)).reliability
    share, mean = calibration_curve(truth, positive, n_bins=15)
    np.testing.assert_allclose(found.frequency, share)
    np.testing.assert_allclose(found.probability, mean)
    assert found.count.sum() == 500


def test_probabilities_on_edges_and_empty_bins() -> None:
    found = Reliability.of(np.array([False, True, True]), np.array([0.0, 0.2, 1.0]), bins=5)
    assert found.count.tolist() == [2, 0, 0, 0, 1]
    assert np.isnan(found.frequency[1:4]).all()
    assert found.error == pytest.approx((2 * abs(0.5 - 0.1) + 0) / 3)


@settings(max_examples=40, deadline=None)
@given(**sizes)
def test_order_of_rows_and_names_of_classes_do_not_matter(seed: int, n: int, classes: int) -> None:
    truth, scores = drawn(seed, n, classes, 50)
    rng = np.random.default_rng(seed)
    scores = scores + rng.random(scores.shape) * 1e-6  # no ties between classes of one row
    rows, names = rng.permutation(len(truth)), rng.permutation(classes)
    plain = Evaluation.of(truth, scores)
    back = np.argsort(names)
    moved = Evaluation.of(names[truth[rows]], scores[rows][:, back])
    for name, value in moved.headline.items():
        if classes > 2 or name not in ("auroc", "average_precision"):  # of two, the second one's alone
            assert value == pytest.approx(plain.headline[name], abs=1e-9)
    np.testing.assert_allclose(moved.class_auroc, plain.class_auroc[back], atol=1e-12)


def test_classes_absent_from_the_truth() -> None:
    truth, predicted = np.array([0, 0, 2, 2]), np.array([0, 1, 2, 2])
    with pytest.warns(UserWarning, match="not in y_true"):
        expected = sk.balanced_accuracy_score(truth, predicted)
    assert mean_per_class_accuracy(truth, predicted) == expected == 0.75
    scores = np.eye(3)[predicted]
    area, reason = auroc(truth, scores)
    assert area == pytest.approx(np.mean([sk.roc_auc_score(truth == c, scores[:, c]) for c in (0, 2)]))
    assert reason == "mean over 2 of 3 classes: 1 cannot be ranked"
    found = Evaluation.of(truth, scores).to_dict(["a", "b", "c"])
    assert "does not occur" in found["per_class"][1]["reason"]
    assert math.isnan(found["per_class"][1]["auroc"])
    assert math.isnan(found["per_class"][1]["accuracy"])
    assert found["average_precision_reason"] == found["auroc_reason"] == reason


def test_one_class_only_is_nan_with_a_reason() -> None:
    scores = np.array([[0.2, 0.8], [0.7, 0.3]])
    for truth in (np.array([1, 1]), np.array([0, 0])):
        found = Classification.of(truth, scores).to_dict()
        assert found["accuracy"] == 0.5
        assert math.isnan(found["auroc"])
        assert "only one class" in found["auroc_reason"]
    assert "only one class" in auroc(np.array([1, 1]), np.eye(3)[[0, 1]])[1]


def test_a_class_never_trained_on_is_wrong_and_not_ranked() -> None:
    truth = np.array([0, 1, 2, 0])
    scores = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.5, 0.5, 0], [0.6, 0.4, 0]])
    found = Evaluation.of(truth, scores, unseen=[2])
    assert found.classification.accuracy == 0.75
    assert "mean over 2 of 3" in found.classification.auroc_reason
    assert found.class_reasons[2] == "no row trained on had it"
    assert math.isnan(found.log_loss)
    assert found.log_loss_reason.startswith("1 rows")


def test_a_probability_rounded_to_0_costs_a_finite_loss() -> None:
    truth, scores = np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]])
    assert Evaluation.of(truth, scores).log_loss == pytest.approx(sk.log_loss(truth, scores))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_probabilities_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(Refused, match="1 of 2 rows"):
        Evaluation.of(np.array([0, 1]), np.array([[0.5, 0.5], [bad, 0.5]]))


def test_nothing_tested() -> None:
    none = np.array([], dtype=int)
    assert math.isnan(accuracy(none, none))
    assert math.isnan(mean_per_class_accuracy(none, none))
    area, reason = auroc(none, np.empty((0, 3)))
    assert math.isnan(area)
    assert reason == "no row was tested"
    found = Evaluation.of(none, np.empty((0, 2)))
    assert all(math.isnan(value) for value in found.headline.values())
