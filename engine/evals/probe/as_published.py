"""The study's linear probe on a task (`as-published`), as a result of the same shape as the default's."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.probe.evaluate import ProbeOptions, Progress, Task, part_of
from engine.evals.probe.selection import Select, grid
from engine.evals.probe.study_protocol import Metric, Published, PublishedFit, published
from engine.kernels.intervals import resampled

_METRICS: dict[Select, Metric] = {"accuracy": "accuracy", "mean-per-class": "mean_per_class_accuracy"}


def probe_published(
    features: NDArray[Any],
    task: Task,
    options: ProbeOptions,
    groups: NDArray[np.integer[Any]],
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the study's loop and measure how far from converged its fits were, against the default solver.

    Args:
        options: `select` is `accuracy` (None) or `mean-per-class`; grid, scaling and weights are the study's.

    Returns:
        As `ProbeResult.to_dict`, with C and the sweep as the study counts them (1 / weight decay), and
        `convergence`, a sentence.

    Raises:
        Refused: options that the study's loop does not have.
    """
    select: Select = options.select or "accuracy"
    _refuse_others(options, select)
    found = published(
        features,
        task.codes,
        len(task.classes),
        task.parts,
        metric=_METRICS[select],
        compare=options,
        on_progress=part_of(on_progress, "fits"),
    )
    fits = sorted(found.sweep, key=lambda each: -each.weight_decay)
    return {
        "label": task.name,
        "test": _tested(found, task, options, groups),
        "best_C": found.best_C,
        "weight_decay": found.sweep[found.best].weight_decay,
        "select": select,
        "val_score": found.sweep[found.best].val_score,
        "converged": all(each.converged for each in (*found.sweep, found.final)),
        "objective": found.final.objective,
        "refit": _fit(found.final),
        "sweep": {
            "C": [1 / each.weight_decay for each in fits],
            "val_score": [each.val_score for each in fits],
            **{name: [_fit(each)[name] for each in fits] for name in _fit(fits[0])},
        },
        "convergence": found.convergence,
        "images": {part: len(getattr(task.parts, part)) for part in ("train", "val", "test")},
        "classes": list(task.classes),
        "masked": dict(task.parts.masked),
        "notes": [*task.parts.notes, found.convergence],
        "stages": {name: round(value, 4) for name, value in found.seconds.items()},
    }


def _refuse_others(options: ProbeOptions, select: Select) -> None:
    for asked, wanted, option in (
        (select if select not in _METRICS else "", " or ".join(_METRICS), "--select"),
        (options.class_weight if options.class_weight != "none" else "", "none", "--class-weight"),
        (
            "another grid" if grid() != options.C else "",
            "the study's 45 values",
            "--c-min, --c-max, --values",
        ),
    ):
        if asked:
            raise Refused(
                f"as-published with {asked}", f"Its {option} is {wanted}", "drop it, or use --mode default"
            )


def _fit(each: PublishedFit) -> dict[str, Any]:
    return {
        "objective": each.objective,
        "gradient_norm": each.gradient_norm,
        "iterations": each.iterations,
        "converged": each.converged,
        "excess": each.excess,
    }


def _tested(
    found: Published, task: Task, options: ProbeOptions, groups: NDArray[np.integer[Any]]
) -> dict[str, Any]:
    test = found.test.to_dict(task.classes)
    if options.bootstrap:
        rows = task.parts.test
        intervals = resampled(
            task.codes[rows],
            found.probabilities,
            groups[rows],
            resamples=options.bootstrap,
            seed=options.seed,
            unseen=found.unseen,
        )
        test["intervals"] = {name: each.to_dict() for name, each in intervals.items()}
    return test
