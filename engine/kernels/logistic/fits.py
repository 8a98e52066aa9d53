"""Fitted logistic regressions of one task along a path of regularisation values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.runtime import HostCopy, placed

#: Rows of a device tensor widened to float64 at a time.
_DEVICE_ROWS = 1 << 14


@dataclass(frozen=True)
class Fits:
    """Fits of one classification task with R values of C, in the order given by the caller.

    Attributes:
        C: float64 [R].
        coef: float64 [R, K', d] for the original features; K' = 1 for two classes, else K.
        intercept: float64 [R, K'].
        objective: float64 [R], equation (1).
        gradient_norm: float64 [R], Euclidean norm of the gradient of (1) in W and b, for centred and, with
            `standardise`, standardised features; b is the intercept at their mean.
        decrement: float64 [R], estimated (objective - minimum) / objective, times a safety factor where the
            estimate may be too small.
        iterations: int64 [R], pairs of products with X and X^T.
        converged: bool [R], whether the decrement is at most the tolerance.
        classes: K.
        rows: number of rows used.
        seconds: wall clock of the stages `prepare`, `spectrum`, `float32` and `float64` and, within these, of
            `products` with X and of computing Hessian `blocks`; for all tasks fitted together.
        flops: floating-point operations of the products with X, for all tasks fitted together.
    """

    C: NDArray[np.float64]
    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    objective: NDArray[np.float64]
    gradient_norm: NDArray[np.float64]
    decrement: NDArray[np.float64]
    iterations: NDArray[np.int64]
    converged: NDArray[np.bool_]
    classes: int
    rows: int
    seconds: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0

    @property
    def gap(self) -> NDArray[np.float64]:
        """Rigorous upper bound of objective - minimum, float64 [R]; far too large where C is large."""
        bound: NDArray[np.float64] = self.gradient_norm**2 / 2
        return bound

    def scores(self, features: Any, r: int, rows: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
        """Return class probabilities, float64 [n, K], of the fit with C[r]; see `path_scores`."""
        probabilities: NDArray[np.float64] = self.path_scores(features, rows, [r])[0]
        return probabilities

    def path_scores(
        self, features: Any, rows: NDArray[np.intp] | None = None, which: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """Return class probabilities, float64 [len(which), n, K], of several fits, reading the features once.

        Args:
            features: [N, d] as in `fit`; rows that are not finite give NaN. A tensor on a CUDA device is
                multiplied there, in float64, and the probabilities are downloaded at once.
            rows: positions of rows of the features; None means all.
            which: positions in C; None means all.
        """
        which = range(len(self.C)) if which is None else which
        rows = np.arange(len(features)) if rows is None else rows
        coef, intercept = self.coef[list(which)], self.intercept[list(which)]
        if isinstance(features, torch.Tensor) and features.device.type == "cuda":
            return _on_device(features, rows, coef, intercept)
        flat = coef.reshape(-1, coef.shape[-1]).T
        probabilities = np.empty((len(coef), len(rows), self.classes))
        for start in range(0, len(rows), 1024):
            block_rows = rows[start : start + 1024]
            block = features[block_rows]
            x = np.asarray(block.cpu() if isinstance(block, torch.Tensor) else block, dtype=np.float64)
            z = (x @ flat).reshape(len(x), *coef.shape[:2]).swapaxes(0, 1) + intercept[:, None]
            probabilities[:, start : start + len(x)] = _probabilities(z)
        return probabilities


def _on_device(
    features: torch.Tensor, rows: NDArray[np.intp], coef: NDArray[np.float64], intercept: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return class probabilities [R, n, K] of fits with coefficients [R, K', d] and intercepts [R, K']."""
    device = str(features.device)
    weights, positions = placed(coef.reshape(-1, coef.shape[-1]).T, device), placed(rows, device)
    offsets = placed(intercept.reshape(-1), device)
    parts = []
    for start in range(0, len(rows), _DEVICE_ROWS):
        block = features[positions[start : start + _DEVICE_ROWS]].double()
        z = (block @ weights + offsets).view(len(block), *coef.shape[:2]).transpose(0, 1)
        parts.append(torch.softmax(torch.cat([torch.zeros_like(z), z], 2) if z.shape[2] == 1 else z, 2))
    return np.asarray(HostCopy(torch.cat(parts, 1).contiguous()).wait().numpy())


def _probabilities(z: NDArray[np.float64]) -> NDArray[np.float64]:
    if z.shape[-1] == 1:
        z = np.concatenate([np.zeros_like(z), z], axis=-1)
    e = np.exp(z - z.max(-1, keepdims=True))
    probabilities: NDArray[np.float64] = e / e.sum(-1, keepdims=True)
    return probabilities
