"""Disagreements on methods beside a table of the paper, with the effects that our own records measure.

An effect is the difference between mode `as-published` and mode `default`, or between the paper's use of a
model and the variant that is right, of one model on one data set, which need not be the paper's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.paper.cells import kind_of
from benchmarks.paper.discrepancies import MethodNote, method_notes
from benchmarks.paper.effects import Effect, effect
from benchmarks.paper.names import dataset_label, model_label
from benchmarks.paper.ours import MODES, Measured, Ours
from benchmarks.paper.results_table import NOTHING, Place, cell_value, places_of, table_id
from benchmarks.paper.values import Value as Number
from engine.report.page.blocks import Block, Column, DataTable, Details, Value

#: Variants of models that have right what the paper has wrong.
VARIANTS = ("+native", "+same")


@dataclass(frozen=True)
class MeasuredEffect:
    """An effect on one model and data set.

    Attributes:
        by: `mode`, or a variant.
        place, model: of the number.
        first, second: the numbers; the effect is second minus first.
    """

    by: str
    place: Place
    model: str
    first: Measured
    second: Measured
    effect: Effect

    @property
    def kind(self) -> str:
        """Return the kind of evaluation."""
        return kind_of(self.place.metric)


def effects_on(name: str, ours: Ours) -> tuple[MeasuredEffect, ...]:
    """Measure what the mode, and variants of models, change in numbers as a table has them.

    On the paper's data sets these are its columns, on others all numbers of the same metrics.
    """
    places = places_of(name)
    default, published = (ours.of(mode) for mode in MODES)
    made = []
    for own in default:
        if not _concerned(own, places):
            continue
        pairs: list[tuple[str, Number, Number | None]] = [
            ("mode", own, published.get(own.model, own.dataset, own.metric))
        ]
        for variant in VARIANTS:
            other = default.get(own.model + variant, own.dataset, own.metric)
            if other is not None:
                pairs.append((variant, other, own))
        place = Place(own.dataset, own.metric, places[0].decimals)
        made += [
            MeasuredEffect(by, place, own.model, first, second, effect(first, second))
            for by, first, second in pairs
            if isinstance(first, Measured) and isinstance(second, Measured)
        ]
    return tuple(made)


def _concerned(value: Number, places: Sequence[Place]) -> bool:
    if value.dataset in {place.dataset for place in places}:
        return (value.dataset, value.metric) in {(place.dataset, place.metric) for place in places}
    if value.metric.startswith("few_shot"):
        return kind_of(places[0].metric) == "fewshot"
    return value.metric in {place.metric for place in places} and "mean_per_class" not in value.metric


def methods_block(name: str, effects: Sequence[MeasuredEffect]) -> Details:
    """Return the disagreements on how a table was made, each with its measured effect, on demand."""
    notes = [note for note in method_notes() if name in note.tables]
    table = DataTable(
        f"{table_id(name)}-methods",
        f"Where the paper, its code and its results disagree on how {name} was made, with the effect "
        "measured here.",
        (Column("disagreement"), Column("concerns"), Column("measured effect")),
        tuple(tuple(map(Value, (n.what, _concerns(n), measured_effect(n, effects)))) for n in notes),
        (
            "Effect of the mode: as-published minus default, of one model on the same data; the modes differ "
            "in all points that name it at once. Effect of a variant: the paper's use of a model minus the "
            "variant.",
        ),
    )
    blocks: tuple[Block, ...] = (table, *([effects_table(name, effects)] if effects else []))
    return Details(f"{table_id(name)}-how", f"{name}: disagreements on methods, and their effect", blocks)


def _concerns(note: MethodNote) -> str:
    return ", ".join([*map(dataset_label, note.datasets), *map(model_label, note.models)]) or "all"


def measured_effect(note: MethodNote, effects: Sequence[MeasuredEffect]) -> str:
    """Summarise the effects that a note is a reason of: their mean, the least and the largest."""
    if not note.measured_by:
        return "not measured here"
    own = [made for made in effects if _explains(note, made) and math.isfinite(made.effect.difference)]
    if not own:
        what = "both modes" if note.measured_by == "mode" else f"the plain model and {note.measured_by}"
        return f"not measured here: it takes results of {what} on one data set"
    values, decimals = [made.effect.difference for made in own], own[0].place.decimals
    mean, least, most = (
        f"{value:+.{decimals}f}" for value in (sum(values) / len(values), min(values), max(values))
    )
    what = "as-published - default" if note.measured_by == "mode" else f"plain - {note.measured_by}"
    paired = sum(made.effect.paired for made in own)
    return f"{what}: mean {mean}, from {least} to {most} (n = {len(own)} numbers, {paired} paired)"


def _explains(note: MethodNote, made: MeasuredEffect) -> bool:
    kinds = (*note.kinds, *(["multiview"] if "invariance" in note.kinds else []))
    return (
        made.by == note.measured_by
        and (not note.datasets or made.place.dataset in note.datasets)
        and (not note.models or made.model.startswith(note.models))
        and (not kinds or made.kind in kinds)
    )


def effects_table(name: str, effects: Sequence[MeasuredEffect]) -> DataTable:
    """Return the effects one by one, with intervals."""
    columns = (
        Column("data set"),
        Column("model"),
        Column("evaluation"),
        Column("effect of"),
        Column("without", numeric=True, hint="in mode default, or of the variant"),
        Column("with", numeric=True, hint="in mode as-published, or of the model as the paper uses it"),
        Column("difference", numeric=True),
        Column("95 %"),
        Column("paired over"),
    )
    return DataTable(
        f"{table_id(name)}-effects",
        f"Effects measured on numbers as in {name}: differences with 95 % intervals, of pairs of images or "
        "episodes where both numbers have the same ones (cluster-robust over patients where these are "
        "known), else of two independent numbers.",
        columns,
        tuple(_effect_row(made) for made in effects),
    )


def _effect_row(made: MeasuredEffect) -> tuple[Value, ...]:
    change, decimals = made.effect, made.place.decimals
    names = (made.place.title, model_label(made.model), made.kind, made.by)
    before = (*map(Value, names), cell_value(made.first, made.place), cell_value(made.second, made.place))
    over = f"{change.n:,} {change.over}" if change.paired else "not paired"
    if not math.isfinite(change.difference):
        return (*before, Value(NOTHING, reason=change.reason), Value(NOTHING), Value(over))
    ends = (change.low, change.high) if math.isfinite(change.low) else (None, None)
    text = "" if ends[0] is None else f"{change.low:+.{decimals}f} to {change.high:+.{decimals}f}"
    return (
        *before,
        Value(f"{change.difference:+.{decimals}f}", change.difference, *ends),
        Value(text or NOTHING),
        Value(over, reason=change.reason),
    )
