"""Models across data sets: scaled results with means by domain and group, and correlations over models."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.report.marks import MARK
from engine.report.page.blocks import Block, Column, DataTable, Details, Paragraph, Section, Value
from engine.report.page.comparisons import Comparison, comparison_for, comparisons_of
from engine.report.page.correlations import correlation_table
from engine.report.page.groups import MODES
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.numbers import UNCERTAIN, decimal
from engine.report.page.results import CLASSIFYING
from engine.report.page.room import fitting, notes_of
from engine.report.page.sections.lead import listed
from engine.report.page.tasks import Task, all_models, tasks_of
from engine.report.statistics import (
    GroupMean,
    LeftOut,
    Scaled,
    group_mean,
    means_by_domain,
    n_of,
    reasons_of,
    scale,
)

#: Share of the page for the tables.
_SHARE = 0.04
#: Up to so many evaluations, and correlations, their tables stand open on the page.
_OPEN, _ROWS = 2, 10
_LEAD = (
    "Scaled values compare the models of this study with one another, and say nothing beyond it: 0 is the "
    "lowest value of the named models on a data set and 1 the highest, however close the two are. They "
    "change when a model is added or removed, and a 1 among weak models is still weak: the values themselves "
    "are in the results above."
)


@dataclass(frozen=True)
class _Scaling:
    """One evaluation in one mode, scaled on each data set over the same models.

    Attributes:
        task: the evaluation.
        datasets: data set -> its scaled values; without those that give no scale.
        models: that have a value on each of these.
        left_out: models that do not, and why.
        skipped: data sets that do not enter, and why.
    """

    task: Task
    datasets: Mapping[str, Scaled]
    models: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    skipped: tuple[LeftOut, ...]

    @property
    def title(self) -> str:
        """Protocol and mode."""
        return f"{self.task.protocol}, {MODES.get(self.task.mode, self.task.mode)}"

    @property
    def values(self) -> dict[str, Mapping[str, float]]:
        """Data set -> scaled values."""
        return {name: own.values for name, own in self.datasets.items()}


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section; none with fewer than two data sets or two models."""
    tasks, seeds = tasks_of(page)
    models = all_models(page, tasks)
    if len({name for task in tasks for name in task.results}) < 2 or len(models) < 2:
        return ()
    classifying = [task for task in tasks if task.kind in CLASSIFYING]
    scalings = [own for task in classifying if (own := _scaling(page, task, models)) is not None]
    blocks = list(_scaled_blocks(page, scalings, options))
    correlations = correlation_table([source.name for source in page.sources], tasks, models)
    if correlations is not None:
        table = fitting(correlations, options, _SHARE, 1)
        title = f"Correlations over models ({len(correlations.rows)})"
        closed = len(correlations.rows) > _ROWS
        blocks.append(Details("across-correlations", title, (table,)) if closed else table)
    if not blocks:
        return ()
    lead = [Paragraph(_LEAD)] if scalings else []
    notes = [Paragraph(seeds)] if seeds else []
    return (Section("across", "Models across data sets", (*lead, *blocks, *notes)),)


def _scaling(page: PageInput, task: Task, models: Sequence[str]) -> _Scaling | None:
    """Return an evaluation scaled over models that have it everywhere; None for less than two data sets."""
    numbers = {
        source.name: task.numbers(source.name) for source in page.sources if source.name in task.results
    }
    skipped = [
        LeftOut(name, f"{len(own)} model{'' if len(own) == 1 else 's'} with a value")
        for name, own in numbers.items()
        if len(own) < 2
    ]
    wanted = {name: own for name, own in numbers.items() if len(own) >= 2}
    if len(wanted) < 2:
        return None
    entered = tuple(model for model in models if all(model in own for own in wanted.values()))
    left_out = tuple(
        LeftOut(model, _lacking(page, task, model, wanted)) for model in models if model not in entered
    )
    scaled = {name: scale(own, entered) for name, own in wanted.items()}
    skipped += [LeftOut(name, own.reason) for name, own in scaled.items() if own.reason and len(entered) > 1]
    datasets = {name: own for name, own in scaled.items() if not own.reason}
    return _Scaling(task, datasets, entered, left_out, tuple(skipped))


def _lacking(page: PageInput, task: Task, model: str, wanted: Iterable[str]) -> str:
    """Return why a model has no value, and on which data sets."""
    reasons: dict[str, list[str]] = {}
    for name in wanted:
        if model not in task.numbers(name):
            reasons.setdefault(_why(page, task, model, name), []).append(name)
    return "; ".join(f"{why} on {', '.join(names)}" for why, names in reasons.items())


def _why(page: PageInput, task: Task, model: str, dataset: str) -> str:
    """Return why a model has no value on a data set, as far as it is known."""
    one = task.results[dataset].get(model)
    if one is not None and one.number is not None:
        return one.number.reason or f"judged by {one.number.word}"
    evaluations = {page.evaluations.get(own.entry.id) for of in task.results.values() for own in of.values()}
    states = (
        gap.state
        for gap in page.gaps
        if (gap.dataset, gap.model, gap.mode) == (dataset, model, task.mode) and gap.evaluation in evaluations
    )
    return next(states, "not evaluated")


def _scaled_blocks(page: PageInput, scalings: Sequence[_Scaling], options: PageOptions) -> Iterator[Block]:
    comparisons = comparisons_of(page)
    for place, own in enumerate(scalings, 1):
        blocks: list[Block] = [Paragraph(_nothing(own))]
        if own.datasets:
            blocks = [_models_table(page, own, comparisons, f"table-across-{place}")]
            blocks += _groups_table(page, own, f"table-across-groups-{place}")
        fitted = [
            fitting(b, options, _SHARE, 2 * len(scalings)) if isinstance(b, DataTable) else b for b in blocks
        ]
        if len(scalings) > _OPEN and place > 1:
            yield Details(f"across-{place}", own.title, tuple(fitted))
        else:
            yield from fitted


def _nothing(own: _Scaling) -> str:
    if len(own.models) >= 2:
        return f"{own.title}: no data set gives a scale: {reasons_of(own.skipped)}."
    return (
        f"{own.title}: no scale, since fewer than two models have a value on every data set "
        f"({n_of(len(own.models), own.left_out)})."
    )


def _parts(page: PageInput, own: _Scaling) -> tuple[dict[str, list[str]], list[str]]:
    """Return column -> its data sets, for each domain and for all, and the data sets without a domain."""
    domains: dict[str, list[str]] = {}
    for source in page.sources:
        if source.name in own.datasets:
            domains.setdefault(source.domain, []).append(source.name)
    alone = domains.pop("", [])
    named = {
        f"domain {name}": datasets for name, datasets in domains.items() if len(datasets) < len(own.datasets)
    }
    return {**named, f"all {len(own.datasets)} data sets": list(own.datasets)}, alone if named else []


def _models_table(
    page: PageInput, own: _Scaling, comparisons: Sequence[Comparison], identity: str
) -> DataTable:
    """Return a row for each model: scaled values, and means over the data sets of each domain and all."""
    parts, alone = _parts(page, own)
    means = means_by_domain(own.values, parts, own.models)
    columns = (
        Column("model"),
        *(Column(name, True, _hint(own, name), "scaled, by data set") for name in own.datasets),
        *(Column(name, True, f"Mean over {', '.join(of)}", "mean ± sd") for name, of in parts.items()),
    )
    rows = tuple(
        (
            Value(model),
            *(_scaled_value(own, name, model) for name in own.datasets),
            *(_mean_value(means[part][model]) for part in parts),
        )
        for model in own.models
    )
    caption = (
        f"{own.title}: values scaled on each data set over {_named(own)}. Means are over data sets, "
        "± the standard deviation with divisor n - 1, with n data sets."
    )
    marks = [value.text for row in rows for value in row]
    notes = notes_of(
        _without(own),
        f"No domain is given of {', '.join(alone)}." if alone else "",
        _metrics(own),
        _alike(own, comparisons),
        f"{MARK} Below a control: no evidence for the model." if any(MARK in one for one in marks) else "",
        f"{UNCERTAIN} Not told from a control." if any(UNCERTAIN in one for one in marks) else "",
    )
    return DataTable(identity, caption, columns, rows, notes)


def _named(own: _Scaling) -> str:
    return f"the {len(own.models)} models {', '.join(own.models)}"


def _hint(own: _Scaling, dataset: str) -> str:
    scaled, (_, word) = own.datasets[dataset], own.task.metric(dataset)
    return f"0 is {word} {decimal(scaled.low)}, 1 is {decimal(scaled.high)}; n = {scaled.n} models"


def _scaled_value(own: _Scaling, dataset: str, model: str) -> Value:
    number, value = own.task.results[dataset][model].number, own.datasets[dataset].values[model]
    assert number is not None  # the models that enter have values
    mark = MARK if number.below else UNCERTAIN if number.uncertain else ""
    below = f"; below a control, {number.below}" if number.below else ""
    reason = f"{number.word} {decimal(number.value)}{below}"
    return Value(f"{decimal(value)}{mark}", value, reason=reason, tone="error" if below else None)


def _mean_value(mean: GroupMean) -> Value:
    if math.isnan(mean.mean):
        return Value("undefined", reason=mean.reason)
    sd = "" if math.isnan(mean.sd) else f" ± {decimal(mean.sd)}"
    return Value(f"{decimal(mean.mean)}{sd}, n = {mean.n}", mean.mean, reason=mean.reason)


def _groups_table(page: PageInput, own: _Scaling, identity: str) -> list[DataTable]:
    """Return a row for each group of models: means over its models; nothing where no groups are given."""
    members: dict[str, list[str]] = {}
    for model in own.models:
        members.setdefault(page.groups.get(model, ""), []).append(model)
    alone = members.pop("", [])
    if not members:
        return []
    parts, _ = _parts(page, own)
    means = means_by_domain(own.values, parts, own.models)
    numbers = {**own.values} | {
        name: {model: one.mean for model, one in by_model.items()} for name, by_model in means.items()
    }
    columns = (
        Column("group"),
        Column("models"),
        *(Column(name, True, _hint(own, name), "by data set") for name in own.datasets),
        *(
            Column(name, True, f"Of each model's mean over {', '.join(of)}", "over data sets")
            for name, of in parts.items()
        ),
    )
    rows = tuple(
        (
            Value(group),
            Value(", ".join(models)),
            *(_mean_value(group_mean(values, models)) for values in numbers.values()),
        )
        for group, models in members.items()
    )
    caption = (
        f"{own.title}: scaled values by group of models, scaled over {_named(own)}. Means are over models, "
        "± the standard deviation with divisor n - 1, with n models."
    )
    notes = notes_of(_without(own), f"No group is given of {', '.join(alone)}." if alone else "")
    return [DataTable(identity, caption, columns, rows, notes)]


def _without(own: _Scaling) -> str:
    """Name the models and data sets that do not enter."""
    models = f"{n_of(len(own.models), own.left_out)}." if own.left_out else ""
    datasets = f"Data sets left out: {reasons_of(own.skipped)}." if own.skipped else ""
    return " ".join(part for part in (models, datasets) if part)


def _metrics(own: _Scaling) -> str:
    words = {name: own.task.metric(name)[1] for name in own.datasets}
    if len(set(words.values())) < 2:
        return f"Metric: {next(iter(words.values()))}."
    return f"Metrics differ: {'; '.join(f'{name} {word}' for name, word in words.items())}."


def _alike(own: _Scaling, comparisons: Sequence[Comparison]) -> str:
    """Name the data sets on which no two of the compared models can be told apart."""
    names = []
    for dataset in own.datasets:
        comparison = comparison_for(own.task.results[dataset][own.models[0]], comparisons)
        if (
            comparison is not None
            and comparison.pairs
            and not any(pair.different for pair in comparison.pairs)
        ):
            names.append(dataset)
    if not names:
        return ""
    return (
        f"No two models can be told apart on {listed(names)}: the order of its scaled values may be chance."
    )
