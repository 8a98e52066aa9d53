"""Tables 3, 4 and A1-A7 from values: ours or the published ones, in the paper's order of columns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from benchmarks.paper.discrepancies import notes_of
from benchmarks.paper.names import (
    MIMIC_CHEXPERT,
    MOCO_CXR,
    SSL,
    SUPERVISED,
    VARIANTS,
    dataset_label,
    group_of,
    model_label,
)
from benchmarks.paper.ours import Measured
from benchmarks.paper.values import Value as Number
from benchmarks.paper.values import Values, published_tables
from engine.report.page.blocks import Column, DataTable, Value

#: Models in the paper's order, a row of several checkpoints behind these.
ORDER = (*SSL, *SUPERVISED, *MIMIC_CHEXPERT, "mimic-chexpert", *MOCO_CXR, "moco-cxr")
NOTHING = "–"
#: Tables for which one checkpoint of each domain model was measured.
_ONE_CHECKPOINT = ("Table A2", "Table A3")
_MANY_SHOT = {"linear": "linear", "finetune": "finetuned"}


@dataclass(frozen=True)
class Facts:
    """The subject of a table.

    Attributes:
        content: for its caption, with units and what intervals are over.
        best: which number of a column is emphasised; "" for none, where neither end is the better one.
    """

    content: str
    best: Literal["highest", "lowest", ""]


_LPIPS = "LPIPS ({}) between an image and its reconstruction from the last feature map; lower is nearer"
_COSINE = "cosine of whitened features between an image and {}"
FACTS: Mapping[str, Facts] = {
    "Table 3": Facts(
        "few-shot accuracy in %, 20 images a class for support: 5-way on ChestX and EyePACS, else 2-way; "
        "± half the 95 % interval over episodes",
        "highest",
    ),
    "Table 4": Facts(
        "linear and finetuned accuracy in %, on EyePACS the mean over classes (balanced accuracy)", "highest"
    ),
    "Table A1": Facts(_COSINE.format("its rotations, or its changes of hue (BACH)"), "highest"),
    "Table A2": Facts(_COSINE.format("its horizontal flip"), "highest"),
    "Table A3": Facts(
        _COSINE.format("another view: frontal and lateral (CheXpert), left and right eye (EyePACS)"),
        "highest",
    ),
    "Table A4": Facts(_LPIPS.format("AlexNet"), "lowest"),
    "Table A5": Facts(_LPIPS.format("SqueezeNet"), "lowest"),
    "Table A6": Facts(_LPIPS.format("VGG-16"), "lowest"),
    "Table A7": Facts(
        "attentive diffusion: share of the pixels of an occlusion map that are above its mean", ""
    ),
}


@dataclass(frozen=True)
class Place:
    """A column of a table: data set and metric, and the decimals that the paper prints."""

    dataset: str
    metric: str
    decimals: int

    @property
    def title(self) -> str:
        """Return its heading."""
        return dataset_label(self.dataset)

    @property
    def group(self) -> str:
        """Return the heading above it, where one table has several."""
        for metric, title in (("rotation", "rotation"), ("hue", "hue")):
            if self.metric.startswith(metric):
                return title
        return _MANY_SHOT.get(self.metric.partition("_")[0], "")


@cache
def places_of(name: str) -> tuple[Place, ...]:
    """Return the columns of a table of the paper."""
    cells = [cell for cell in published_tables() if cell.source == name]
    columns = {(cell.dataset, cell.metric): cell.decimals or 0 for cell in cells}
    return tuple(Place(*key, decimals) for key, decimals in columns.items())


def table_id(name: str) -> str:
    """Return the id of a table on a page, e.g. `paper-table-a1`."""
    return "paper-" + name.lower().replace(" ", "-")


def results_table(name: str, values: Values) -> DataTable:
    """Return a table of the paper: a row for each model, a column for each data set.

    Args:
        name: e.g. `Table 3`.
        values: published or ours; those of other tables are left out.
    """
    places, facts = places_of(name), FACTS[name]
    models = ordered_models(values, places)
    cells = [[values.get(model, place.dataset, place.metric) for place in places] for model in models]
    best = [_best([row[i] for row in cells], models, facts.best) for i in range(len(places))]
    rows = []
    for model, row in zip(models, cells, strict=True):
        shown = [
            cell_value(cell, place, strong=cell is not None and cell.value == best[i])
            for i, (cell, place) in enumerate(zip(row, places, strict=True))
        ]
        rows.append((Value(_label(model, row)), Value(family(model)), *shown))
    heads = [Column(place.title, numeric=True, group=place.group) for place in places]
    columns = (Column("model"), Column("trained", hint="how, and on what"), *heads)
    emphasis = f". Bold: the {facts.best} of each column" if facts.best else ""
    caption = f"{name}, {_whose(cells)}: {facts.content}{emphasis}."
    return DataTable(table_id(name), caption, columns, tuple(rows), _notes(cells, models))


def ordered_models(values: Values, places: Sequence[Place]) -> tuple[str, ...]:
    """Return the models that have a value in some column: the paper's in its order, then the others."""
    columns = {(place.dataset, place.metric) for place in places}
    present = dict.fromkeys(value.model for value in values if (value.dataset, value.metric) in columns)
    return (*(m for m in ORDER if m in present), *(m for m in present if m not in ORDER))


def family(model: str) -> str:
    """Return how a model was trained: `SSL`, `Supervised`, `Domain-specific`; "" for others."""
    if model in (*VARIANTS, *MIMIC_CHEXPERT, *MOCO_CXR):
        return "Domain-specific"
    return group_of(model)


def _whose(cells: Sequence[Sequence[Number | None]]) -> str:
    modes = {cell.mode for row in cells for cell in row if isinstance(cell, Measured)}
    if not any(cell for row in cells for cell in row):
        return "without values"
    return f"ours in mode {' and '.join(sorted(modes))}" if modes else "as published"


def _is_view(model: str, row: Sequence[Number | None]) -> bool:
    """Return whether a row is the largest value of several checkpoints."""
    return model in VARIANTS and not any(cell and cell.source in _ONE_CHECKPOINT for cell in row)


def _label(model: str, row: Sequence[Number | None]) -> str:
    return f"{model_label(model)}{' (best variant)' * _is_view(model, row)}"


def _best(column: Sequence[Number | None], models: Sequence[str], which: str) -> float:
    """Return the best number of a column, NaN where there is no choice.

    A "best variant" counts where its checkpoints have no rows.
    """
    counted = [
        cell.value
        for cell, model in zip(column, models, strict=True)
        if cell is not None
        and math.isfinite(cell.value)
        and not any(checkpoint in models for checkpoint in VARIANTS.get(model, ()))
    ]
    if not which or len(counted) < 2:
        return math.nan
    return max(counted) if which == "highest" else min(counted)


def cell_value(cell: Number | None, place: Place, *, strong: bool = False) -> Value:
    """Return a cell: as printed, else with the paper's number of decimals."""
    if cell is None:
        return Value(NOTHING, reason="no value")
    reason = "; ".join(filter(None, (cell.reason, *(note.sentence for note in notes_of(cell)))))
    if not math.isfinite(cell.value):
        return Value(NOTHING, reason=reason or "undefined")
    low, high = ends_of(cell)
    return Value(number_text(cell, place.decimals), cell.value, low, high, reason, strong=strong)


def ends_of(cell: Number) -> tuple[float | None, float | None]:
    """Return the ends of a value's 95 % interval; None where it has none."""
    if isinstance(cell, Measured) and cell.low is not None:
        return cell.low, cell.high
    return (None, None) if cell.ci95 is None else (cell.value - cell.ci95, cell.value + cell.ci95)


def number_text(cell: Number, decimals: int) -> str:
    """Return a value and half its interval."""
    value = cell.text or f"{cell.value:.{decimals}f}"
    half = cell.ci95_text or ("" if cell.ci95 is None else f"{cell.ci95:.{decimals}f}")
    return f"{value} ± {half}" if half else value


def _notes(cells: Sequence[Sequence[Number | None]], models: Sequence[str]) -> tuple[str, ...]:
    notes = [
        f"{model_label(note.model)}, {dataset_label(note.dataset)}: {note.sentence}."
        for row in cells
        for cell in row
        if cell is not None
        for note in notes_of(cell)
    ]
    if not models:
        notes.append("There is no value: none of the paper's data sets was measured by this protocol.")
    if any(_is_view(model, row) for model, row in zip(models, cells, strict=True)):
        notes.append(
            "A row of several checkpoints (best variant) is the largest value of each cell: it is no model, "
            "and the choice is made on the number itself."
        )
    return tuple(notes)
