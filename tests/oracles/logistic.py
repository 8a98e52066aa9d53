"""Logistic regression as it should be found: its objective in plain float64, its minimum by scikit-learn."""

import warnings

import numpy as np
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression


def objective(
    x: np.ndarray,
    y: np.ndarray,
    coef: np.ndarray,
    intercept: np.ndarray,
    C: float,
    weight: np.ndarray | None = None,
) -> float:
    """1/2 |W|^2 + C sum of weighted losses, of scikit-learn's coefficients (one row for two classes)."""
    z = x.astype(np.float64) @ coef.T + intercept
    if z.shape[1] == 1:
        losses = np.logaddexp(0.0, np.where(y[:, None] == 1, -z, z))[:, 0]
    else:
        losses = -log_softmax(z, axis=1)[np.arange(len(y)), y]
    weight = np.ones(len(y)) if weight is None else weight
    return float(0.5 * (coef**2).sum() + C * (weight * losses).sum())


def minimum(
    x: np.ndarray, y: np.ndarray, C: float, weight: np.ndarray | None = None
) -> tuple[float, LogisticRegression]:
    """The lowest objective that two of scikit-learn's solvers reach in float64, and that fit."""
    x = x.astype(np.float64)
    best: tuple[float, LogisticRegression] | None = None
    for solver in ("newton-cholesky", "lbfgs"):
        model = LogisticRegression(C=C, solver=solver, tol=1e-10, max_iter=3000)
        with warnings.catch_warnings():  # the lower of the two is taken, so either may give up
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.simplefilter("ignore", UserWarning)
            model.fit(x, y, sample_weight=weight)
        value = objective(x, y, model.coef_, model.intercept_, C, weight)
        if np.isfinite(value) and (best is None or value < best[0]):
            best = value, model
    assert best is not None
    return best
