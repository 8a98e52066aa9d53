"""A metric of all models on the same images: values, what the bootstrap needs, and p values of the pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.evals.comparison.answers import Panel
from engine.evals.comparison.tasks import Queries, Task
from engine.kernels.metrics import average_precision, undefined_reasons
from engine.kernels.paired.bootstrap import Areas, Ratios, Statistic
from engine.kernels.paired.delong import Components, differences_of, mean_covariance
from engine.kernels.paired.mcnemar import clustered_mcnemar, mcnemar
from engine.kernels.paired.weighted_areas import RankedRows

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tests:
    """Tests of all pairs by another way than the bootstrap.

    Attributes:
        name: of the test.
        p: float64 [M, M]; NaN where there is none.
        reasons: (a, b) -> why p is NaN, a < b.
    """

    name: str
    p: Floats
    reasons: dict[tuple[int, int], str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Measure:
    """A metric of M models.

    Attributes:
        name: of the finding or class; "" for all of them together.
        values: float64 [M]; NaN where undefined.
        reason: why, or what the values leave out; else "".
        statistic: for the bootstrap; None where the metric is undefined.
        tests: of the pairs; None leaves them to the bootstrap.
        mean_of_others: whether it is the mean of all measures beside it, so that its resamples are, too.
    """

    name: str
    values: Floats
    reason: str
    statistic: Statistic | None
    tests: Tests | None = None
    mean_of_others: bool = False


def measure(tasks: Sequence[Task], metric: str, panel: Panel, name: str = "") -> Measure:
    """Return a metric of tasks; its mean over them where they are several.

    Args:
        metric: a key of `engine.evals.comparison.options.WORDS`.
        name: that the measure gets.
    """
    if metric in ("auroc", "average_precision"):
        return _areas(tasks, metric, panel, name)  # type: ignore[arg-type]
    ratios = {"accuracy": _accuracy, "log_loss": _log_loss}.get(metric, _balanced)
    return ratios(tasks, panel, name)


def by_class(task: Task, metric: str, panel: Panel) -> list[Measure]:
    """Return the AUROC or average precision of each class of a task against the rest."""
    return [
        _areas([task], metric, panel, name, only=place)  # type: ignore[arg-type]
        for place, name in enumerate(task.classes)
    ]


def _sums(panel: Panel, task: Task, columns: Floats) -> Floats:
    """Return sums over patients float64 [M, G, k] of columns [M, t, k]."""
    units = panel.units[task.rows]
    return np.stack(
        [np.stack([np.bincount(units, column, panel.count) for column in own.T], axis=1) for own in columns]
    )


def _measure_ratios(
    panel: Panel,
    parts: Sequence[tuple[Task, Floats, Floats]],
    name: str,
    reason: str = "",
    tests: Tests | None = None,
) -> Measure:
    """Return the mean of ratios.

    Args:
        parts: (task, numerators [M, t, k], denominators [1, t, k]).
    """
    numerators = np.concatenate([_sums(panel, task, top) for task, top, _ in parts], axis=2)
    denominators = np.concatenate([_sums(panel, task, below) for task, _, below in parts], axis=2)
    shares = np.concatenate([np.full(top.shape[2], 1 / top.shape[2]) for _, top, _ in parts]) / len(parts)
    statistic = Ratios(numerators, denominators, shares)
    values = statistic.values(np.ones((panel.count, 1), np.float32))[:, 0]
    return Measure(name, values, reason, statistic, tests)


def _accuracy(tasks: Sequence[Task], panel: Panel, name: str) -> Measure:
    parts = [
        (task, task.right[:, :, None].astype(np.float64), np.ones((1, len(task.rows), 1))) for task in tasks
    ]
    tests = _mcnemar(tasks[0], panel) if len(tasks) == 1 else None
    return _measure_ratios(panel, parts, name, tests=tests)


def _mcnemar(task: Task, panel: Panel) -> Tests:
    models, units = len(task.right), panel.units[task.rows]
    p, reasons, tested = np.full((models, models), np.nan), dict[tuple[int, int], str](), set[str]()
    for a in range(models):
        for b in range(a + 1, models):
            first, second = task.right[a], task.right[b]
            test = clustered_mcnemar(first, second, units) if panel.patients else mcnemar(first, second)
            p[a, b] = p[b, a] = test.p
            tested.add(test.name)
            if test.reason:
                reasons[a, b] = test.reason
    return Tests(" or ".join(sorted(tested)), p, reasons)


def _balanced(tasks: Sequence[Task], panel: Panel, name: str) -> Measure:
    parts = []
    for task in tasks:
        present = np.flatnonzero(task.counts)
        one_hot = (task.truth[:, None] == present).astype(np.float64)
        parts.append((task, task.right[:, :, None] * one_hot, one_hot[None]))
    alone = [task for task in tasks if np.count_nonzero(task.counts) < 2]
    if len(alone) == len(tasks):
        return _undefined(tasks, name, "only one class occurs among the images compared")
    return _measure_ratios(panel, parts, name)


def _log_loss(tasks: Sequence[Task], panel: Panel, name: str) -> Measure:
    parts, eps = [], float(np.finfo(np.float64).eps)
    for task in tasks:
        assert task.scores is not None
        impossible = int(np.isin(task.truth, task.unseen).sum())
        if impossible:
            return _undefined(tasks, name, f"{impossible} images are of classes that were not in training")
        true = task.scores[:, np.arange(len(task.truth)), task.truth]
        losses = -np.log(np.clip(true, eps, 1 - eps))
        parts.append((task, losses[:, :, None], np.ones((1, len(task.rows), 1))))
    return _measure_ratios(panel, parts, name)


def _undefined(tasks: Sequence[Task], name: str, reason: str) -> Measure:
    return Measure(name, np.full(len(tasks[0].right), math.nan), reason, None)


def _areas(
    tasks: Sequence[Task],
    kind: Literal["auroc", "average_precision"],
    panel: Panel,
    name: str,
    only: int | None = None,
) -> Measure:
    """Return the mean AUROC or average precision of tasks, each class against the rest."""
    parts, reasons = [], []
    for task in tasks:
        why = undefined_reasons(task.truth, len(task.classes), task.unseen)
        wanted = [1] if len(task.classes) == 2 else [*range(len(task.classes))]
        wanted = wanted if only is None else [only]
        parts += [(task, c) for c in wanted if not why[c]]
        reasons += [why[c] for c in wanted]
    if not parts:
        return _undefined(tasks, name, reasons[0])
    left_out = sum(map(bool, reasons))
    partial = f"mean over {len(parts)} of {len(reasons)}: the others lack a class" if left_out else ""
    ranked = [_ranked(task, c, panel) for task, c in parts]
    statistic = Areas([*zip(*ranked, strict=True)], kind)
    if kind == "average_precision":
        values = np.mean([[_average_precision(rows) for rows in own] for own in ranked], axis=0)
        return Measure(name, values, partial, statistic)
    components = [_components(task, c, own, panel) for (task, c), own in zip(parts, ranked, strict=True)]
    values = np.mean([part.areas for part in components], axis=0)
    return Measure(name, values, partial, statistic, _delong(values, components, panel))


def _delong(values: Floats, components: Sequence[Components], panel: Panel) -> Tests:
    freedom = max(panel.count - 1, 1) if panel.patients else None
    tested = differences_of(values, mean_covariance(components), freedom)
    few = next((part.reason for part in components if part.reason), "")
    few = few.replace(" with ", f" {panel.unit} with ", 1) if few else "the scores do not differ"
    pairs = [(a, b) for b in range(len(values)) for a in range(b)]
    missing = {pair: few for pair in pairs if np.isnan(tested.p[pair])}
    return Tests("delong-obuchowski" if panel.patients else "delong", tested.p, missing)


def _components(task: Task, c: int, ranked: Sequence[RankedRows], panel: Panel) -> Components:
    """Return DeLong's components of a class, which a task keeps for its own measure and for the mean."""
    if c not in task.components:
        scores = np.stack([rows.scores for rows in ranked])
        task.components[c] = Components.of(ranked[0].positive, scores, ranked[0].units, panel.count)
    return task.components[c]


def _ranked(task: Task, c: int, panel: Panel) -> list[RankedRows]:
    """Return the rows of a class against the rest, for each model."""
    assert task.scores is not None
    positive, units = task.truth == c, panel.units[task.rows]
    return [RankedRows(positive, scores[:, c], units, panel.count) for scores in task.scores]


def _average_precision(rows: RankedRows) -> float:
    return average_precision(rows.positive, rows.scores.astype(np.float64))


def measure_queries(own: Queries, panel: Panel) -> Measure:
    """Return the accuracy of few-shot queries."""
    correct, queries = (
        np.array([np.bincount(panel.units, counts, panel.count) for counts in table], np.float64)
        for table in (own.correct, own.queries)
    )
    statistic = Ratios(correct[:, :, None], queries[:, :, None], np.ones(1))
    values = own.correct.sum(axis=1) / own.queries.sum(axis=1)
    return Measure("", values, "", statistic)
