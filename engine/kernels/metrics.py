"""Metrics of a classification: accuracy, mean per-class accuracy, area under the ROC curve."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Classification:
    """Metrics as fractions; `auroc` is NaN where it is not defined, and `auroc_reason` says why."""

    accuracy: float
    mean_per_class_accuracy: float
    auroc: float
    auroc_reason: str = ""

    @classmethod
    def of(cls, truth: Codes, scores: NDArray[np.float64]) -> "Classification":
        """All metrics.

        Args:
            truth: [n] classes from 0.
            scores: [n, classes], larger is likelier; the largest is predicted, of ties the
                smaller class.
        """
        predicted = scores.argmax(axis=1)
        area, reason = auroc(truth, scores)
        return cls(accuracy(truth, predicted), mean_per_class_accuracy(truth, predicted), area, reason)

    def to_dict(self) -> dict[str, Any]:
        found = asdict(self)
        if not self.auroc_reason:
            del found["auroc_reason"]
        return found


def accuracy(truth: Codes, predicted: Codes) -> float:
    """Share of [n] predictions that are right; NaN if n = 0."""
    return float(np.mean(truth == predicted)) if len(truth) else math.nan


def mean_per_class_accuracy(truth: Codes, predicted: Codes) -> float:
    """Mean over the classes that occur in `truth` of the share found (balanced accuracy); NaN if n = 0."""
    if not len(truth):
        return math.nan
    _, code, counts = np.unique(truth, return_inverse=True, return_counts=True)
    right = np.bincount(code, weights=truth == predicted)
    return float(np.mean(right / counts))


def auroc(truth: Codes, scores: NDArray[np.float64]) -> tuple[float, str]:
    """Area under the ROC curve, and why it is NaN if it is.

    Two columns: of the second class. More: mean over classes of each against the rest (macro one-vs-rest).
    Ties count half.

    Args:
        truth: [n] classes from 0.
        scores: [n, classes].
    """
    classes = scores.shape[1]
    counts = np.bincount(truth, minlength=classes)
    if classes < 2 or counts.max(initial=0) == len(truth):
        return math.nan, "only one class occurs among the rows tested"
    if (counts == 0).any():
        missing = int((counts == 0).sum())
        return math.nan, f"{missing} of {classes} classes do not occur among the rows tested"
    if classes == 2:
        return _binary(truth == 1, scores[:, 1]), ""
    return float(np.mean([_binary(truth == c, scores[:, c]) for c in range(classes)])), ""


def _binary(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Mann-Whitney's U over the number of pairs, from midranks."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    n = int(positive.sum())
    u = ranks[place[positive]].sum() - n * (n + 1) / 2
    return float(u / (n * (len(scores) - n)))
