"""Correlations over models on each data set: of scores with scores, invariance and attentive diffusion."""

import math
from collections.abc import Iterator, Sequence

from engine.report.page.blocks import Column, DataTable, Value
from engine.report.page.cells import count_cell, number_cell, p_cell, score_cell
from engine.report.page.groups import MODES
from engine.report.page.results import CLASSIFYING
from engine.report.page.room import notes_of
from engine.report.page.tasks import Task
from engine.report.statistics import Correlation, adjusted, correlate, reasons_of

#: Fewest models: with three, leaving one out leaves a line.
_LEAST = 4
#: Kinds whose numbers may go with scores.
_OTHERS = ("invariance", "multiview", "saliency")


def correlation_table(
    datasets: Sequence[str], tasks: Sequence[Task], models: Sequence[str]
) -> DataTable | None:
    """Return Pearson's correlations over models; None where no pair of evaluations has four models.

    Args:
        datasets: in the order of the page.
        tasks: evaluations; two are correlated only within a mode.
        models: all that are meant to enter.
    """
    pairs = [(name, a, b) for name in datasets for a, b in _pairs(name, tasks)]
    every = [_correlation(name, a, b, models) for name, a, b in pairs]
    few = sum(one.n < _LEAST for one in every)
    measured = [(pair, one) for pair, one in zip(pairs, every, strict=True) if one.n >= _LEAST]
    if not measured:
        return None
    tests = adjusted([one for _, one in measured])
    rows = tuple(_row(pair, one, models) for (pair, _), one in zip(measured, tests, strict=True))
    tested = sum(not math.isnan(one.p) for one in tests)
    caption = (
        "Correlations over models, on each data set and within one mode: Pearson's r with Fisher's 95 % "
        f"interval; p of Student's t, also after Holm's adjustment for the {tested} tests of this table; "
        f"smallest and largest r without one model. All {len(models)} models: {', '.join(models)}."
    )
    columns = (
        Column("data set"),
        Column("mode"),
        Column("x"),
        Column("y"),
        Column("n", True, "Models that entered"),
        Column("r", True, "With its 95 % interval"),
        Column("p", True),
        Column("p, Holm", True),
        Column("smallest", True, "Smallest r without one model", "r without one model"),
        Column("largest", True, "Largest r without one model", "r without one model"),
        Column("models"),
    )
    notes = notes_of(
        "A correlation over few models can hang on one of them, and models that share data or code are not "
        "independent: p is then too small.",
        f"Pairs of evaluations with fewer than {_LEAST} models, which are left out: {few}." if few else "",
    )
    return DataTable("table-correlations", caption, columns, rows, notes)


def _pairs(dataset: str, tasks: Sequence[Task]) -> Iterator[tuple[Task, Task]]:
    """Yield the evaluations of a data set that are correlated: scores with scores, and others with scores."""
    own = [task for task in tasks if dataset in task.results]
    scores = [task for task in own if task.kind in CLASSIFYING]
    for place, y in enumerate(scores):
        for x in (*scores[:place], *(task for task in own if task.kind in _OTHERS)):
            if x.mode == y.mode:
                yield x, y


def _correlation(dataset: str, x: Task, y: Task, models: Sequence[str]) -> Correlation:
    return correlate(x.numbers(dataset), y.numbers(dataset), models, names=(x.protocol, y.protocol))


def _name(task: Task, dataset: str) -> str:
    _, word = task.metric(dataset)
    return f"{task.protocol} ({word})" if word else task.protocol


def _row(pair: tuple[str, Task, Task], one: Correlation, models: Sequence[str]) -> tuple[Value, ...]:
    dataset, x, y = pair
    return (
        Value(dataset),
        Value(MODES.get(x.mode, x.mode)),
        Value(_name(x, dataset)),
        Value(_name(y, dataset)),
        count_cell(one.n),
        score_cell(one.r, one.low, one.high, reason=one.reason),
        p_cell(one.p),
        p_cell(one.p_adjusted),
        *_without_one(one),
        Value(_entered(one, models)),
    )


def _without_one(one: Correlation) -> tuple[Value, Value]:
    """Return the smallest and the largest r without one model, with the model."""
    defined = sorted((own.r, own.model) for own in one.leave_one_out if not math.isnan(own.r))
    if not defined:
        return number_cell(math.nan, reason=one.reason), number_cell(math.nan, reason=one.reason)
    low, high = (number_cell(r, reason=f"Without {model}") for r, model in (defined[0], defined[-1]))
    return low, high


def _entered(one: Correlation, models: Sequence[str]) -> str:
    if not one.left_out:
        return f"all {len(models)}"
    return f"{', '.join(one.models)}; without {reasons_of(one.left_out)}"
