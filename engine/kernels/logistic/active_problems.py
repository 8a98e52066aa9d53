"""Problems of the batched solver that are waiting or being iterated, whichever driver iterates them.

`batched_lbfgs` drives them on the CPU, `device_lbfgs` on a CUDA device. They share the products with X, the
start of a problem and a step's effect on it.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels.logistic.design_matrix import DesignMatrix
from engine.kernels.logistic.lbfgs import History, KroneckerPreconditioner, Spectrum
from engine.kernels.logistic.line_search import ridge
from engine.kernels.logistic.loss import Targets, even_curvature
from engine.kernels.logistic.state import ActiveSet, Problems, Schedule

#: Pairs (step, change of the gradient) that L-BFGS stores.
MEMORY = 60
#: In float32, a problem that gains less than the tolerance over this many iterations is limited by rounding.
PATIENCE = 25
#: A fit has converged only if its last step gained at most this multiple of the tolerance.
MAX_LAST_GAIN = 5.0
#: A class's curvature, as a share of what it would be if all rows had the same probabilities, below which the
#: estimated decrement may be too small.
UNEVEN = 0.9
#: A class's curvature, as a share of what it would be if all rows had the same probabilities, below which
#: Hessian blocks have to confirm the decrement.
VERY_UNEVEN = 0.65
#: Factor by which the decrement may be underestimated with the Kronecker product.
ERROR_WITHOUT = 100.0
#: A fit is slow if its decrement has not fallen to this share of the previous one between two renewals.
SLOW = 0.1
#: New blocks are computed once the products with X since the last ones have cost this share of their price.
BLOCK_BUDGET = 0.1

H = TypeVar("H", bound=History)
K = TypeVar("K", bound=KroneckerPreconditioner)


class ActiveProblems:
    """The waiting problems and the active set.

    Attributes:
        _unsolved: bool [problems], scheduled and not yet solved.
        _history: pairs of the active set, which a driver makes.
    """

    _history: History

    def __init__(
        self,
        problems: Problems,
        schedule: Schedule,
        design: DesignMatrix,
        targets: Sequence[Targets],
        dtype: torch.dtype,
    ) -> None:
        self._all, self._design, self._targets, self._dtype = problems, design, targets, dtype
        self._product_dtype = torch.float64 if design.small else torch.float32
        self._waiting, self._weights = schedule.problems, schedule.weights
        self._unsolved = np.zeros(len(problems.C), dtype=bool)
        self._unsolved[schedule.problems] = True
        self._class_curvature = even_curvature(targets)
        none = torch.zeros(0, dtype=torch.int64, device=design.device)
        start = problems.theta[none]
        outputs = start.shape[1]
        predictors = [start.new_zeros(0, outputs, t.weight.shape[2], dtype=dtype) for t in targets]
        self._active = self._started(none, start, predictors, start.new_zeros(0), predictors, start)

    def _empty(self, spectrum: Spectrum, history: type[H], kronecker: type[K]) -> tuple[H, K]:
        """Return a history and a preconditioner of no problem yet, of a driver's own classes."""
        outputs, size = self._all.theta.shape[1:]
        none = self._all.theta.new_zeros(0, outputs, outputs)
        return (
            history(0, outputs * size, MEMORY, self._product_dtype, self._design.device),
            kronecker(spectrum, len(self._design), self._product_dtype, none),
        )

    @property
    def left(self) -> int:
        """The number of problems that are waiting or active."""
        return len(self._waiting) + len(self._active)

    def _take_waiting(self, free_slots: int) -> NDArray[np.intp]:
        """Remove from the waiting problems those that can start now, at most so many; return them."""
        unsolved = self._unsolved.reshape(-1, 1, len(self._weights))
        ready = ~((self._weights != 0) & unsolved).any(2).ravel()[self._waiting]
        ready &= np.cumsum(ready) <= free_slots
        index: NDArray[np.intp] = self._waiting[ready]
        self._waiting = self._waiting[~ready]
        return index

    def _products(self, direction: Tensor, theta: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return X times the directions and X times the starting weights, in one pass if possible."""
        if self._dtype == self._product_dtype:
            products = self._design.linear_predictors(torch.cat([direction, theta.to(self._dtype)]))
            return [b[: len(direction)] for b in products], [b[len(direction) :] for b in products]
        nothing = [z[:0] for z in self._active.predictors]
        images = (
            [i.to(self._dtype) for i in self._design.linear_predictors(direction)]
            if len(direction)
            else nothing
        )
        return images, self._design.linear_predictors(theta) if len(theta) else nothing

    def _gradient_sums(self, residuals: list[Tensor], starting: list[Tensor]) -> Tensor:
        """Return X^T times the residuals of the active set, then of the starting problems."""
        if self._dtype == self._product_dtype:
            pairs = zip(residuals, starting, strict=True)
            return self._design.transpose_products([torch.cat(pair) for pair in pairs])
        if len(starting[0]):
            return self._design.transpose_products(starting)
        pairs = zip(residuals, self._active.anchor, strict=True)
        changes = self._design.transpose_products([(r - a).to(self._product_dtype) for r, a in pairs])
        return self._active.sums + changes

    def _started(
        self,
        index: Tensor,
        theta: Tensor,
        predictors: list[Tensor],
        loss: Tensor,
        residuals: list[Tensor],
        sums: Tensor,
    ) -> ActiveSet:
        """Return the active set of problems that have been evaluated at their starting points."""
        task, C = self._all.task[index], self._all.C[index]
        unknown = torch.full_like(C, torch.inf)
        return ActiveSet(
            index=index,
            task=task,
            C=C,
            even_curvature=self._class_curvature[task],
            theta=theta,
            objective=C * loss + ridge(theta, theta) / 2,
            gradient=_gradient(C, sums, theta),
            sums=sums,
            predictors=predictors,
            anchor=[] if self._dtype == self._product_dtype else residuals,
            steps=torch.zeros_like(index),
            renewed=torch.zeros_like(index),
            past_objectives=unknown[:, None].expand(-1, PATIENCE),
            last_decrement=unknown,
            slow=torch.zeros_like(index, dtype=torch.bool),
        )

    def _step(self, step: Tensor, sums: Tensor) -> None:
        """Move the weights of the active set; the line search has already moved predictors and objectives."""
        active = self._active
        active.steps = active.steps + 1
        active.theta = active.theta + step
        gradient = _gradient(active.C, sums, active.theta)
        change = gradient - active.gradient
        active.gradient = gradient
        self._history.add(step.to(self._product_dtype).flatten(1), change.to(self._product_dtype).flatten(1))

    def _variances(self, active: ActiveSet) -> Tensor:
        """Return the weight p (1 - p) of every row, [P, K, n]."""
        blocks = zip(self._targets, active.predictors, strict=True)
        return torch.cat([target.of(active.task).variances(z) for target, z in blocks], dim=2)

    def _curvature(self, active: ActiveSet) -> Tensor:
        total: Tensor | float = 0.0
        for target, predictor in zip(self._targets, active.predictors, strict=True):
            total = total + target.of(active.task).curvature(predictor)
        return active.C[:, None, None] * total


def _gradient(C: Tensor, sums: Tensor, theta: Tensor) -> Tensor:
    gradient = C[:, None, None] * sums
    gradient[..., :-1] += theta[..., :-1]
    return gradient
