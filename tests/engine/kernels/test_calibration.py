"""Calibration: scikit-learn, scipy and plain loops are the oracles."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn import metrics as oracle
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from engine.kernels.calibration import brier, class_calibration_error, scaled, temperature
from engine.kernels.metrics import Reliability


def logits(n: int, classes: int, seed: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, K] that are `sharpness` times too large for the labels drawn from them."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, classes))
    p = softmax(z, axis=1)
    labels = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return sharpness * z, labels


def loss(z: np.ndarray, labels: np.ndarray, value: float) -> float:
    return float(-log_softmax(z / value, axis=1)[np.arange(len(z)), labels].mean())


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(20, 200),
    classes=st.integers(2, 6),
    seed=st.integers(0, 10_000),
    sharpness=st.floats(0.02, 50),
)
def test_the_temperature_is_scipys_minimum(n: int, classes: int, seed: int, sharpness: float) -> None:
    z, labels = logits(n, classes, seed, sharpness)
    found = temperature(log_softmax(z, axis=1), labels)
    if math.isnan(found.value):
        assert found.reason
        return
    best = minimize_scalar(
        lambda x: loss(z, labels, math.exp(x)), bounds=(-12, 12), method="bounded", options={"xatol": 1e-10}
    )
    assert loss(z, labels, found.value) <= best.fun + 1e-12
    assert abs(math.log(found.value) - best.x) < 1e-5 or best.fun >= math.log(classes) - 1e-6


@pytest.mark.parametrize("classes", [2, 3])
def test_the_temperature_is_scikit_learns(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 600)
    x = rng.normal(0, 1.5, (600, 5)) + np.eye(5)[labels]
    model = LogisticRegression(C=1e-3).fit(x[:200], labels[:200])
    theirs = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(
        x[200:400], labels[200:400]
    )
    found = temperature(model.predict_log_proba(x[200:400]), labels[200:400])
    (inner,) = theirs.calibrated_classifiers_
    # scikit-learn takes (-x, x) of two classes' one score: its logits are twice as far apart.
    beta = inner.calibrators[0].beta_ * (2 if classes == 2 else 1)
    assert found.value == pytest.approx(1 / beta, rel=1e-6)
    mine = scaled(model.predict_proba(x[400:]), found.value)
    np.testing.assert_allclose(mine, theirs.predict_proba(x[400:]), atol=1e-7)


def test_true_temperatures_are_recovered() -> None:
    for sharpness in (0.25, 1.0, 4.0):
        z, labels = logits(20_000, 4, 1, sharpness)
        assert temperature(z, labels).value == pytest.approx(sharpness, rel=0.05)


def test_without_a_minimum_there_is_a_reason() -> None:
    z, labels = logits(50, 3, 0)
    right = z.argmax(axis=1)
    cases = {
        "correctly": (z, right),
        "chance": (-z, right),
        "one class": (z, np.zeros(50, int)),
        "no validation image": (z[:0], labels[:0]),
    }
    for words, (scores, truth) in cases.items():
        found = temperature(scores, truth)
        assert math.isnan(found.value) and words in found.reason
    assert "chance" in temperature(np.zeros((50, 3)), labels).reason


def test_probabilities_of_zero_stay_zero_and_do_not_break_the_fit() -> None:
    p = scaled(np.array([[0.0, 0.2, 0.8], [1.0, 0.0, 0.0]]), 2.0)
    np.testing.assert_allclose(p, [[0, 1 / 3, 2 / 3], [1, 0, 0]])
    with np.errstate(divide="ignore"):
        z = np.log(np.array([[0.0, 1.0], [0.3, 0.7], [0.9, 0.1], [0.6, 0.4]]))
    assert temperature(z, np.array([1, 1, 0, 1])).value > 0
    assert temperature(z, np.array([0, 1, 0, 1])).reason  # a true class of probability 0


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 60), classes=st.integers(2, 5), seed=st.integers(0, 10_000))
def test_brier_scores_are_scikit_learns(n: int, classes: int, seed: int) -> None:
    z, labels = logits(n, classes, seed)
    p = softmax(z, axis=1)
    if classes == 2:
        expected = oracle.brier_score_loss(labels == 1, p[:, 1], pos_label=True)
    else:
        expected = oracle.brier_score_loss(labels, p, labels=range(classes), scale_by_half="auto")
    assert brier(labels, p) == pytest.approx(expected, abs=1e-12)
    assert math.isnan(brier(labels[:0], p[:0]))


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 60), classes=st.integers(2, 4), seed=st.integers(0, 10_000))
def test_calibration_errors_are_a_loops(n: int, classes: int, seed: int) -> None:
    z, labels = logits(n, classes, seed)
    p = softmax(z, axis=1)

    def ece(outcome: np.ndarray, probability: np.ndarray) -> float:
        total = 0.0
        for m in range(15):
            inside = [i for i in range(n) if m / 15 < probability[i] <= (m + 1) / 15]
            total += abs(sum(float(outcome[i]) - float(probability[i]) for i in inside))
        return total / n

    errors = [ece(labels == c, p[:, c]) for c in range(classes)]
    assert class_calibration_error(labels, p) == pytest.approx(errors[1] if classes == 2 else np.mean(errors))
    top = Reliability.of(p.argmax(axis=1) == labels, p.max(axis=1)).error
    assert top == pytest.approx(ece(p.argmax(axis=1) == labels, p.max(axis=1)))
