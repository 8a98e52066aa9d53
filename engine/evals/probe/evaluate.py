"""Linear probes: multinomial logistic regression on frozen features, its strength chosen on validation.

Every value of C is fitted on the train part; the one that scores best on the validation part is fitted
again on train + validation; that fit alone meets the test part (Anton et al., J. Imaging 2022, 8, 320).
Features are standardised by the rows a fit is trained on: the train part, then train + validation.

The objective is scikit-learn's, ||W||^2 / 2 + C sum_i loss_i with a free intercept; the study's grid runs
over the weight decay 1 / C. Two classes are one logistic regression. The multinomial form with two weight
vectors, the study's, at C equals it at 2 C: the study's C is half of the C here.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import Refused
from engine.evals.common.arrays import columns_of, finite
from engine.evals.common.labels import label_codes
from engine.evals.common.one_line import counted, number, within
from engine.evals.probe import solvers
from engine.evals.probe.fitted import Fitted, swept
from engine.evals.probe.parts import Parts, SplitOptions, parts
from engine.evals.probe.selection import C_LIMITS, MAX_VALUES, NOT_UNIQUE, SELECT, VALUES, Select, Sweep, grid
from engine.kernels.intervals import Percentiles, resampled
from engine.kernels.metrics import Evaluation
from engine.kernels.standardize import Moments
from stores import limits

ClassWeight = Literal["none", "balanced"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ProbeOptions:
    """How to probe.

    Attributes:
        C: values tried, each once; `selection.grid()` is the study's.
        standardise: features to mean 0 and standard deviation 1 over the rows trained on.
        class_weight: `balanced` weighs a row by rows / (classes x rows of its class), as scikit-learn does.
        select: the validation score that C is chosen by, of equal ones the better log loss, then the larger
            C; None is `accuracy`, and `auroc` for several findings.
        mode: `default`, or `as-published`: the study's grid order, warm starts and 100 iterations.
        backend: `lockstep`, `sklearn` or `cuml`; all minimise the same objective.
        bootstrap: resamples of the test patients (or images) for intervals; 0 for none.
        seed: of whatever is drawn.
        device: `cpu` or `cuda:N`.
        threads: of the CPU.
    """

    C: tuple[float, ...] = field(default_factory=grid)
    standardise: bool = True
    class_weight: ClassWeight = "none"
    select: Select | None = None
    mode: str = "default"
    backend: str = "lockstep"
    bootstrap: int = 1000
    seed: int = 0
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.select not in (None, *SELECT):
            raise Refused(f"select {self.select!r}", f"It is one of {', '.join(SELECT)}", "choose one")
        if self.class_weight not in ("none", "balanced"):
            raise Refused(f"class weight {self.class_weight!r}", "It is none or balanced", "choose one")
        if self.mode not in ("default", "as-published"):
            raise Refused(f"mode {self.mode!r}", "It is default or as-published", "choose one")
        limits.check_resamples(self.bootstrap)
        limits.check_seed(self.seed)
        limits.check_whole("threads", self.threads, 1, limits.MAX_THREADS)
        limits.check_whole("values of C", len(self.C), 1, MAX_VALUES, f"the study took {VALUES}")
        for C in self.C:
            limits.check_number("C", C, *C_LIMITS, "the study's grid goes from 1e-5 to 1e6")


@dataclass(frozen=True)
class Task:
    """What is learnt, and on which rows.

    Attributes:
        name: of the label column.
        classes: names, in the order of the codes.
        codes: int64 [N], class of each row; negative rows are in no part.
        parts: rows to train, validate and test on.
    """

    name: str
    classes: tuple[str, ...]
    codes: NDArray[np.int64]
    parts: Parts


@dataclass(frozen=True)
class ProbeResult:
    """What came out for one task.

    Attributes:
        task: what was learnt.
        sweep: all fits on the train part, and the chosen one.
        refit: the fit at the chosen C on train + validation; coefficients are for the features as given.
        test: metrics on the test part.
        intervals: 95 % percentile intervals of the headline metrics, by name; empty without bootstrap.
        probabilities: float64 [tests, K], in the order of `task.parts.test`.
        notes: what a reader must know, one sentence each.
        seconds: by stage.
    """

    task: Task
    sweep: Sweep
    refit: Fitted
    test: Evaluation
    intervals: Mapping[str, Percentiles]
    probabilities: NDArray[np.float64]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]

    def __repr__(self) -> str:
        numbers, shown, groups = self.test.headline, [], ""
        for name, word in (("accuracy", "accuracy"), ("auroc", "AUROC")):
            value, found = numbers[name], self.intervals.get(name)
            shown.append(f"{word} {number(value) if found is None else within(value, found.low, found.high)}")
            groups = groups if found is None else f"95 % over {counted(found.groups, 'group')}; "
        converged = "" if self.converged else ", not all fits converged"
        return (
            f"ProbeResult({self.task.name!r}: {', '.join(shown)}; {groups}C = {self.best_C:g}{converged}; "
            f"{counted(len(self.task.parts.test), 'image')} tested, {len(self.task.classes):,} classes)"
        )

    @property
    def best_C(self) -> float:
        return float(self.sweep.C[self.sweep.best])

    @property
    def converged(self) -> bool:
        """Whether every fit of the sweep and the refit did."""
        return bool(self.sweep.converged.all() and self.refit.fits.converged.all())

    def to_dict(self) -> dict[str, Any]:
        """`{label, test, best_C, val_score, converged, objective, sweep, refit, ...}`, plain values."""
        task, fits = self.task, self.refit.fits
        test = self.test.to_dict(task.classes)
        if self.intervals:
            test["intervals"] = {name: found.to_dict() for name, found in self.intervals.items()}
        return {
            "label": task.name,
            "test": test,
            "best_C": self.best_C,
            "weight_decay": 1 / self.best_C,
            "select": self.sweep.select,
            "val_score": float(self.sweep.val_score[self.sweep.best]),
            "flat": self.sweep.flat,
            "converged": self.converged,
            "objective": float(fits.objective[0]),
            "refit": {
                "objective": float(fits.objective[0]),
                "gradient_norm": float(fits.gradient_norm[0]),
                "iterations": int(fits.iterations[0]),
                "converged": bool(fits.converged[0]),
            },
            "sweep": self.sweep.to_dict(),
            "images": {part: len(getattr(task.parts, part)) for part in ("train", "val", "test")},
            "classes": list(task.classes),
            "masked": dict(task.parts.masked),
            "notes": list(self.notes),
            "stages": {name: round(value, 4) for name, value in self.seconds.items()},
        }


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
        on_progress: told (what, done, to do).

    Raises:
        Refused: parts that overlap or hold no usable row, a single class, or a score to choose by that
            is not defined on the validation part.
    """
    options = options or ProbeOptions()
    read = label_codes(labels)
    given = read.codes
    if given.max(initial=-1) < 0:
        raise Refused(
            f"No label among {len(given)}", "A probe learns labels", "give whole numbers from 0 or texts"
        )
    # Codes need not be consecutive; -1 comes first where it occurs.
    values, codes = np.unique(np.maximum(given, -1), return_inverse=True)
    codes -= int(values[0] < 0)
    names = tuple(str(v) if read.names is None else read.names[v] for v in values.tolist() if v >= 0)
    usable = finite(features) if ok is None else np.asarray(ok, bool)
    columns = columns_of(len(codes), {"train": train, "val": val, "test": test}, groups)
    found = parts(columns, codes, usable, SplitOptions(seed=options.seed), names)
    task = Task("label", names, codes, found)
    return probe_task(features, task, options, columns.group, on_progress)


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
    moments = Moments.of(features, rows) if options.standardise else None
    clock.lap("standardise")
    fitted = learn(features, task, rows, options.C, moments, options, on_progress)
    clock.lap("sweep")
    truth = task.codes[task.parts.val]
    sweep, left_out = swept(fitted, features, task.parts.val, truth, select)
    clock.lap("validate")
    rows = np.sort(task.parts.refit)
    again = Moments.of(features, rows) if options.standardise else None
    refit = learn(features, task, rows, [float(sweep.C[sweep.best])], again, options)
    clock.lap("refit")
    notes = [
        *notes_on(features, task, sweep, moments),
        *([f"Validation {select}: {left_out}"] if left_out else []),
    ]
    return examine(features, task, sweep, refit, groups, options, notes, clock)


def learn(
    features: NDArray[Any],
    task: Task,
    rows: NDArray[np.intp],
    C: Sequence[float],
    moments: Moments | None,
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
    """Progress of one named stage."""
    return None if on_progress is None else partial(on_progress, what)


def notes_on(features: NDArray[Any], task: Task, sweep: Sweep, moments: Moments | None) -> Iterator[str]:
    """What a reader must know about the data and the choice, one sentence each."""
    yield from task.parts.notes
    n, d = len(task.parts.train), features.shape[1]
    if n < d:
        yield f"{d} features and {n} train images: {NOT_UNIQUE}"
    if moments is not None and moments.constant:
        yield moments.note
    yield from sweep.notes
    stuck = int((~sweep.converged).sum())
    if stuck:
        yield f"{stuck} of {len(sweep.C)} fits did not converge"


def examine(
    features: NDArray[Any],
    task: Task,
    sweep: Sweep,
    refit: Fitted,
    groups: NDArray[np.integer[Any]],
    options: ProbeOptions,
    notes: Sequence[str],
    clock: "Clock",
) -> ProbeResult:
    """Test a refit: metrics and their intervals."""
    rows = task.parts.test
    truth = task.codes[rows]
    probabilities = refit.probabilities(features, rows)[0]
    test = Evaluation.of(truth, probabilities, unseen=refit.unseen)
    clock.lap("test")
    intervals: Mapping[str, Percentiles] = {}
    if options.bootstrap:
        intervals = resampled(
            truth,
            probabilities,
            groups[rows],
            resamples=options.bootstrap,
            seed=options.seed,
            unseen=refit.unseen,
        )
    clock.lap("bootstrap")
    return ProbeResult(task, sweep, refit, test, intervals, probabilities, tuple(notes), clock.seconds)


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap, or the start, was this stage's."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now
