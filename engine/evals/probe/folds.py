"""Cross-validation of a probe: k folds by patient, stratified by class, repeated with other seeds.

The folds are those that `embank manifest split --folds` makes with the same seed (`stores.manifest.cutting`).
Each fold is tested once by a probe of the others, whose C is chosen on a part of these, cut off by patient.
Repeat r is cut with seed + r.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.validity import ValidityIssue
from engine.evals.probe.fold_options import Folds
from engine.evals.probe.fold_result import FoldResult, FoldsResult
from engine.evals.probe.options import ProbeOptions, SplitOptions
from engine.evals.probe.parts import Columns, Parts, parts
from engine.evals.probe.single import Progress, probe_task
from engine.evals.probe.targets import Target
from engine.evals.probe.task import Task
from engine.kernels.intervals.metrics_bootstrap import Percentiles, bootstrap_metrics
from engine.kernels.metrics import Evaluation
from stores.manifest.cutting import Units, into_folds

#: The split of the rows that are learned from and tested, while one fold is.
_LEARNED, _TESTED = 0, 1


def fold_of_rows(
    columns: Columns, codes: NDArray[np.int64], classes: Sequence[str], folds: int, seed: int
) -> NDArray[np.int64]:
    """Return the fold of every row, int64 [N], labelled or not.

    Args:
        columns: of the images.
        codes: int64 [N], classes, -1 where a row has none.

    Raises:
        Refused: there are more folds than patients.
    """
    units = Units.of(columns.image_ids, (columns.group, columns.group_names), (codes, classes), seed, "folds")
    labelled = len(np.unique(units.of_row[codes >= 0]))
    if labelled < folds:
        what = "patients (groups)" if len(columns.group_names) else "images"
        raise Refused(
            f"--folds {folds} of {labelled} {what} with a label",
            "A patient is in one fold, and every fold has one",
            f"choose at most --folds {max(labelled, 2)}" if labelled > 1 else "name another label column",
        )
    return into_folds(units, folds)


def probe_folds(
    features: NDArray[Any],
    target: Target,
    ok: NDArray[np.bool_],
    columns: Columns,
    folds: Folds,
    splits: SplitOptions,
    options: ProbeOptions,
    on_progress: Progress | None = None,
) -> FoldsResult:
    """Probe each fold and pool the predictions.

    Args:
        features: [N, d].
        ok: bool [N], rows that have an embedding.
        splits: its `fraction` of the patients learned from chooses C; its seed cuts.
        options: of the fits; intervals are of the pooled predictions.

    Raises:
        Refused: more folds than patients, a fold without an image to test, or as `probe_task`.
    """
    by_fold: list[FoldResult] = []
    alone = replace(options, bootstrap=0)
    for repeat in range(folds.repeats):
        seed = splits.seed + repeat
        fold_of = fold_of_rows(columns, target.codes, target.classes, folds.folds, seed)
        for fold in range(folds.folds):
            if on_progress:
                on_progress("folds", len(by_fold), folds.folds * folds.repeats)
            task = _task(target, ok, columns, fold_of == fold, replace(splits, seed=seed))
            by_fold.append(FoldResult(repeat, fold, probe_task(features, task, alone, columns.group)))
    return _pooled(by_fold, target, ok, columns, folds, options)


def _task(
    target: Target,
    ok: NDArray[np.bool_],
    columns: Columns,
    tested: NDArray[np.bool_],
    splits: SplitOptions,
) -> Task:
    """Return the task of one fold: its rows are the test part, and all others are learned from."""
    split = np.where(tested, _TESTED, _LEARNED)
    fold = replace(columns, split=split, split_names=(splits.train, splits.test))
    rows = parts(fold, target.codes, ok, splits, target.classes)
    return Task(target.column, target.classes, target.codes, rows)


def _pooled(
    by_fold: Sequence[FoldResult],
    target: Target,
    ok: NDArray[np.bool_],
    columns: Columns,
    folds: Folds,
    options: ProbeOptions,
) -> FoldsResult:
    """Put the predictions of all folds together, by repeat and row, and compute their metrics."""
    rows = np.concatenate([one.result.task.parts.test for one in by_fold])
    repeat, fold = (
        np.concatenate(
            [np.full(len(one.result.probabilities), value) for one, value in zip(by_fold, of, strict=True)]
        )
        for of in ([one.repeat for one in by_fold], [one.fold for one in by_fold])
    )
    order = np.lexsort((rows, repeat))
    rows, repeat, fold = rows[order], repeat[order], fold[order]
    probabilities = np.concatenate([one.result.probabilities for one in by_fold])[order]
    truth = target.codes[rows]
    unseen = sorted({code for one in by_fold for code in one.result.refit.unseen})
    intervals: Mapping[str, Percentiles] = {}
    if options.bootstrap:  # all predictions of a patient together, those of all repeats
        units = columns.units[rows]
        intervals = bootstrap_metrics(
            truth, probabilities, units, resamples=options.bootstrap, seed=options.seed, unseen=unseen
        )
    usable = ok & (target.codes >= 0)
    masked = {"failed": int((~ok).sum()), "unlabelled": int((ok & ~usable).sum())}
    none = np.zeros(0, np.intp)
    task = Task(
        target.column, target.classes, target.codes, Parts(none, none, np.flatnonzero(usable), masked)
    )
    return FoldsResult(
        task,
        folds,
        tuple(by_fold),
        rows,
        repeat,
        fold,
        probabilities,
        Evaluation.of(truth, probabilities, unseen=unseen),
        intervals,
        (_sentence(folds, columns), *_partial(by_fold)),
        tuple(_issues(by_fold, folds)),
    )


def _sentence(folds: Folds, columns: Columns) -> str:
    by = "patients (groups)" if len(columns.group_names) else "images, as none has a group"
    repeated = f", {folds.repeats} times" if folds.repeats > 1 else ""
    return f"{folds.folds} folds of all labelled images, whatever their split, by {by}{repeated}"


def _partial(by_fold: Sequence[FoldResult]) -> Iterator[str]:
    """Yield a sentence for each metric that some folds leave undefined."""
    headlines = [one.result.test.headline for one in by_fold]
    for name in headlines[0]:
        defined = sum(math.isfinite(headline[name]) for headline in headlines)
        if defined < len(headlines):
            yield f"{name} is defined in {defined} of {len(headlines)} folds, and their mean is taken"


def _issues(by_fold: Sequence[FoldResult], folds: Folds) -> Iterator[ValidityIssue]:
    """Yield issues of all folds once, and those of some with the fold as the subject."""
    counts: dict[ValidityIssue, int] = {}
    for one in by_fold:
        for problem in dict.fromkeys(one.result.validity):
            counts[problem] = counts.get(problem, 0) + 1
    yield from (problem for problem, count in counts.items() if count == len(by_fold))
    for one in by_fold:
        name = f"fold {one.fold}" if folds.repeats == 1 else f"repeat {one.repeat} fold {one.fold}"
        for problem in dict.fromkeys(one.result.validity):
            if counts[problem] < len(by_fold):
                yield problem.about(name)
