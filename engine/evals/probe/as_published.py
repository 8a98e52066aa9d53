"""The study's linear probe of a task (`as-published`), with a result of the same form as the default's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.probe.options import ProbeOptions
from engine.evals.probe.selection import Select, grid
from engine.evals.probe.single import Progress, part_of
from engine.evals.probe.study_protocol import Metric, published
from engine.evals.probe.task import PublishedResult, Task
from engine.kernels.intervals.metrics_bootstrap import Percentiles, bootstrap_metrics

_METRICS: dict[Select, Metric] = {"accuracy": "accuracy", "mean-per-class": "mean_per_class_accuracy"}


def probe_published(
    features: NDArray[Any],
    task: Task,
    options: ProbeOptions,
    groups: NDArray[np.integer[Any]],
    on_progress: Progress | None = None,
) -> PublishedResult:
    """Run the study's loop and measure how far from converged its fits were, against the default solver.

    Args:
        features: [N, d].
        options: `select` is `accuracy` (None) or `mean-per-class`; grid, scaling and weights are the study's.
        groups: int [N], of patients, negative where unknown.

    Raises:
        Refused: options that the study's loop does not have.
    """
    select: Select = options.select or "accuracy"
    _refuse_others(options, select)
    loop = published(
        features,
        task.codes,
        len(task.classes),
        task.parts,
        metric=_METRICS[select],
        compare=options,
        on_progress=part_of(on_progress, "fits"),
    )
    intervals: Mapping[str, Percentiles] = {}
    if options.bootstrap:
        rows = task.parts.test
        intervals = bootstrap_metrics(
            task.codes[rows],
            loop.probabilities,
            groups[rows],
            resamples=options.bootstrap,
            seed=options.seed,
            unseen=loop.unseen,
        )
    return PublishedResult(task, select, loop, intervals)


def _refuse_others(options: ProbeOptions, select: Select) -> None:
    for value, wanted, option in (
        (select if select not in _METRICS else "", " or ".join(_METRICS), "--select"),
        (options.class_weight if options.class_weight != "none" else "", "none", "--class-weight"),
        (
            "another grid" if grid() != options.C else "",
            "the study's 45 values",
            "--c-min, --c-max, --values",
        ),
    ):
        if value:
            raise Refused(
                f"as-published with {value}", f"Its {option} is {wanted}", "drop it, or use --mode default"
            )
