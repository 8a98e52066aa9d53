"""Predictions of single images beside a record: which are wrong, and how sure the model was."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.report.page.evidence import Evidence
from engine.report.page.repeats import first_repeat
from stores.bank.predictions import read_predictions_of
from stores.errors import BankError, Refused

if TYPE_CHECKING:
    import pyarrow as pa

#: From this probability on an error counts as confident.
CONFIDENT = 0.9


@dataclass(frozen=True)
class Mistake:
    """A prediction that is wrong.

    Attributes:
        row, image_id: of the bank's image.
        truth, predicted: classes; of a finding `FINDING: yes` or `FINDING: no`.
        probability: of what was predicted.
    """

    row: int
    image_id: str
    truth: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Mistakes:
    """The errors of a record's predictions.

    Attributes:
        predictions: number of predictions; of findings, one for each that is known; of several repeats of a
            cross-validation, those of the first.
        errors: number of those that are wrong.
        confident: number of errors with a probability of at least `CONFIDENT`.
        worst: the errors with the highest probabilities, of ties the first rows.
        reason: why nothing is known; "" if it is.
    """

    predictions: int = 0
    errors: int = 0
    confident: int = 0
    worst: tuple[Mistake, ...] = ()
    reason: str = ""


def mistakes_of(cell: Evidence, most: int) -> Mistakes:
    """Read the errors of a record from its predictions.

    Args:
        most: number of `worst` errors.
    """
    if not cell.record.predictions:
        return Mistakes(reason="the record has no predictions")
    try:
        table = first_repeat(read_predictions_of(cell.source.bank, cell.entry))
    except (BankError, Refused) as error:
        return Mistakes(reason=error.found)
    names = table.column_names
    findings = [name.removeprefix("truth.") for name in names if name.startswith("truth.")]
    if "truth" in names and "predicted" in names:
        return _of_classes(table, most)
    return _of_findings(table, findings, most) if findings else Mistakes(reason="no classes were predicted")


def _of_classes(table: "pa.Table", most: int) -> Mistakes:
    truth, predicted = _texts(table, "truth"), _texts(table, "predicted")
    scores = [name for name in table.column_names if name == "score" or name.startswith("score.")]
    if not scores:
        return Mistakes(reason="the predictions have no probabilities")
    best = np.max([_numbers(table, name) for name in scores], axis=0)
    return _gathered(table, truth != predicted, best, most, truth, predicted)


def _of_findings(table: "pa.Table", findings: list[str], most: int) -> Mistakes:
    """Gather the errors of all findings; cells whose truth is not known are left out."""
    known = errors = confident = 0
    worst: list[Mistake] = []
    for name in findings:
        truth, score = _numbers(table, f"truth.{name}"), _numbers(table, f"score.{name}")
        predicted = _numbers(table, f"predicted.{name}")
        usable = (truth >= 0) & (predicted >= 0) & np.isfinite(score)
        wrong = usable & (truth != predicted)
        sure = np.where(predicted > 0, score, 1 - score)
        words = np.array([f"{name}: no", f"{name}: yes"], dtype=object)
        truths, predictions = words[(truth > 0).astype(int)], words[(predicted > 0).astype(int)]
        own = _gathered(table, wrong, sure, most, truths, predictions)
        known, errors = known + int(usable.sum()), errors + own.errors
        confident += own.confident
        worst += own.worst
    worst.sort(key=lambda one: (-one.probability, one.row, one.truth))
    return Mistakes(known, errors, confident, tuple(worst[:most]))


def _gathered(
    table: "pa.Table",
    wrong: NDArray[np.bool_],
    sure: NDArray[np.float64],
    most: int,
    truth: NDArray[Any],
    predicted: NDArray[Any],
) -> Mistakes:
    """Gather errors: `wrong`, the probability `sure`, and the names of both classes, [n] each."""
    places = np.flatnonzero(wrong & np.isfinite(sure))
    rows = _numbers(table, "row")
    order = places[np.lexsort((rows[places], -sure[places]))][:most]
    ids = table.column("image_id").take(order).to_pylist()
    worst = tuple(
        Mistake(int(rows[place]), image_id, truth[place], predicted[place], float(sure[place]))
        for place, image_id in zip(order.tolist(), ids, strict=True)
    )
    confident = int((sure[places] >= CONFIDENT).sum())
    return Mistakes(len(wrong), int(wrong.sum()), confident, worst)


def _texts(table: "pa.Table", name: str) -> NDArray[Any]:
    return np.asarray(table.column(name).to_pylist(), dtype=object)


def _numbers(table: "pa.Table", name: str) -> NDArray[np.float64]:
    return np.asarray(table.column(name).to_numpy(zero_copy_only=False), np.float64)
