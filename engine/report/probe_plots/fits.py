"""The fits of probe records, and what they answered on the test images, as pictures take them."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.report.console import clipped
from engine.report.json_parts import objects
from engine.report.record_values import at, text
from stores.bank.reader import Bank
from stores.bank.record_index import RecordEntry
from stores.bank.records import RunRecord
from stores.json_types import Json

if TYPE_CHECKING:
    import pyarrow as pa

#: Most panels of a picture, and characters in a line of a panel's title.
MOST, _TITLE = 24, 34


@dataclass(frozen=True, eq=False)
class Fit:
    """One fit of a record.

    Attributes:
        model, label: title of the feature, and the column learned.
        body: its metrics.
    """

    model: str
    label: str
    body: Mapping[str, Json]

    @property
    def title(self) -> str:
        """Model and label, clipped for a panel."""
        return f"{clipped(self.model, _TITLE)}\n{clipped(self.label, _TITLE)}"


def fits_of(records: Sequence[RunRecord], path: str, remedy: str) -> list[Fit]:
    """Return the fits of records that have something at a dotted path.

    Raises:
        Refused: none has, or they are too many for a picture.
    """
    fits = []
    for record in records:
        model, findings = text(record.asked.get("model")), record.metrics.get("findings")
        bodies: list[Mapping[str, Json]] = [record.metrics] if findings is None else [*objects(findings)]
        fits += [Fit(model, text(body.get("label")), body) for body in bodies if at(body, path) is not None]
    if not fits:
        raise Refused(f"no record has metrics.{path}", "A figure is drawn from the record alone", remedy)
    if len(fits) > MOST:
        raise Refused(
            f"{len(fits)} fits in one picture",
            f"At most {MOST} panels are drawn",
            "draw fewer models or labels, or one record at a time with `embank records show -o`",
        )
    return fits


@dataclass(frozen=True, eq=False)
class Answers:
    """One class against the rest on the test images.

    Attributes:
        model, label: as of `Fit`.
        name: of the class; "" where there are two.
        positive: bool [n]; score: float64 [n]; groups: int64 [n] patients, negative where unknown.
        resamples, seed: of the record's bootstrap.
    """

    model: str
    label: str
    name: str
    positive: NDArray[np.bool_]
    score: NDArray[np.float64]
    groups: NDArray[np.int64]
    resamples: int
    seed: int


def answers_of(record: RunRecord, bank: str, entry: RecordEntry | None = None) -> list[Answers]:
    """Read the predictions of a record: each finding, each class, or the second one of two.

    Args:
        bank: which names the patients of the rows.
        entry: of a record that was read; None takes what is attached to a new one.

    Raises:
        Refused: the record has no scores, or is about other images than the bank has. BankError: damage.
    """
    table = _table(record, bank, entry)
    names = [column.removeprefix("score.") for column in table.column_names if column.startswith("score.")]
    if not names:
        raise Refused(
            "predictions without the scores of all classes",
            "Beside a record with very many classes lies only each image's largest score",
            "draw another picture with --plot",
        )
    store = Bank.open(bank)
    if record.used.get("image_digest") != store.image_digest:
        raise Refused(
            f"a record about other images than {bank} has",
            "Its rows are looked up in the bank",
            "run the evaluation again",
        )
    groups = store.column("group")[0].astype(np.int64)[table.column("row").to_numpy()]
    model, label = text(record.asked.get("model")), text(record.metrics.get("label"))
    draws = (_whole(record.asked.get("bootstrap")), _whole(record.asked.get("seed")))
    if record.metrics.get("findings") is not None:
        return [own for name in names if (own := _finding(table, model, name, groups, draws))]
    truth = table.column("truth").to_numpy().astype(str)
    shown = names[1:] if len(names) == 2 else names
    return [
        Answers(
            model,
            label,
            "" if len(names) == 2 else name,
            truth == name,
            table.column(f"score.{name}").to_numpy().astype(np.float64),
            groups,
            *draws,
        )
        for name in shown
    ]


def _finding(
    table: "pa.Table", model: str, name: str, groups: NDArray[np.int64], draws: tuple[int, int]
) -> Answers | None:
    """Return the answers on one finding where it is not masked; None without a result."""
    score = table.column(f"score.{name}").to_numpy().astype(np.float64)
    there = np.isfinite(score)
    positive = table.column(f"truth.{name}").to_numpy()[there] == 1
    return Answers(model, name, "", positive, score[there], groups[there], *draws) if there.any() else None


def _whole(value: Json) -> int:
    return value if isinstance(value, int) else 0


def _table(record: RunRecord, bank: str, entry: RecordEntry | None) -> "pa.Table":
    import pyarrow.parquet as pq

    from stores.bank.predictions import read_predictions_of

    if entry is not None:
        return read_predictions_of(bank, entry)
    if "" not in record.attached:
        raise Refused(
            "a record without predictions", "Curves are drawn from predictions", "run the probe again"
        )
    return pq.read_table(io.BytesIO(record.attached[""].data))
