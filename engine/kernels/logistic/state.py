"""What the lockstep solver works on: problems, the order in which they are solved, and those at work."""

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
        task: int64 [P], which targets.
        C: float64 [P], inverse regularisation.
        theta: float64 [P, K, d + 1], weights and intercept: start, then solution.
        objective, gradient_norm, decrement: float64 [P]; the decrement is the estimated height of the
            objective above its minimum, as a share of the objective.
        iterations: int64 [P].
        converged: bool [P], decrement at most the tolerance.
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
        """Not yet iterated."""
        unknown = torch.full_like(C, torch.inf)
        done = torch.zeros_like(task)
        return cls(task, C, theta, unknown, unknown.clone(), unknown.clone(), done, done.bool())

    def put(self, which: Tensor, others: "Problems") -> None:
        """Have some problems replaced."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[which] = getattr(others, name)


@dataclass(frozen=True)
class Order:
    """Which problems are solved, and where they start.

    Problems come in tasks of R each, one task after another.

    Attributes:
        problems: intp, in the order in which they begin.
        weights: float64 [R, R]. Problem r of a task begins at the sum of weights[r, s] times what problem s
            has found, once every such s is done; where the row is zero, at its own theta.
    """

    problems: NDArray[np.intp]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """When to stop, and how much to do at once.

    Attributes:
        tolerance: estimated relative distance from the minimum at which a problem has converged.
        iterations: of each problem.
        together: problems that are iterated at a time; others wait.
    """

    tolerance: float
    iterations: int
    together: int


@dataclass
class Active:
    """Problems being iterated, aligned: row p of every tensor belongs to problem index[p].

    Attributes:
        index, steps, renewed: int64 [P]; steps are iterations so far, in all and when the preconditioner was
            last renewed.
        even: float64 [P, K], curvature that the classes would have, were all rows alike.
        sums: float64 [P, K, d + 1], products of residuals and rows, at the start.
        predictors, anchor: of every block of rows [P, K, rows]; the anchor is the residuals at the start, or
            an empty list where changes are not counted from there.
        past: float64 [P, turns], objectives before the last steps.
        height: float64 [P], estimate when last looked at.
        slow: bool [P], it fell little since.
    """

    index: Tensor
    task: Tensor
    C: Tensor
    even: Tensor
    theta: Tensor
    objective: Tensor
    gradient: Tensor
    sums: Tensor
    predictors: list[Tensor]
    anchor: list[Tensor]
    steps: Tensor
    renewed: Tensor
    past: Tensor
    height: Tensor
    slow: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def take(self, which: Tensor) -> "Active":
        """Some of them."""
        return Active(*(_take(getattr(self, name), which) for name in self.__dataclass_fields__))

    def join(self, others: "Active") -> "Active":
        """These, then others."""
        names = self.__dataclass_fields__
        return Active(*(_join(getattr(self, name), getattr(others, name)) for name in names))


def _take(some: Any, which: Tensor) -> Any:
    return [each[which] for each in some] if isinstance(some, list) else some[which]


def _join(some: Any, others: Any) -> Any:
    if isinstance(some, list):
        return [torch.cat(pair) for pair in zip(some, others, strict=True)]
    return torch.cat([some, others])
