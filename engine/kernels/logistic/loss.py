"""Logistic losses of many problems on a block of rows, accurate even for rows classified with certainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.runtime import placed


@dataclass(frozen=True)
class Targets:
    """Class labels and weights of the rows of one block.

    Attributes:
        code: for one task with K > 2 classes, one-hot bool [1, K, rows]; for T tasks with two classes
            [T, 1, rows], in the linear predictors' precision: +1 for class 0 and -1 for class 1.
        weight: [T, 1, rows], of each row in the loss; 0 excludes the row.
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
        """Cut codes [T, n] (0 to K - 1; arbitrary where the weight is 0) and weights [T, n] into blocks."""
        targets = []
        all_codes, all_weights = placed(codes, device), placed(weights, device)
        for rows in slices:
            code = all_codes[:, rows].contiguous()[:, None]
            if classes > 2:
                class_codes = torch.arange(classes, device=device)[None, :, None]
                code = code == class_codes
            else:
                code = (1 - 2 * (code == 1).to(torch.int8)).to(dtype)
            weight = all_weights[:, rows].contiguous().to(dtype)[:, None]
            targets.append(cls(code, weight))
        return targets

    def of(self, task: Tensor) -> "Targets":
        """Return the targets of problems [P] with these tasks; a single task is broadcast, not repeated."""
        return self if len(self.weight) == 1 else Targets(self.code[task], self.weight[task])

    def evaluate(self, predictor: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, float64 [P], and its derivative in the linear predictor, both [P, K, rows].

        Both are computed from differences to the true class's predictor, loss = log(1 + sum of
        exp(differences)): a loss of 1e-9 keeps its digits, while a probability of 1 - 1e-9 does not in
        float32.
        """
        if self.code.is_floating_point():
            margin = predictor * self.code
            loss = -torch.nn.functional.logsigmoid(-margin)
            residual = torch.sigmoid(margin).mul_(self.code)
        else:
            true = torch.where(self.code, predictor, 0).sum(1, keepdim=True)
            margin = predictor - true
            top = margin.amax(1, keepdim=True)  # at least 0, the true class's difference
            others = torch.exp_(margin.sub_(top)).masked_fill_(self.code, 0)
            true_exp = torch.exp(-top)
            total = others.sum(1, keepdim=True)
            loss = top + torch.log1p(total + (true_exp - 1))
            residual = others.div_(true_exp + total)
            # The true class's residual is minus the sum of the others: p - 1 would lose digits.
            residual = torch.where(self.code, -residual.sum(1, keepdim=True), residual)
        return (loss * self.weight).sum((1, 2), dtype=torch.float64), residual.mul_(self.weight)

    def curvature(self, predictor: Tensor) -> Tensor:
        """Return the weighted sum over rows of the softmax Hessian diag(p) - p p^T, float64 [P, K, K]."""
        if self.code.is_floating_point():
            p = torch.sigmoid(predictor)
            return (p * (1 - p) * self.weight).sum(2, dtype=torch.float64)[:, None]
        p = torch.softmax(predictor, 1)
        weighted = p * self.weight
        cross = torch.bmm(weighted, p.transpose(1, 2)).double()
        return torch.diag_embed(weighted.sum(2, dtype=torch.float64)) - cross

    def variances(self, predictor: Tensor) -> Tensor:
        """Return the weighted p (1 - p) of every row, [P, K, rows], never negative."""
        p = torch.sigmoid(predictor) if self.code.is_floating_point() else torch.softmax(predictor, 1)
        return (p * (1 - p)).mul_(self.weight)

    def shares(self) -> Tensor:
        """Return the total weight of each output's class and of all rows, float64 [T, K + 1]."""
        weight = self.weight.double()
        in_class = (self.code < 0) if self.code.is_floating_point() else self.code
        return torch.cat([(in_class * weight).sum(2), weight.sum(2)], dim=1)


def even_curvature(targets: Sequence[Targets]) -> Tensor:
    """Return sums of p (1 - p), float64 [T, K], as if each row's p were the share of the class."""
    sums = torch.stack([target.shares() for target in targets]).sum(0)
    class_weight, total_weight = sums[:, :-1], sums[:, -1:]
    return class_weight * (1 - class_weight / total_weight)
