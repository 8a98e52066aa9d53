"""Classification metrics, from true classes and a score for every class.

An undefined metric is NaN and comes with a reason. If some classes do not occur among the rows tested, a mean
over classes is taken over the others, and its reason gives their number.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from stores.json_types import JsonObject

Codes = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]

#: Equal-width bins of the calibration error, as in Guo et al.
CALIBRATION_BINS = 15
#: Why a class cannot be ranked if all rows are of this class.
ALONE = "only one class occurs among the rows tested"


@dataclass(frozen=True)
class Classification:
    """Metrics as fractions.

    Attributes:
        auroc: NaN if undefined.
        auroc_reason: why `auroc` is NaN, or that its mean leaves out classes; "" otherwise.
    """

    accuracy: float
    mean_per_class_accuracy: float
    auroc: float
    auroc_reason: str = ""

    @classmethod
    def of(cls, truth: Codes, scores: Floats) -> "Classification":
        """Compute all metrics.

        Args:
            truth: [n] classes from 0.
            scores: [n, classes], larger is likelier. The class with the largest score is predicted, the
                smaller class in a tie.
        """
        predicted = scores.argmax(axis=1)
        area, reason = auroc(truth, scores)
        return cls(accuracy(truth, predicted), mean_per_class_accuracy(truth, predicted), area, reason)

    def to_dict(self) -> JsonObject:
        """Return all metrics for JSON; `auroc_reason` only if there is one."""
        fields = asdict(self)
        if not self.auroc_reason:
            del fields["auroc_reason"]
        return fields


@dataclass(frozen=True)
class Reliability:
    """Observed frequency of predicted probabilities, in M bins of equal width ((m - 1) / M, m / M].

    Attributes:
        count: int64 [M], rows whose probability is in the bin (0 is in the first).
        probability: float64 [M], mean probability in the bin; NaN if it is empty.
        frequency: float64 [M], share of rows with the outcome; NaN if it is empty.
    """

    count: NDArray[np.int64]
    probability: Floats
    frequency: Floats

    @classmethod
    def of(
        cls, outcome: NDArray[np.bool_], probability: Floats, bins: int = CALIBRATION_BINS
    ) -> "Reliability":
        """Compute from [n] outcomes and their predicted probabilities [n]."""
        bins_of_rows = bin_of(probability, bins)
        count = np.bincount(bins_of_rows, minlength=bins)
        with np.errstate(invalid="ignore"):
            mean = np.bincount(bins_of_rows, probability, bins) / count
            frequency = np.bincount(bins_of_rows, outcome, bins) / count
        return cls(count, mean, frequency)

    @property
    def error(self) -> float:
        """Mean of |frequency - probability| over the rows; NaN if there are none."""
        filled = self.count > 0
        if not filled.any():
            return math.nan
        gaps = np.abs(self.frequency[filled] - self.probability[filled])
        return float((gaps * self.count[filled]).sum() / self.count.sum())

    def to_dict(self) -> JsonObject:
        """Return the bins for JSON."""
        return {name: getattr(self, name).tolist() for name in ("count", "probability", "frequency")}


@dataclass(frozen=True)
class Evaluation:
    """All metrics of predicted probabilities on n rows; classes in the order of the columns.

    Attributes:
        classification: accuracy, mean per-class accuracy, AUROC.
        average_precision: mean over classes; with two classes, that of the second. `_reason` as
            `auroc_reason`.
        log_loss: mean of -ln(probability of the true class), nats; `_reason` says why it is NaN.
        calibration_error: expected calibration error of the predicted class's probability, 15 equal-width
            bins (Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599, equation 3).
        reliability: of the second class's probability if there are two classes, else of the predicted
            class's.
        confusion: int64 [K, K], number of rows of true class i predicted as j.
        class_auroc, class_average_precision: float64 [K], each class against the rest.
        class_reasons: why these are NaN; "" if they are numbers.
    """

    classification: Classification
    average_precision: float
    average_precision_reason: str
    log_loss: float
    log_loss_reason: str
    calibration_error: float
    reliability: Reliability
    confusion: NDArray[np.int64]
    class_auroc: Floats
    class_average_precision: Floats
    class_reasons: tuple[str, ...]

    @classmethod
    def of(cls, truth: Codes, probabilities: Floats, *, unseen: Sequence[int] = ()) -> "Evaluation":
        """Compute all metrics.

        Args:
            truth: [n] classes from 0.
            probabilities: [n, K], rows sum to 1. The class with the largest one is predicted, the smaller
                class in a tie.
            unseen: classes without training rows. Their probability is 0 by construction, so that their rows
                count as wrong, and they have no AUROC, average precision or log loss.

        Raises:
            Refused: a probability that is not finite.
        """
        refuse_not_finite(probabilities)
        classes = probabilities.shape[1]
        reasons = undefined_reasons(truth, classes, unseen)
        areas = np.full((2, classes), np.nan)
        for c in (c for c in range(classes) if not reasons[c]):
            positive, column = truth == c, probabilities[:, c]
            areas[:, c] = _binary(positive, column), average_precision(positive, column)
        predicted = probabilities.argmax(axis=1)
        area, area_reason = mean_over_classes(areas[0], reasons)
        precision, precision_reason = mean_over_classes(areas[1], reasons)
        loss, loss_reason = log_loss(truth, probabilities, unseen)
        top = Reliability.of(predicted == truth, probabilities.max(axis=1))
        return cls(
            Classification(
                accuracy(truth, predicted), mean_per_class_accuracy(truth, predicted), area, area_reason
            ),
            precision,
            precision_reason,
            loss,
            loss_reason,
            top.error,
            Reliability.of(truth == 1, probabilities[:, 1]) if classes == 2 else top,
            confusion(truth, predicted, classes),
            areas[0],
            areas[1],
            reasons,
        )

    @property
    def class_accuracy(self) -> Floats:
        """Recall of each class, float64 [K]; NaN for a class without rows."""
        with np.errstate(invalid="ignore"):
            recall: Floats = np.diag(self.confusion) / self.confusion.sum(axis=1)
        return recall

    @property
    def headline(self) -> dict[str, float]:
        """The metrics that `bootstrap_metrics` gives intervals for, by name."""
        classification = self.classification
        return {
            "accuracy": classification.accuracy,
            "mean_per_class_accuracy": classification.mean_per_class_accuracy,
            "auroc": classification.auroc,
            "average_precision": self.average_precision,
            "log_loss": self.log_loss,
            "calibration_error": self.calibration_error,
        }

    def to_dict(self, names: Sequence[str]) -> JsonObject:
        """Return the metrics for a record: headline, reasons if any, and each class under its name."""
        reasons = {
            "auroc_reason": self.classification.auroc_reason,
            "average_precision_reason": self.average_precision_reason,
            "log_loss_reason": self.log_loss_reason,
        }
        columns = (self.class_accuracy, self.class_auroc, self.class_average_precision)
        rows = zip(names, self.confusion.sum(axis=1), *columns, self.class_reasons, strict=True)
        return {
            **self.headline,
            **{name: reason for name, reason in reasons.items() if reason},
            "images": int(self.confusion.sum()),
            "per_class": [
                {
                    "class": name,
                    "images": int(images),
                    "accuracy": float(recall),
                    "auroc": float(area),
                    "average_precision": float(precision),
                    **({"reason": reason} if reason else {}),
                }
                for name, images, recall, area, precision, reason in rows
            ],
            "confusion_matrix": self.confusion.tolist(),
            "reliability": self.reliability.to_dict(),
        }


def accuracy(truth: Codes, predicted: Codes) -> float:
    """Return the share of [n] predictions that are correct; NaN if n = 0."""
    return float(np.mean(truth == predicted)) if len(truth) else math.nan


def mean_per_class_accuracy(truth: Codes, predicted: Codes) -> float:
    """Return the mean recall of the classes that occur in `truth` (balanced accuracy); NaN if n = 0."""
    if not len(truth):
        return math.nan
    _, code, counts = np.unique(truth, return_inverse=True, return_counts=True)
    correct = np.bincount(code, weights=truth == predicted)
    return float(np.mean(correct / counts))


def auroc(truth: Codes, scores: Floats) -> tuple[float, str]:
    """Return the area under the ROC curve, and the reason if it is NaN or leaves classes out.

    With two columns it is that of the second class, with more the mean over classes, each against the rest
    (macro one-vs-rest). Ties count half.

    Args:
        truth: [n] classes from 0.
        scores: [n, classes].
    """
    classes = scores.shape[1]
    reasons = undefined_reasons(truth, classes)
    areas = np.array([math.nan if reasons[c] else _binary(truth == c, scores[:, c]) for c in range(classes)])
    return mean_over_classes(areas, reasons)


def average_precision(positive: NDArray[np.bool_], scores: Floats) -> float:
    """Return the average precision: the sum over thresholds of the gain in recall times the precision.

    Rows with equal scores share a threshold.

    Args:
        positive: bool [n], with at least one True and one False.
        scores: [n].
    """
    _, threshold, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    true_positives = np.bincount(threshold, weights=positive)
    precision = np.cumsum(true_positives) / np.cumsum(counts)
    return float((true_positives * precision).sum() / positive.sum())


def log_loss(truth: Codes, probabilities: Floats, unseen: Sequence[int] = ()) -> tuple[float, str]:
    """Return the mean of -ln(probability of the true class), and the reason if it is NaN.

    Probabilities are clipped to [2^-52, 1 - 2^-52], so that one rounded to 0 costs 36 instead of infinity.
    """
    if not len(truth):
        return math.nan, "no row was tested"
    impossible = int(np.isin(truth, np.asarray(unseen, dtype=np.int64)).sum())
    if impossible:
        return math.nan, f"{impossible} rows are of classes that no row trained on had"
    eps = float(np.finfo(np.float64).eps)
    true_probability = np.clip(probabilities[np.arange(len(truth)), truth].astype(np.float64), eps, 1 - eps)
    return float(-np.log(true_probability).mean()), ""


def confusion(truth: Codes, predicted: Codes, classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix, int64 [classes, classes]: rows of true class i predicted as j."""
    cells = truth.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def bin_of(probability: Floats, bins: int) -> NDArray[np.int64]:
    """Return the bin ((m - 1) / bins, m / bins] of each probability, numbered from 0; 0 is in the first."""
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    return np.searchsorted(edges, probability, side="left").astype(np.int64)


def undefined_reasons(truth: Codes, classes: int, unseen: Sequence[int] = ()) -> tuple[str, ...]:
    """Return why each class cannot be ranked against the rest; "" if it can."""
    counts = np.bincount(truth, minlength=classes)

    def reason(c: int) -> str:
        if not len(truth):
            return "no row was tested"
        if counts[c] == 0:
            return "it does not occur among the rows tested"
        if counts[c] == len(truth):
            return ALONE
        return "no row trained on had it" if c in unseen else ""

    return tuple(reason(c) for c in range(classes))


def mean_over_classes(values: Floats, reasons: Sequence[str]) -> tuple[float, str]:
    """Return the mean of the defined values of [K] classes (of two, the second), and a remark on it."""
    classes, defined = len(reasons), [not reason for reason in reasons]
    left_out = classes - sum(defined)
    if classes == 2:
        return float(values[1]), ALONE if ALONE in reasons else reasons[1]
    if not any(defined):
        return math.nan, ALONE if ALONE in reasons else reasons[0]
    reason = f"mean over {sum(defined)} of {classes} classes: {left_out} cannot be ranked" if left_out else ""
    return float(values[np.array(defined)].mean()), reason


def refuse_not_finite(scores: Floats) -> None:
    """Raise Refused if a score is NaN or infinite: the largest score of its row would be arbitrary."""
    bad = int((~np.isfinite(scores)).any(axis=1).sum())
    if bad:
        raise Refused(
            f"{bad} of {len(scores)} rows have a probability that is not finite",
            "Every class has a finite probability",
            "check the features for numbers beyond float32 and the fit for convergence",
        )


def _binary(positive: NDArray[np.bool_], scores: Floats) -> float:
    """Return the AUROC: Mann-Whitney's U over the number of pairs, from midranks."""
    _, rank_of, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    n = int(positive.sum())
    u = ranks[rank_of[positive]].sum() - n * (n + 1) / 2
    return float(u / (n * (len(scores) - n)))
