"""Linear probes: multinomial logistic regression on frozen features, its strength chosen on validation.

Every value of C is fitted on the train part; the one that scores best on the validation part is fitted
again on train + validation; that fit alone meets the test part (Anton et al., J. Imaging 2022, 8, 320).
Features are standardised by the rows a fit is trained on: the train part, then train + validation.

The objective is scikit-learn's, ||W||^2 / 2 + C sum_i loss_i with a free intercept; the study's grid runs
over the weight decay 1 / C. Two classes are one logistic regression. The multinomial form with two weight
vectors, the study's, at C equals it at 2 C: the study's C is half of the C here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.labels import Labels
from engine.evals.probe.as_published import probe_published
from engine.evals.probe.folds import probe_folds
from engine.evals.probe.lowshot import low_shot
from engine.evals.probe.multilabel import Unfit, probe_findings
from engine.evals.probe.options import Options, ProbeOptions, SplitOptions
from engine.evals.probe.parts import Columns, parts
from engine.evals.probe.resident import resident
from engine.evals.probe.result import Result
from engine.evals.probe.single import Progress, probe_task
from engine.evals.probe.strata import Division, in_strata
from engine.evals.probe.targets import Target, targets_of, together
from engine.evals.probe.task import ProbeResult, PublishedResult, Task

__all__ = [
    "Options",
    "ProbeOptions",
    "ProbeResult",
    "Problem",
    "Progress",
    "Result",
    "Task",
    "evaluate",
    "evaluate_problem",
    "probe",
    "probe_task",
]


def evaluate(
    features: Features, options: Options, compute: Compute, on_progress: Progress | None = None
) -> Result:
    """Probe features.

    Args:
        on_progress: called with (what, done, to do).

    Raises:
        Refused: no such column or split, an empty part, a single class, too few images for a low-shot draw,
            a score to choose by that is not defined on the validation part, or a backend that cannot run.
    """
    problem = Problem(targets_of(features, options), Columns.of(features))
    return evaluate_problem(features, problem, options, compute, on_progress)


@dataclass(frozen=True)
class Problem:
    """Targets and columns that several models' features of the same images share.

    Attributes:
        targets: what is learned: one, unless options name findings.
        columns: that the parts are taken from.
    """

    targets: tuple[Target, ...]
    columns: Columns


def evaluate_problem(
    features: Features,
    problem: Problem,
    options: Options,
    compute: Compute,
    on_progress: Progress | None = None,
    array: Any = None,
) -> Result:
    """Probe features whose targets and columns have been read; otherwise as `evaluate`.

    Args:
        array: [N, d], the features as `resident` gave them; None lets it.
    """
    fitting, columns, targets = options.on(compute), problem.columns, problem.targets
    array = resident(features, fitting) if array is None else array
    backend = "sklearn" if options.mode == "as-published" else options.backend
    divisions = [Division.of(features, by) for by in options.strata]
    if options.findings:
        chosen_parts = parts(columns, together(targets), features.ok, options.splits)
        findings = probe_findings(array, targets, chosen_parts, fitting, columns.group, on_progress)
        own = [
            finding if isinstance(finding, Unfit) else _divided(finding, divisions, fitting, columns)
            for finding in findings.findings
        ]
        findings = replace(findings, findings=tuple(own))
        return Result(findings, chosen_parts, targets, backend)
    (target,) = targets
    if options.folds is not None:
        folds = probe_folds(
            array, target, features.ok, columns, options.folds, options.splits, fitting, on_progress
        )
        return Result(folds, folds.task.parts, targets, backend)
    chosen_parts = parts(columns, target.codes, features.ok, options.splits, target.classes)
    task = Task(target.column, target.classes, target.codes, chosen_parts)
    if options.mode == "as-published":
        published = probe_published(array, task, fitting, columns.group, on_progress)
        published = _divided(published, divisions, fitting, columns)
        return Result(published, chosen_parts, targets, backend)
    result = probe_task(array, task, fitting, columns.group, on_progress)
    result = _divided(result, divisions, fitting, columns)
    curve = None
    if options.low_shot is not None:
        draws = (options.low_shot, features.data_set)
        curve = low_shot(array, task, fitting, *draws, on_progress)
    return Result(result, chosen_parts, targets, backend, curve)


Tested = TypeVar("Tested", ProbeResult, PublishedResult)


def _divided(
    result: Tested, divisions: Sequence[Division], fitting: ProbeOptions, columns: Columns
) -> Tested:
    """Return a result with its metrics in strata."""
    rows, seed = result.task.parts.test, fitting.seed
    truth, groups = result.task.codes[rows], columns.group[rows]
    answers = (rows, truth, result.probabilities, groups)
    strata = tuple(
        in_strata(one, *answers, resamples=fitting.bootstrap, seed=seed, unseen=result.unseen)
        for one in divisions
    )
    return replace(result, strata=strata)


def probe(
    features: NDArray[Any],
    labels: Any,
    *,
    train: ArrayLike,
    test: ArrayLike,
    val: ArrayLike | None = None,
    groups: Any = None,
    ok: ArrayLike | None = None,
    options: ProbeOptions | None = None,
    on_progress: Progress | None = None,
) -> ProbeResult:
    """Probe arrays.

    Args:
        features: [N, d], any float type; rows with a number that is not finite are masked.
        labels: [N] whole numbers or texts (`engine.evals.common.labels`).
        train, val, test: bool [N] each. Without `val` a fifth of train is cut off, by group.
        groups: [N] patients, as `labels`: for that cut and the intervals; a missing one is one of its own.
        ok: bool [N], rows that have features, where that is known; None looks at all numbers.
        on_progress: called with (what, done, to do).

    Raises:
        Refused: parts that overlap or hold no usable row, a single class, or a score to choose by that
            is not defined on the validation part.
    """
    options = options or ProbeOptions()
    splits = _split_labels(len(features), {"train": train, "val": val, "test": test})
    taken = Features.from_arrays(features, labels, groups=groups, splits=splits, ok=ok)
    if taken.labels.codes.max(initial=-1) < 0:
        raise Refused(
            f"No label among {len(taken)}", "A probe learns labels", "give whole numbers from 0 or texts"
        )
    settings = Options.of(options, splits=SplitOptions(seed=options.seed))
    (target,), columns = targets_of(taken, settings), Columns.of(taken)
    rows = parts(columns, target.codes, taken.ok, settings.splits, target.classes)
    task = Task(target.column, target.classes, target.codes, rows)
    return probe_task(resident(taken, options), task, options, columns.group, on_progress)


def _split_labels(rows: int, masks: Mapping[str, ArrayLike | None]) -> Labels:
    """Return masks [N] of parts as a split column. Raises Refused if they overlap or differ in length."""
    arrays = {name: np.asarray(mask, bool) for name, mask in masks.items() if mask is not None}
    lengths = {rows, *map(len, arrays.values())}
    if len(lengths) > 1:
        raise Refused(
            f"Arrays of {', '.join(map(str, sorted(lengths)))} rows",
            "Features, labels, parts and groups belong to the same rows",
            "give arrays of one length",
        )
    twice = int((np.sum(list(arrays.values()), axis=0) > 1).sum())
    if twice:
        raise Refused(f"{twice} rows in two parts", "No row plays two parts", "separate the parts")
    codes = np.full(rows, -1, np.int64)
    for code, mask in enumerate(arrays.values()):
        codes[mask] = code
    return Labels(codes, tuple(arrays))
