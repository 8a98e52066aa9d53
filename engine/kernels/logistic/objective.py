"""The objective that every solver of the probe minimises, and its gradient, in float64: the judge of fits.

    f(W, b) = ||W||^2 / 2 + C sum_i s_i loss_i,

loss_i the cross-entropy of row i under softmax(W x_i + b), or for two classes, which have one weight vector,
under the logistic function. The intercept b is not penalised; s_i is 1, or for `balanced` classes rows /
(classes x rows of its class). This is scikit-learn's objective with its C. Where features are standardised,
W and the gradient are those of the standardised ones.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.kernels.standardize import Moments
from engine.kernels.vectors import Vectors

#: Bytes of float64 that a block of rows may take.
_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class Measured:
    """What R solutions are worth.

    Attributes:
        objective: float64 [R], f.
        gradient_norm: float64 [R], Euclidean norm of its gradient in W and b, features around their mean.
        slope: float64 [R], largest component of that gradient divided by f; the same for f and for its
            multiples, such as the mean form in which solvers state their tolerances.
    """

    objective: NDArray[np.float64]
    gradient_norm: NDArray[np.float64]
    slope: NDArray[np.float64]


def class_weights(targets: NDArray[np.integer[Any]], classes: int, balanced: bool) -> NDArray[np.float64]:
    """float64 [classes]: the weight s of a row of each class; 1, or rows / (classes x rows of the class).

    Args:
        targets: [n] codes from 0, every class among them if balanced.
    """
    if not balanced:
        return np.ones(classes)
    return len(targets) / (classes * np.bincount(targets, minlength=classes))


def measure(
    features: NDArray[Any],
    targets: NDArray[np.integer[Any]],
    C: ArrayLike,
    coef: NDArray[Any],
    intercept: NDArray[Any],
    *,
    rows: NDArray[np.intp] | None = None,
    balanced: bool = False,
    standardise: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Measured:
    """Objective and gradient of R solutions in one pass over the rows.

    Args:
        features: [N, d], any float type.
        targets: [N] codes from 0; rows with a negative one are left out.
        C: [R].
        coef, intercept: [R, K', d] and [R, K'], for the features as given; K' = 1 for two classes.
        rows: to look at; None for all.
        balanced: weigh classes.
        standardise: (mean, scale) [d] each.
    """
    rows = np.arange(len(targets)) if rows is None else rows
    rows = rows[targets[rows] >= 0]
    y = targets[rows]
    strength = np.asarray(C, np.float64)
    r, outputs, d = coef.shape
    weight = class_weights(y, max(2, outputs), balanced)[y]
    mean, scale = standardise or (Moments.of(features, rows).mean, np.ones(d))
    w = (coef.astype(np.float64) * scale).reshape(r * outputs, d)
    b = (intercept.astype(np.float64) + coef.astype(np.float64) @ mean).reshape(-1)
    loss, slope, offset = np.zeros(r), np.zeros_like(w), np.zeros_like(b)
    for start, block in Vectors(features, rows).blocks(max(64, _BLOCK_BYTES // (8 * max(d, 1)))):
        x = (block.astype(np.float64) - mean) / scale
        part = slice(start, start + len(x))
        each, residual = _losses((x @ w.T + b).reshape(len(x), r, outputs), y[part])
        residual = (residual * weight[part, None, None]).reshape(len(x), -1)
        loss += weight[part] @ each
        slope += residual.T @ x
        offset += residual.sum(axis=0)
    pull = np.repeat(strength, outputs)
    gradient = np.concatenate([w + pull[:, None] * slope, (pull * offset)[:, None]], axis=1).reshape(r, -1)
    objective = 0.5 * (w**2).reshape(r, -1).sum(axis=1) + strength * loss
    norm, largest = np.sqrt((gradient**2).sum(axis=1)), np.abs(gradient).max(axis=1)
    return Measured(objective, norm, largest / objective)


def _losses(
    logits: NDArray[np.float64], targets: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses [n, R] and their derivatives in the logits [n, R, K']."""
    n, _, outputs = logits.shape
    if outputs == 1:
        signed = np.where(targets == 1, logits[..., 0].T, -logits[..., 0].T).T
        small = np.exp(-np.abs(signed))
        wrong = np.where(signed >= 0, small, 1) / (1 + small)  # 1 - probability of the true class
        derivative = wrong * np.where(targets == 1, -1.0, 1.0)[:, None]
        return np.logaddexp(0, -signed), derivative[..., None]
    top = logits.max(axis=2, keepdims=True)
    shares = np.exp(logits - top)
    total = shares.sum(axis=2, keepdims=True)
    true = np.take_along_axis(logits, targets[:, None, None], axis=2)
    shares /= total
    shares[np.arange(n), :, targets] -= 1
    return (np.log(total) + top - true)[..., 0], shares
