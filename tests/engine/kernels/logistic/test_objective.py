"""The objective against torch's cross-entropy and its gradient; scikit-learn's solution is its minimum."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from engine.kernels.logistic import objective
from engine.kernels.logistic.objective import class_weights, measure


def problem(seed: int, n: int, d: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(classes), rng.integers(0, classes, n)])
    return rng.normal(3, 2, (len(targets), d)) + 2 * rng.normal(size=(classes, d))[targets], targets


sizes = {
    "seed": st.integers(0, 1000),
    "n": st.integers(2, 60),
    "d": st.integers(1, 8),
    "classes": st.integers(2, 5),
    "balanced": st.booleans(),
    "standardised": st.booleans(),
}


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(**sizes)
def test_objective_and_gradient_are_torchs(
    seed: int, n: int, d: int, classes: int, balanced: bool, standardised: bool
) -> None:
    x, y = problem(seed, n, d, classes)
    rng = np.random.default_rng(seed)
    outputs = 1 if classes == 2 else classes
    C = np.array([1e-5, 0.7, 1e4])
    coef, intercept = rng.normal(size=(3, outputs, d)), rng.normal(size=(3, outputs))
    moments = (x.mean(axis=0), x.std(axis=0) + 0.1) if standardised else None
    found = measure(x, y, C, coef, intercept, balanced=balanced, standardise=moments)
    mean, scale = moments or (x.mean(axis=0), np.ones(d))
    weights = compute_class_weight("balanced" if balanced else None, classes=np.arange(classes), y=y)
    for r in range(3):
        w = torch.tensor(coef[r] * scale, requires_grad=True)
        b = torch.tensor(intercept[r] + coef[r] @ mean, requires_grad=True)
        logits = torch.tensor((x - mean) / scale) @ w.T + b
        if classes == 2:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        losses = functional.cross_entropy(logits, torch.tensor(y), reduction="none")
        value = 0.5 * (w**2).sum() + C[r] * (losses * torch.tensor(weights)[y]).sum()
        value.backward()
        gradient = torch.cat([w.grad.ravel(), b.grad.ravel()]).numpy()
        assert found.objective[r] == pytest.approx(value.item(), rel=1e-10)
        assert found.gradient_norm[r] == pytest.approx(np.linalg.norm(gradient), rel=1e-8, abs=1e-9)
        assert found.slope[r] == pytest.approx(np.abs(gradient).max() / value.item(), rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("balanced", [False, True])
def test_scikit_learns_solution_is_stationary(classes: int, balanced: bool) -> None:
    x, y = problem(0, 80, 5, classes)
    model = LogisticRegression(
        C=0.3, tol=1e-12, max_iter=10_000, class_weight="balanced" if balanced else None
    ).fit(x, y)
    found = measure(x, y, [0.3], model.coef_[None], model.intercept_[None], balanced=balanced)
    assert found.gradient_norm[0] < 1e-6 * found.objective[0]


def test_rows_masks_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = problem(1, 300, 4, 3)
    coef, intercept = np.random.default_rng(0).normal(size=(1, 3, 4)), np.zeros((1, 3))
    rows = np.arange(5, 200)
    plain = measure(x[rows], y[rows], [2.0], coef, intercept)
    masked = y.copy()
    masked[:5] = masked[200:] = -1
    for changed in (
        measure(x, y, [2.0], coef, intercept, rows=rows),
        measure(x, masked, [2.0], coef, intercept),
    ):
        assert changed.objective == pytest.approx(plain.objective, rel=1e-12)
    monkeypatch.setattr(objective, "_BLOCK_BYTES", 1)
    cut = measure(x, y, [2.0], coef, intercept, rows=rows)
    assert cut.gradient_norm == pytest.approx(plain.gradient_norm, rel=1e-12)


def test_huge_logits_stay_finite() -> None:
    x, y = np.array([[1e4], [-1e4]]), np.array([1, 0])
    right = measure(x, y, [1.0], np.array([[[1.0]]]), np.zeros((1, 1)))
    wrong = measure(x, 1 - y, [1.0], np.array([[[1.0]]]), np.zeros((1, 1)))
    assert right.objective[0] == pytest.approx(0.5)
    assert wrong.objective[0] == pytest.approx(0.5 + 2e4)


def test_balanced_weights_are_scikit_learns() -> None:
    y = np.array([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    assert class_weights(y, 3, True) == pytest.approx(expected)
