"""State of the batched solver: the problems, the schedule in which they are solved, and the active set."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass
class Problems:
    """P problems of K linear predictors each (one for two classes).

    Attributes:
        task: int64 [P], index of the task whose targets are fitted.
        C: float64 [P], inverse regularisation.
        theta: float64 [P, K, d + 1], weights and intercept: the starting point, then the solution.
        objective, gradient_norm, decrement: float64 [P]; the decrement is the estimated distance of the
            objective from its minimum, as a share of the objective.
        iterations: int64 [P].
        converged: bool [P], whether the decrement is at most the tolerance.
    """

    task: Tensor
    C: Tensor
    theta: Tensor
    objective: Tensor
    gradient_norm: Tensor
    decrement: Tensor
    iterations: Tensor
    converged: Tensor

    @classmethod
    def start(cls, task: Tensor, C: Tensor, theta: Tensor) -> "Problems":
        """Return problems at their starting points, before the first iteration."""
        unknown = torch.full_like(C, torch.inf)
        done = torch.zeros_like(task)
        return cls(task, C, theta, unknown, unknown.clone(), unknown.clone(), done, done.bool())

    def update(self, which: Tensor, others: "Problems") -> None:
        """Replace the problems `which` by others, in place."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[which] = getattr(others, name)


@dataclass(frozen=True)
class Schedule:
    """The problems to solve, in order, and their starting points.

    Problems come in tasks of R each, one task after another.

    Attributes:
        problems: intp, positions in the order in which they start.
        weights: float64 [R, R]. Problem r of a task starts at the sum over s of weights[r, s] times the
            solution of problem s, once all these are solved; if the row is zero, at its own theta.
    """

    problems: NDArray[np.intp]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """Stopping criteria, and the size of the active set.

    Attributes:
        tolerance: estimated relative distance from the minimum at which a problem has converged.
        iterations: at most, for each problem.
        batch_size: problems iterated at a time; the others wait.
    """

    tolerance: float
    iterations: int
    batch_size: int


@dataclass
class ActiveSet:
    """Problems being iterated, aligned: row p of every tensor belongs to problem index[p].

    Attributes:
        index: int64 [P], positions among all problems.
        even_curvature: float64 [P, K], each class's curvature if all rows had the same probabilities.
        sums: float64 [P, K, d + 1], products of residuals and rows at the starting point.
        predictors, anchor: a tensor [P, K, rows] for each block of rows; the anchor holds the residuals at
            the starting point, or is an empty list where gradients are not accumulated from there.
        steps, renewed: int64 [P], iterations so far, and iterations when the preconditioner was last renewed.
        past_objectives: float64 [P, patience], before each of the last steps.
        last_decrement: float64 [P], estimate at the last renewal.
        slow: bool [P], whether the decrement fell only little since the renewal before.
    """

    index: Tensor
    task: Tensor
    C: Tensor
    even_curvature: Tensor
    theta: Tensor
    objective: Tensor
    gradient: Tensor
    sums: Tensor
    predictors: list[Tensor]
    anchor: list[Tensor]
    steps: Tensor
    renewed: Tensor
    past_objectives: Tensor
    last_decrement: Tensor
    slow: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def take(self, which: Tensor) -> "ActiveSet":
        """Return the problems selected by a mask."""
        return ActiveSet(*(_take(getattr(self, name), which) for name in self.__dataclass_fields__))

    def join(self, others: "ActiveSet") -> "ActiveSet":
        """Return these problems followed by others."""
        names = self.__dataclass_fields__
        return ActiveSet(*(_join(getattr(self, name), getattr(others, name)) for name in names))


def _take(values: Any, which: Tensor) -> Any:
    return [tensor[which] for tensor in values] if isinstance(values, list) else values[which]


def _join(values: Any, others: Any) -> Any:
    if isinstance(values, list):
        return [torch.cat(pair) for pair in zip(values, others, strict=True)]
    return torch.cat([values, others])
