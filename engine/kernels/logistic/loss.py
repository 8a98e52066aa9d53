"""Logistic losses of many problems on one block of rows, exact where a row is classified with certainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """What the rows of one block should be.

    Attributes:
        code: of one task with K > 2 classes, bool [1, K, rows]: one-hot; of T tasks with two classes, in
            the linear predictors' precision [T, 1, rows]: +1 for class 0 and -1 for class 1.
        weight: [T, 1, rows]: of a row in the loss; 0 leaves it out.
    """

    code: Tensor
    weight: Tensor

    @classmethod
    def blocks(
        cls,
        codes: NDArray[np.intp],
        weights: NDArray[np.float64],
        classes: int,
        slices: Sequence[slice],
        dtype: torch.dtype,
        device: str,
    ) -> list["Targets"]:
        """Cut codes [T, n] (0 to K - 1; anything where the weight is 0) and weights [T, n] into blocks."""
        found = []
        for part in slices:
            code = torch.from_numpy(np.ascontiguousarray(codes[:, part])).to(device)[:, None]
            if classes > 2:
                kinds = torch.arange(classes, device=device)[None, :, None]
                code = code == kinds
            else:
                code = (1 - 2 * (code == 1).to(torch.int8)).to(dtype)
            weight = torch.from_numpy(np.ascontiguousarray(weights[:, part])).to(device, dtype)[:, None]
            found.append(cls(code, weight))
        return found

    def of(self, task: Tensor) -> "Targets":
        """For problems [P] of these tasks; one task serves all problems unrepeated."""
        return self if len(self.weight) == 1 else Targets(self.code[task], self.weight[task])

    def evaluate(self, predictor: Tensor) -> tuple[Tensor, Tensor]:
        """Loss float64 [P] and its derivative [P, K, rows] by the linear predictor [P, K, rows].

        Both come from the differences to the true class's predictor: a loss of 1e-9 keeps its digits, where
        a probability of 1 - 1e-9 in float32 would not. The loss is log(1 + sum of exp(differences)).
        """
        if self.code.is_floating_point():
            margin = predictor * self.code
            loss = -torch.nn.functional.logsigmoid(-margin)
            residual = torch.sigmoid(margin).mul_(self.code)
        else:
            true = torch.where(self.code, predictor, 0).sum(1, keepdim=True)
            margin = predictor - true
            top = margin.amax(1, keepdim=True)  # at least 0, the true class's own
            others = torch.exp_(margin.sub_(top)).masked_fill_(self.code, 0)
            own = torch.exp(-top)
            total = others.sum(1, keepdim=True)
            loss = top + torch.log1p(total + (own - 1))
            residual = others.div_(own + total)
            # The true class's residual is minus the sum of the others': p - 1 would cancel.
            residual = torch.where(self.code, -residual.sum(1, keepdim=True), residual)
        return (loss * self.weight).sum((1, 2), dtype=torch.float64), residual.mul_(self.weight)

    def curvature(self, predictor: Tensor) -> Tensor:
        """Weighted sum over the rows of the softmax Hessian diag(p) - p p^T: float64 [P, K, K]."""
        if self.code.is_floating_point():
            p = torch.sigmoid(predictor)
            return (p * (1 - p) * self.weight).sum(2, dtype=torch.float64)[:, None]
        p = torch.softmax(predictor, 1)
        weighted = p * self.weight
        cross = torch.bmm(weighted, p.transpose(1, 2)).double()
        return torch.diag_embed(weighted.sum(2, dtype=torch.float64)) - cross

    def variances(self, predictor: Tensor) -> Tensor:
        """Weighted p (1 - p) of every row: [P, K, rows], never negative."""
        p = torch.sigmoid(predictor) if self.code.is_floating_point() else torch.softmax(predictor, 1)
        return (p * (1 - p)).mul_(self.weight)

    def shares(self) -> Tensor:
        """Weight of the rows of each output's class and of all rows: float64 [T, K] and [T, 1]."""
        there = self.weight.double()
        own = (self.code < 0) if self.code.is_floating_point() else self.code
        return torch.cat([(own * there).sum(2), there.sum(2)], dim=1)
