"""Choosing the strength of a probe by its score on the validation part."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import Refused
from engine.evals.common.validity import Severity, ValidityIssue, issue
from engine.kernels import metrics
from stores.json_types import JsonObject
from stores.limits import check_number, check_whole

Select = Literal["accuracy", "mean-per-class", "auroc", "log-loss"]
SELECT: tuple[Select, ...] = ("accuracy", "mean-per-class", "auroc", "log-loss")

#: The study's grid: 45 values, a quarter of a decade apart.
C_MIN, C_MAX, VALUES = 1e-5, 1e6, 45
#: Limits of C, beyond which one term of the objective drowns the other; and how many values are tried.
C_LIMITS, MAX_VALUES = (1e-12, 1e12), 1000
#: Scores that differ by no more than this are equal; accuracies or AUROCs that are not differ by more.
_ROUNDING = 1e-11
#: End of the note that there are more features than images; every probe for which that is true has it.
NOT_UNIQUE = "without regularisation the solution would not be unique"


def grid(low: float = C_MIN, high: float = C_MAX, values: int = VALUES) -> tuple[float, ...]:
    """Return logarithmically spaced C, from strong to weak regularisation.

    Raises:
        Refused: bounds that are not positive and finite or in the wrong order, or no value.
    """
    if not 0 < low <= high < math.inf:
        raise Refused(
            f"C from {low:g} to {high:g}",
            "C is positive and finite, and the smallest comes first",
            f"the study's grid is --c-min {C_MIN:g} --c-max {C_MAX:g} --values {VALUES}",
        )
    check_number("smallest C", low, *C_LIMITS, f"the study's is --c-min {C_MIN:g}")
    check_number("largest C", high, *C_LIMITS, f"the study's is --c-max {C_MAX:g}")
    check_whole("values of C", values, 1, MAX_VALUES, f"the study took --values {VALUES}")
    if values < 1 or (values == 1) != (low == high):
        raise Refused(
            f"{values} values from {low:g} to {high:g}",
            "A grid has two values or more, or one where it starts and ends",
            f"the study took {VALUES}",
        )
    return tuple(float(f"{c:.12g}") for c in np.geomspace(low, high, values))


@dataclass(frozen=True)
class Sweep:
    """All fits on the train part.

    Attributes:
        select: the score C is chosen by.
        C: float64 [R], ascending.
        val_score: float64 [R]; a log loss is better where it is smaller.
        val_log_loss: float64 [R], which decides between equal scores; NaN where it is not defined.
        objective, gradient_norm: float64 [R], of the fits, on standardised features where these were used.
        iterations: int [R].
        converged: bool [R].
        best: position of the chosen C.
        constant: bool [R], fits that score all validation rows alike.
    """

    select: Select
    C: NDArray[np.float64]
    val_score: NDArray[np.float64]
    val_log_loss: NDArray[np.float64]
    objective: NDArray[np.float64]
    gradient_norm: NDArray[np.float64]
    iterations: NDArray[Any]
    converged: NDArray[np.bool_]
    best: int
    constant: NDArray[np.bool_]

    def to_dict(self) -> JsonObject:
        """Return all values of C, in the order of `C`."""
        names = ("C", "val_score", "val_log_loss", "objective", "gradient_norm", "iterations", "converged")
        return {name: getattr(self, name).tolist() for name in names}

    @property
    def flat(self) -> bool:
        """True if there are several values of C and all have the same validation score."""
        return len(self.C) > 1 and bool(_tied(self.val_score, self.select).all())

    @property
    def validity(self) -> Iterator[ValidityIssue]:
        """Issues of the choice and of the fits."""
        best = float(self.C[self.best])
        if self.flat:
            by = "the largest was taken" if self._same_loss else "chosen by log loss"
            text = f"Validation {self.select} is the same for all {len(self.C)} values of C: {by}"
            yield issue("flat_selection", text, float(self.val_score[self.best]))
        if self.constant[self.best]:
            yield issue(
                "constant_classifier",
                "Every fit scores all validation images alike: a constant classifier",
            )
        if self.edge:
            option = "--c-min" if self.best == 0 else "--c-max"
            severity: Severity = "note" if self.flat else "warning"
            remedy = f"widen the grid with {option}"
            yield issue("grid_edge", self.edge, best, severity=severity, remedy=remedy)
        stuck = int((~self.converged).sum())
        if stuck:
            text = f"{stuck} of {len(self.C)} fits did not converge"
            yield issue("fits_not_converged", text, stuck)

    @property
    def _same_loss(self) -> bool:
        return bool(np.isnan(self.val_log_loss).any() or _tied(self.val_log_loss, "log-loss").all())

    @property
    def edge(self) -> str:
        """A sentence where the chosen C is the first or last of several, or ""."""
        if len(self.C) < 2 or 0 < self.best < len(self.C) - 1:
            return ""
        side = "smallest" if self.best == 0 else "largest"
        C = f"{self.C[self.best]:g}"
        return f"The chosen C {C} is the {side} of the grid: a better one may lie beyond it"


def choose(
    C: Sequence[float] | NDArray[Any],
    values: ArrayLike,
    select: Select,
    losses: ArrayLike | None = None,
    constant: ArrayLike | None = None,
) -> int:
    """Return the position of the best score; of equal ones the better log loss, then the larger C.

    Where scores do not decide, strong regularisation would: it gives every image nearly the same probability.
    A fit that is constant is never chosen while another is not, whatever its score.

    Args:
        C: [R], in any order.
        values: [R] scores, none of them NaN.
        losses: [R] validation log losses; None or NaN do not decide.
        constant: bool [R], fits that score all rows alike.
    """
    strength = np.asarray(C, float)
    left = np.arange(len(strength))
    if constant is not None and not np.all(constant):
        left = np.flatnonzero(~np.asarray(constant, bool))
    left = left[_tied(np.asarray(values, float)[left], select)]
    if losses is not None and not np.isnan(np.asarray(losses, float)[left]).any():
        left = left[_tied(np.asarray(losses, float)[left], "log-loss")]
    return int(left[strength[left].argmax()])


def _tied(values: NDArray[np.float64], select: Select) -> NDArray[np.bool_]:
    """Mark the best of the values, and those that differ from it by rounding alone: bool [R]."""
    best = values.min() if select == "log-loss" else values.max()
    tied: NDArray[np.bool_] = np.abs(values - best) <= _ROUNDING * (abs(best) if select == "log-loss" else 1)
    return tied


def quality(
    truth: NDArray[np.integer[Any]],
    probabilities: NDArray[np.float64],
    select: Select,
    unseen: Sequence[int] = (),
) -> tuple[float, str]:
    """Return the score to select by, and why it is NaN or what it leaves out ("" if neither).

    Args:
        truth: [n] classes from 0.
        probabilities: float64 [n, classes].
        unseen: classes that the fit does not know; their probability is 0.
    """
    if select == "log-loss":
        return metrics.log_loss(truth, probabilities, unseen)
    if select == "auroc" and unseen:
        evaluation = metrics.Evaluation.of(truth, probabilities, unseen=unseen).classification
        return evaluation.auroc, evaluation.auroc_reason
    if select == "auroc":
        return metrics.auroc(truth, probabilities)
    predicted = probabilities.argmax(axis=1)
    measure = metrics.accuracy if select == "accuracy" else metrics.mean_per_class_accuracy
    return measure(truth, predicted), ""
