"""The results of classification: models by data set, protocol and mode, with intervals and controls."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.report.json_parts import members, objects
from engine.report.marks import MARK
from engine.report.page.anchors import anchor
from engine.report.page.blocks import Block, Column, DataTable, Details, Section, Value
from engine.report.page.comparisons import Comparison, comparison_for, comparisons_of
from engine.report.page.inputs import Gap, PageInput, PageOptions
from engine.report.page.numbers import UNCERTAIN, WORDS, Number, decimal, finite, number_at, value_of
from engine.report.page.results import CLASSIFYING, Result, models_of, results_of
from engine.report.page.room import fitting

#: Up to so many data sets there is one table for each; with more, one for each protocol.
_BY_DATASET = 2
#: Share of the page that the table of all metrics may take, and its metrics.
_SHARE = 0.15
_METRICS = (
    "accuracy",
    "mean_per_class_accuracy",
    "auroc",
    "average_precision",
    "log_loss",
    "calibration_error",
)
_MODES = {"default": "default", "as-published": "as published"}
_NOTES = {
    "strong": "Bold: the models that cannot be told from the best of their column, after Holm's adjustment; "
    "none where no model can.",
    MARK: f"{MARK} Below a control: no evidence for the model.",
    UNCERTAIN: f"{UNCERTAIN} Not told from a control: the paired difference does not lie above 0.",
}
_OVER = (
    "In brackets: 95\u00a0% intervals over patients (images where none are known); of few-shot accuracies "
    "over episodes."
)


@dataclass(frozen=True)
class _Place:
    """A column: its group, its title, and the results below it."""

    group: str
    title: str
    hint: str
    results: Mapping[str, Result]


@dataclass(frozen=True)
class _Page:
    """What cells need of the page.

    Attributes:
        models: in order, those without a result included.
        comparisons: of models.
        gaps: (data set, model, evaluation, mode, seed) -> the cell of a study that has no number.
        evaluations: record id -> name of its evaluation.
    """

    models: tuple[str, ...]
    comparisons: Sequence[Comparison]
    gaps: Mapping[tuple[str, str, str, str, int], Gap]
    evaluations: Mapping[str, str]

    @classmethod
    def of(cls, page: PageInput, results: Sequence[Result]) -> "_Page":
        """Take what cells need."""
        gaps = {(g.dataset, g.model, g.evaluation, g.mode, g.seed): g for g in page.gaps if g.model}
        named = [*models_of(page, results), *(gap.model for gap in gaps.values())]
        order = {name: place for place, name in enumerate(page.models)}
        models = sorted(set(named), key=lambda name: (order.get(name, len(order)), name))
        return cls(tuple(models), comparisons_of(page), gaps, page.evaluations)

    def gap(self, model: str, place: _Place) -> Gap | None:
        """Return the gap of a model in a column, whose other results say what column it is."""
        other = next(iter(place.results.values()))
        seed = finite(other.record.asked.get("seed"))
        evaluation = self.evaluations.get(other.entry.id, "")
        return self.gaps.get((other.dataset, model, evaluation, other.mode, int(seed or 0)))


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section; other numbers, e.g. invariances, have their own."""
    results = [one for one in results_of(page) if one.kind in CLASSIFYING]
    if not results:
        return ()
    blocks: list[Block] = [*_tables(_Page.of(page, results), results), _all_metrics(results, options)]
    return (Section("results", "Results", tuple(blocks)),)


def _tables(page: _Page, results: Sequence[Result]) -> Iterable[DataTable]:
    datasets = list(dict.fromkeys(one.dataset for one in results))
    protocols = list(dict.fromkeys((one.kind, one.protocol) for one in results))
    if len(datasets) <= _BY_DATASET:
        for dataset in datasets:
            own = [one for one in results if one.dataset == dataset]
            places = [place for key in protocols for place in _places(own, key, "")]
            caption = f"{dataset}: {'; '.join(dict.fromkeys(one.protocol for one in own))}. {_OVER}"
            yield _table(anchor(f"table-results-{dataset}"), caption, places, page)
        return
    for key in protocols:
        places = [
            place
            for dataset in datasets
            for place in _places([one for one in results if one.dataset == dataset], key, dataset)
        ]
        word = next((p.hint for p in places), "")
        caption = f"{key[1][:1].upper()}{key[1][1:]}: {word} of each data set. {_OVER}"
        yield _table(anchor(f"table-results-{key[1]}"), caption, places, page)


def _places(results: Sequence[Result], key: tuple[str, str], dataset: str) -> list[_Place]:
    """Return the columns of one protocol, one for each mode."""
    by_mode: dict[str, dict[str, Result]] = {}
    for one in results:
        if (one.kind, one.protocol) == key:
            by_mode.setdefault(one.mode, {})[one.model] = one
    return [_place(mode, own, key[1], dataset, len(by_mode) > 1) for mode, own in by_mode.items()]


def _place(mode: str, own: Mapping[str, Result], protocol: str, dataset: str, both: bool) -> _Place:
    word = next((one.number.word for one in own.values() if one.number), "")
    published = f", {_MODES.get(mode, mode)}" if mode != "default" else ""
    if not dataset:
        return _Place(protocol, f"{word}{published}", "", own)
    if both:
        return _Place(dataset, _MODES.get(mode, mode), word, own)
    return _Place("", f"{dataset}{published}", word, own)


def _table(name: str, caption: str, places: Sequence[_Place], page: _Page) -> DataTable:
    columns = (Column("model"), *(Column(p.title, True, p.hint, p.group) for p in places))
    rows = [
        (Value(model), *(_value(model, place, page) for place in places))
        for model in page.models
        if any(model in place.results or page.gap(model, place) for place in places)
    ]
    rows += _controls(places)
    shown = [value for row in rows for value in row]
    notes = [_NOTES["strong"]] if any(value.strong for value in shown) else []
    notes += [_NOTES[mark] for mark in (MARK, UNCERTAIN) if any(mark in value.text for value in shown)]
    return DataTable(name, caption, columns, tuple(rows), tuple(notes))


def _value(model: str, place: _Place, page: _Page) -> Value:
    one = place.results.get(model)
    if one is None:
        gap = page.gap(model, place)
        if gap is None:
            return Value("–")
        return Value(gap.state, reason=gap.reason, tone="error" if gap.state == "failed" else None)
    comparison = comparison_for(one, page.comparisons)
    number, strong = one.number, False
    if number is not None and comparison is not None and comparison.metric == number.metric:
        strong = one.model in comparison.best and len(comparison.best) < len(comparison.standings)
        number = _with_interval(number, comparison, one.model)
    return value_of(number, strong=strong)


def _with_interval(number: Number, comparison: Comparison, model: str) -> Number:
    """Return a number that its record has no interval of with that of the comparison."""
    standing = comparison.standing(model)
    value = finite(standing.get("value"))
    if number.low is not None or None in (value, number.value):
        return number
    if not math.isclose(value or 0.0, number.value or 0.0, rel_tol=1e-9):  # means are of other findings
        return number
    return replace(number, low=finite(standing.get("low")), high=finite(standing.get("high")))


def _controls(places: Sequence[_Place]) -> list[tuple[Value, ...]]:
    """Return a row for each control that a record has numbers of."""
    titles: dict[str, str] = {}
    cells: dict[tuple[str, int], list[float]] = {}
    for index, place in enumerate(places):
        for one in place.results.values():
            metric = one.number.metric if one.number else ""
            for control in objects(one.record.metrics.get("controls") or []):
                value = finite(control.get(metric))
                if not control.get("missing") and value is not None:
                    titles[str(control["name"])] = str(control["title"])
                    cells.setdefault((str(control["name"]), index), []).append(value)
    return [
        (
            Value(f"control: {title}", tone="note"),
            *(_control(cells.get((name, i), [])) for i in range(len(places))),
        )
        for name, title in titles.items()
    ]


def _control(values: Sequence[float]) -> Value:
    if not values:
        return Value("–")
    low, high = min(values), max(values)
    if low == high:
        return Value(decimal(high), high, tone="note")
    reason = "Lowest and highest beside the models of the column, whose images or episodes differ"
    return Value(f"{decimal(low)}–{decimal(high)}", high, reason=reason, tone="note")


def _all_metrics(results: Sequence[Result], options: PageOptions) -> Details:
    names = [m for m in _METRICS if any(_metric(one, m).value is not None for one in results)]
    several = len({one.dataset for one in results}) > 1
    heads = ["data set"] * several + ["evaluation", "mode", "model"]
    columns = tuple(map(Column, heads)) + tuple(Column(WORDS[m], numeric=True) for m in names)
    rows = []
    for one in results:
        head = [one.dataset] * several + [one.protocol, _MODES.get(one.mode, one.mode), one.model]
        rows.append((*map(Value, head), *(_bare(_metric(one, m)) for m in names)))
    caption = f"All metrics of every result, {len(rows):,} in all. {_OVER}"
    table = DataTable("table-metrics", caption, columns, tuple(rows))
    return Details("all-metrics", "All metrics", (fitting(table, options, _SHARE, 1),))


def _metric(one: Result, metric: str) -> Number:
    nested = isinstance(members(one.record.metrics.get("test")).get(metric), int | float)
    return number_at(one.record, f"test.{metric}" if nested else metric, metric)


def _bare(number: Number) -> Value:
    return Value("–") if number.value is None else value_of(number)
