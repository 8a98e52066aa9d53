"""Where the paper, its code and its stored results disagree, as data: single cells, and methods.

Every cell of Tables 3, 4 and A1-A7 (536) was compared with the authors' stored results; `disagreements` does
it again. "Likelier right" is a judgement from the evidence given, not a certainty.
"""

import csv
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from benchmarks.paper.names import VARIANTS
from benchmarks.paper.values import PUBLISHED, Value, Values


@dataclass(frozen=True)
class CellNote:
    """A printed number that differs from the stored one, or has none.

    Attributes:
        id: e.g. `9a`.
        table: e.g. `Table 3`.
        model, dataset, metric: of the cell.
        field: `value` or `ci95`.
        paper, stored: as printed and as stored, in the metric's unit; `stored` is "" where there is none.
        likelier_right: `stored`, `paper`, `paper, weakly`, or "" where it is undecided.
        why: the evidence.
    """

    id: str
    table: str
    model: str
    dataset: str
    metric: str
    field: str
    paper: str
    stored: str
    likelier_right: str
    why: str

    @property
    def sentence(self) -> str:
        """Return the note as it stands beside the cell."""
        what = "half width of the interval" if self.field == "ci95" else "value"
        stored = f"the stored results have {self.stored}" if self.stored else "the stored results have none"
        right = f"likelier right: {self.likelier_right}" if self.likelier_right else "undecided"
        return f"{what} {self.paper} in the paper, {stored} ({right}): {self.why}"


@dataclass(frozen=True)
class MethodNote:
    """A disagreement on how numbers were made.

    Attributes:
        id: section and number, e.g. `5.4`.
        tables: that it concerns, e.g. `Table 4`.
        datasets, models: that it concerns; none for all.
        kinds: of evaluation that it concerns.
        measured_by: `mode` where modes `default` and `as-published` differ in it, `+native` or `+same` where
            a variant of the model has it the other way, "" where nothing of embank measures it.
        what: one or two sentences.
    """

    id: str
    tables: tuple[str, ...]
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    kinds: tuple[str, ...]
    measured_by: str
    what: str


@cache
def cell_notes() -> tuple[CellNote, ...]:
    """Return the cells that differ between tables and stored results."""
    with (PUBLISHED / "discrepant_cells.csv").open(encoding="utf-8", newline="") as file:
        return tuple(CellNote(**row) for row in csv.DictReader(file))


@cache
def method_notes() -> tuple[MethodNote, ...]:
    """Return the disagreements on methods."""
    with (PUBLISHED / "discrepant_methods.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            MethodNote(
                row["id"],
                tuple(f"Table {name}" for name in row["tables"].split()),
                tuple(row["datasets"].split()),
                tuple(row["models"].split()),
                tuple(row["kinds"].split()),
                row["measured_by"],
                row["what"],
            )
            for row in csv.DictReader(file)
        )


def notes_of(value: Value) -> tuple[CellNote, ...]:
    """Return the notes on a cell of the published tables."""
    key = (value.source, value.model, value.dataset, value.metric)
    return tuple(note for note in cell_notes() if (note.table, note.model, note.dataset, note.metric) == key)


def disagreements(tables: Values, stored: Values) -> tuple[tuple[Value, str], ...]:
    """Return the cells, as (cell, `value` or `ci95`), whose stored number does not give the printed digits.

    A row of several checkpoints has the largest stored value of each cell. A number that lies half-way
    between two printed ones may be either; one that is not stored disagrees.
    """
    return tuple(
        (cell, field)
        for cell in tables
        for field in ("value", "ci95")
        if getattr(cell, field) is not None and not _agrees(cell, field, stored)
    )


def _agrees(cell: Value, field: str, stored: Values) -> bool:
    printed = cell.text if field == "value" else cell.ci95_text
    best = largest(cell.model, cell.dataset, cell.metric, stored)
    number = None if best is None else best.text if field == "value" else best.ci95_text
    if not number:
        return False
    step = Decimal(1).scaleb(-len(printed.partition(".")[2]))
    return abs(Decimal(number) - Decimal(printed)) <= step / 2


def largest(model: str, dataset: str, metric: str, values: Values) -> Value | None:
    """Return the value of a model, or the largest of its checkpoints; None where there is none."""
    cells = [values.get(name, dataset, metric) for name in VARIANTS.get(model, (model,))]
    defined = [cell for cell in cells if cell is not None and cell.value == cell.value]
    return max(defined, key=lambda cell: cell.value, default=None)
