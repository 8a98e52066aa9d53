"""Our numbers beside the paper's, cell by cell: differences, intervals, and why one is missing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.paper.discrepancies import notes_of
from benchmarks.paper.names import DIFFUSION, INVARIANCES, dataset_label, model_label
from benchmarks.paper.ours import MODES, Measured, Ours, with_best_variants
from benchmarks.paper.results_table import (
    FACTS,
    NOTHING,
    ORDER,
    Place,
    cell_value,
    ends_of,
    number_text,
    places_of,
    table_id,
)
from benchmarks.paper.values import Value as Number
from benchmarks.paper.values import Values, published_results, published_tables
from engine.report.page.blocks import Column, DataTable, Tone, Value
from engine.report.page.inputs import Gap, PageInput

RULE = (
    "Ours and theirs count as equal within their intervals (yes) if they differ by at most the root of the "
    "sum of the squared half widths of both 95 % intervals, since the variances of independent estimates "
    "add up (Altman, Bland, BMJ 326 (2003) 219, doi:10.1136/bmj.326.7382.219); where only one has an "
    "interval, if they differ by at most its half width; where none has, it is unknown. The paper's "
    "intervals are over episodes: they do not cover other images, splits or seeds."
)
_HINT = "ours - theirs, with the root of the sum of the squared half widths"
_TONES: Mapping[str, Tone] = {"no": "warning", "yes": "good"}
_KINDS = {"few": "fewshot", "linear": "probe", "finetune": "finetune", "lpips": "reconstruct"}


@dataclass(frozen=True)
class Comparison:
    """A number of ours against one of theirs.

    Attributes:
        difference: ours minus theirs; NaN where one is missing.
        bound: largest difference that is within the intervals; NaN where it is unknown.
    """

    difference: float
    bound: float

    @classmethod
    def of(cls, ours: Number | None, theirs: Number | None) -> "Comparison":
        """Compare two numbers, either of which may be missing."""
        if ours is None or theirs is None:
            return cls(math.nan, math.nan)
        halves = [number.ci95 for number in (ours, theirs) if number.ci95 is not None]
        return cls(ours.value - theirs.value, math.hypot(*halves) if halves else math.nan)

    @property
    def inside(self) -> str:
        """Return `yes`, `no`, or `unknown`."""
        if not (math.isfinite(self.difference) and math.isfinite(self.bound)):
            return "unknown"
        return "yes" if abs(self.difference) <= self.bound else "no"


@dataclass(frozen=True)
class Context:
    """Our values, and the gaps of the study that they come from.

    Attributes:
        page: with the data sets and gaps of a study.
        ours: all values.
        views: mode -> values, with the "best variant" rows.
    """

    page: PageInput
    ours: Ours
    views: Mapping[str, Values]

    @classmethod
    def of(cls, page: PageInput, ours: Ours) -> "Context":
        """Add the "best variant" rows."""
        return cls(page, ours, {mode: with_best_variants(ours.of(mode)) for mode in MODES})

    def get(self, mode: str, model: str, place: Place) -> Measured | None:
        """Return our value of a cell; None where there is none."""
        value = self.views[mode].get(model, place.dataset, place.metric)
        return value if isinstance(value, Measured) else None

    def has(self, name: str) -> bool:
        """Return whether a model of the paper has a value in a column of a table."""
        return any(
            self.get(mode, model, place) for mode in MODES for model in ORDER for place in places_of(name)
        )

    def why_missing(self, mode: str, model: str, place: Place) -> str:
        """Say why a cell has no number: no data, no such model, failed, impossible, or not measured."""
        if place.dataset not in {source.name for source in self.page.sources}:
            return f"no data: {dataset_label(place.dataset)} is not among the data sets"
        kind = kind_of(place.metric)
        for gap in self.page.gaps:
            own = (gap.dataset, gap.model, gap.mode) == (place.dataset, model, mode)
            if own and _is_of(gap, place.metric):
                return f"{gap.state}: {gap.reason}"
        if model not in {value.model for value in self.ours.values} | set(self.page.models):
            return f"missing: no result of {model_label(model)}"
        return f"missing: no result of {kind} in mode {mode}"


def _is_of(gap: Gap, metric: str) -> bool:
    """Return whether a gap's evaluation, which is called as its study likes, measures a metric."""
    name = gap.evaluation.lower().replace("-", "").replace("_", "")
    words = (kind_of(metric), metric.partition("_")[0])
    return any(word in name for word in words)


def kind_of(metric: str) -> str:
    """Return the kind of evaluation that measures a metric."""
    if metric == DIFFUSION:
        return "saliency"
    if metric == INVARIANCES["multiview"]:
        return "multiview"
    if metric in INVARIANCES.values():
        return "invariance"
    return _KINDS.get(metric.partition("_")[0], metric)


def comparison_table(name: str, context: Context) -> DataTable:
    """Return the cells of a table of the paper that we measured, a row each, ours beside theirs.

    Theirs are the printed cells, and of single checkpoints the authors' stored results.
    """
    notes: list[str] = []
    grouped = any(place.group for place in places_of(name))
    rows = tuple(
        _row(place, model, grouped, context, notes)
        for place, model in _cells(name, context)
        if _is_measured(place, model, context)
    )
    columns = [Column("data set"), Column("model"), *([Column("measured")] if grouped else [])]
    columns.append(Column("theirs", numeric=True))
    for mode in MODES:
        columns += [
            Column("ours", numeric=True, group=mode),
            Column("n", numeric=True, group=mode, hint="what our interval is over"),
            Column("difference", numeric=True, group=mode, hint=_HINT),
            Column("inside", group=mode, hint="whether they are equal within their intervals"),
        ]
    columns.append(Column("note"))
    caption = (
        f"{name}, ours beside theirs: {FACTS[name].content}. Single checkpoints (lr, r18, d121 of the "
        "domain-specific models) are held against the authors' stored results, all others against the "
        "printed cells."
    )
    return DataTable(f"{table_id(name)}-against", caption, tuple(columns), rows, tuple(notes))


def missing_table(name: str, context: Context) -> DataTable | None:
    """Return the cells of a table that we did not measure in any mode, and why; None if we measured all."""
    grouped = any(place.group for place in places_of(name))
    rows = tuple(
        (
            *_heads(place, model, grouped),
            _theirs(_published(place, model), place),
            *(Value(_why(mode, model, place, context)) for mode in MODES),
        )
        for place, model in _cells(name, context)
        if not _is_measured(place, model, context)
    )
    if not rows:
        return None
    columns = (
        *(Column("data set"), Column("model"), *([Column("measured")] if grouped else [])),
        Column("theirs", numeric=True),
        *(Column(mode, group="why ours is missing") for mode in MODES),
    )
    caption = f"{name}: the {len(rows)} cells without a number of ours."
    return DataTable(f"{table_id(name)}-missing", caption, columns, rows)


def _is_measured(place: Place, model: str, context: Context) -> bool:
    values = (context.get(mode, model, place) for mode in MODES)
    return any(value is not None and math.isfinite(value.value) for value in values)


def _why(mode: str, model: str, place: Place, context: Context) -> str:
    ours = context.get(mode, model, place)
    return context.why_missing(mode, model, place) if ours is None else ours.reason


def _published(place: Place, model: str) -> Number | None:
    key = (model, place.dataset, place.metric)
    return published_tables().get(*key) or published_results().get(*key)


def _heads(place: Place, model: str, grouped: bool) -> tuple[Value, ...]:
    group = (Value(place.group),) if grouped else ()
    return (Value(place.title), Value(model_label(model)), *group)


def _cells(name: str, context: Context) -> list[tuple[Place, str]]:
    printed = {(cell.dataset, cell.metric, cell.model) for cell in published_tables() if cell.source == name}
    return [
        (place, model)
        for place in places_of(name)
        for model in ORDER
        if (place.dataset, place.metric, model) in printed
        or any(context.get(mode, model, place) for mode in MODES)
    ]


def _row(place: Place, model: str, grouped: bool, context: Context, notes: list[str]) -> tuple[Value, ...]:
    theirs = _published(place, model)
    sentences = [note.sentence for note in notes_of(theirs)] if theirs else []
    marks = []
    for sentence in sentences:
        notes.append(f"{len(notes) + 1}. {model_label(model)}, {dataset_label(place.dataset)}: {sentence}.")
        marks.append(str(len(notes)))
    cells = [*_heads(place, model, grouped), _theirs(theirs, place)]
    for mode in MODES:
        cells += _ours(mode, model, place, theirs, context)
    return (*cells, Value(", ".join(marks), reason=" ".join(sentences)))


def _theirs(theirs: Number | None, place: Place) -> Value:
    if theirs is None:
        return Value(NOTHING, reason="neither printed nor stored")
    if theirs.source.startswith("Table"):
        return cell_value(theirs, place)
    return Value(
        number_text(theirs, place.decimals), theirs.value, *ends_of(theirs), "the authors' stored result"
    )


def _ours(mode: str, model: str, place: Place, theirs: Number | None, context: Context) -> list[Value]:
    ours = context.get(mode, model, place)
    if ours is None or not math.isfinite(ours.value):
        why = _why(mode, model, place, context)
        return [Value(NOTHING, reason=why), Value(NOTHING), Value(NOTHING), Value(NOTHING)]
    comparison = Comparison.of(ours, theirs)
    count = Value(f"{ours.n:,} {ours.over}", float(ours.n)) if ours.n else Value(NOTHING)
    shown = [cell_value(ours, place), count]
    difference, bound = comparison.difference, comparison.bound
    if not math.isfinite(difference):
        return [*shown, Value(NOTHING, reason="there is no number of theirs"), Value(NOTHING)]
    ends = (difference - bound, difference + bound) if math.isfinite(bound) else (None, None)
    inside = Value(comparison.inside, tone=_TONES.get(comparison.inside))
    return [*shown, Value(f"{difference:+.{place.decimals}f}", difference, *ends), inside]
