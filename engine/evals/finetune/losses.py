"""Losses of finetuning: cross-entropy of classes, masked binary cross-entropy of findings.

A batch's loss is its weighted sum over labels divided by their number, not by the sum of the weights: its
gradient is then an unbiased estimate of that of all images, and that of a part of a batch adds up exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from engine.evals.probe.options import ClassWeight


def balanced_weights(codes: NDArray[np.integer], classes: int) -> NDArray[np.float64]:
    """Return rows / (classes that occur x rows of the class), float64 [classes]; 0 for one without rows.

    Args:
        codes: [n] of the rows trained on, negative where masked.
    """
    counts = np.bincount(codes[codes >= 0], minlength=classes).astype(np.float64)
    occurring = counts > 0
    weights = np.zeros(classes)
    weights[occurring] = counts.sum() / (occurring.sum() * counts[occurring])
    return weights


@dataclass(frozen=True, eq=False)
class Loss:
    """The loss of one task: of classes, or of several findings.

    Attributes:
        codes: int64 [N] classes of all rows, or int64 [N, T] of T findings; negative where masked.
        outputs: logits that the head gives: the number of classes, or of findings.
        weights: float32 [classes], or [T, 2] of negative and positive.
    """

    codes: torch.Tensor
    outputs: int
    weights: torch.Tensor

    @classmethod
    def of(
        cls, codes: NDArray[np.integer], classes: int, train: NDArray[np.intp], kind: ClassWeight
    ) -> "Loss":
        """Make a loss.

        Args:
            codes: as the attribute.
            classes: number of them; 2 for findings.
            train: intp [n], rows trained on.
            kind: `none`, or `balanced` by the rows trained on.
        """
        columns = codes[:, None] if codes.ndim == 1 else codes
        weights = np.ones((columns.shape[1], classes))
        if kind == "balanced":
            weights = np.stack([balanced_weights(column, classes) for column in columns[train].T])
        outputs = classes if codes.ndim == 1 else codes.shape[1]
        shaped = torch.tensor(weights[0] if codes.ndim == 1 else weights, dtype=torch.float32)
        return cls(torch.from_numpy(codes.astype(np.int64)), outputs, shaped)

    @property
    def of_findings(self) -> bool:
        """True for several findings, one-vs-rest."""
        return self.codes.ndim == 2

    def targets(self, rows: Sequence[int]) -> torch.Tensor:
        """Return the codes of rows: int64 [b] or [b, T], on the CPU."""
        return self.codes[torch.tensor(rows, dtype=torch.int64)]

    def count(self, targets: torch.Tensor) -> int:
        """Return the number of labels that are not masked."""
        return int((targets >= 0).sum())

    def total(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of the losses of all labels that are not masked, float32 []."""
        logits, weights = logits.float(), self.weights.to(logits.device)
        if not self.of_findings:
            losses = functional.cross_entropy(logits, targets.clamp(min=0), reduction="none")
            return (losses * weights[targets.clamp(min=0)] * (targets >= 0)).sum()
        positive = targets.clamp(min=0)
        losses = functional.binary_cross_entropy_with_logits(logits, positive.float(), reduction="none")
        factors = torch.where(positive == 1, weights[:, 1], weights[:, 0])
        return (losses * factors * (targets >= 0)).sum()

    def probabilities(self, logits: torch.Tensor) -> NDArray[np.float64]:
        """Return float64 probabilities: of classes [n, K], or of each finding's presence [n, T]."""
        logits = logits.double()
        values = logits.sigmoid() if self.of_findings else logits.softmax(dim=1)
        array: NDArray[np.float64] = values.cpu().numpy()
        return array
