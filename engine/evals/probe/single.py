"""One task: sweep C on train, choose on validation, refit on both, test."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.validity import Severity, ValidityIssue, issue
from engine.evals.probe import solvers
from engine.evals.probe.calibration import Calibration
from engine.evals.probe.fitted import Fitted, chosen_probabilities, swept
from engine.evals.probe.operating import OperatingPoints
from engine.evals.probe.options import ProbeOptions
from engine.evals.probe.selection import NOT_UNIQUE, Sweep
from engine.evals.probe.task import ProbeResult, Task
from engine.kernels.intervals.metrics_bootstrap import SENSITIVITY, Percentiles, bootstrap_metrics
from engine.kernels.metrics import Evaluation
from engine.kernels.standardize import Scaler

#: Called with (what, done, to do).
Progress = Callable[[str, int, int], None]


def probe_task(
    features: NDArray[Any],
    task: Task,
    options: ProbeOptions,
    groups: NDArray[np.integer[Any]],
    on_progress: Progress | None = None,
) -> ProbeResult:
    """Sweep, choose, refit, test."""
    clock, select = Clock(), options.select or "accuracy"
    rows = task.parts.train
    moments = Scaler.of(features, rows) if options.standardise else None
    clock.lap("standardise")
    fitted = learn(features, task, rows, options.C, moments, options, on_progress)
    clock.lap("sweep")
    truth = task.codes[task.parts.val]
    sweep, left_out = swept(fitted, features, task.parts.val, truth, select)
    train_fit = TrainFit.of(fitted, features, task, sweep)
    clock.lap("validate")
    rows = np.sort(task.parts.refit)
    again = Scaler.of(features, rows) if options.standardise else None
    refit = learn(features, task, rows, [float(sweep.C[sweep.best])], again, options)
    clock.lap("refit")
    notes = [*task.parts.notes, *([f"Validation {select}: {left_out}"] if left_out else [])]
    issues = [*task.parts.validity, *fit_issues(features, task, sweep, refit, moments)]
    return examine(features, task, sweep, refit, train_fit, groups, options, notes, issues, clock)


def learn(
    features: NDArray[Any],
    task: Task,
    rows: NDArray[np.intp],
    C: Sequence[float],
    moments: Scaler | None,
    options: ProbeOptions,
    on_progress: Progress | None = None,
) -> Fitted:
    """Fit a task on rows at every C."""
    known, local = np.unique(task.codes[rows], return_inverse=True)
    targets = np.full(len(task.codes), -1, np.int64)
    targets[rows] = local
    fits = solvers.solve(
        features,
        targets,
        C,
        rows=rows,
        moments=moments,
        options=options,
        on_progress=part_of(on_progress, "values of C"),
    )
    return Fitted(fits, known, len(task.classes))


def part_of(on_progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    """Return a callback that reports the progress of one named stage, or None."""
    return None if on_progress is None else partial(on_progress, what)


def fit_issues(
    features: NDArray[Any], task: Task, sweep: Sweep, refit: Fitted, moments: Scaler | None
) -> Iterator[ValidityIssue]:
    """Yield issues of the features that were fitted, of the choice of C, and of the fits."""
    n, d = len(task.parts.train), features.shape[1]
    if n < d:
        # Regularisation takes care of this, unless the weakest of those tried is best and its C not small.
        weakest = 0 < sweep.best == len(sweep.C) - 1 and sweep.C[sweep.best] >= 1 and not sweep.flat
        text = f"{d} features and {n} train images: {NOT_UNIQUE}"
        yield issue("more_dimensions_than_images", text, d, severity="warning" if weakest else None)
    if moments is not None:
        yield from constant_issues(moments)
    yield from sweep.validity
    if not refit.fits.converged.all():
        text = "The fit on train and validation, which is tested, did not converge"
        yield issue("fits_not_converged", text, 1, severity="error")


def constant_issues(moments: Scaler) -> Iterator[ValidityIssue]:
    """Yield an issue of dimensions that are constant in train, if there are any."""
    if moments.constant:
        many = 2 * moments.constant > len(moments.mean)
        severity: Severity = "warning" if many else "note"
        yield issue("constant_dimensions", moments.note, moments.constant, severity=severity)


@dataclass(frozen=True, eq=False)
class TrainFit:
    """The fit on the train part alone at the chosen C.

    Attributes:
        truth: [n] classes of the validation part.
        probabilities: float64 [n, K], on it.
        tested: float64 [tests, K], on the test part.
        unseen: classes that the fit does not know.
    """

    truth: NDArray[np.integer[Any]]
    probabilities: NDArray[np.float64]
    tested: NDArray[np.float64]
    unseen: list[int]

    @classmethod
    def of(cls, fitted: Fitted, features: NDArray[Any], task: Task, sweep: Sweep) -> "TrainFit":
        """Compute the probabilities of the chosen fit."""
        parts = task.parts
        val, test = (chosen_probabilities(fitted, features, rows, sweep) for rows in (parts.val, parts.test))
        return cls(task.codes[parts.val], val, test, fitted.unseen)


def examine(
    features: NDArray[Any],
    task: Task,
    sweep: Sweep,
    refit: Fitted,
    train_fit: TrainFit,
    groups: NDArray[np.integer[Any]],
    options: ProbeOptions,
    notes: Sequence[str],
    issues: Sequence[ValidityIssue],
    clock: "Clock",
) -> ProbeResult:
    """Test a refit: compute metrics, their intervals, calibration and operating points."""
    rows = task.parts.test
    truth = task.codes[rows]
    probabilities = refit.probabilities(features, rows)[0]
    test = Evaluation.of(truth, probabilities, unseen=refit.unseen)
    clock.lap("test")
    two = probabilities.shape[1] == 2
    intervals: dict[str, Percentiles] = {}
    if options.bootstrap:
        intervals = bootstrap_metrics(
            truth,
            probabilities,
            groups[rows],
            resamples=options.bootstrap,
            seed=options.seed,
            unseen=refit.unseen,
            specificity=options.specificity if two else None,
        )
    clock.lap("bootstrap")
    val = (train_fit.truth, train_fit.probabilities)
    operating = None
    if two:
        operating = OperatingPoints.of(
            val,
            (truth, probabilities),
            groups[rows],
            specificity=options.specificity,
            rule=options.threshold,
            interval=intervals.pop(SENSITIVITY, None),
        )
    calibration = Calibration.of(
        (*val, train_fit.unseen),
        (truth, probabilities, refit.unseen),
        (truth, train_fit.tested, train_fit.unseen),
    )
    clock.lap("calibrate")
    seconds, about = clock.seconds, (calibration, operating)
    notes = [*notes, *([calibration.note] if calibration.note else [])]
    return ProbeResult(
        task, sweep, refit, test, intervals, probabilities, *about, tuple(notes), seconds, tuple(issues)
    )


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap, or since the start, to this stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now
