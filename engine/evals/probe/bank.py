"""Probes of several models and label columns of a bank, with a result and a RunRecord of each."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import EmbankError, Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.record import Outcome, Part, Used, keep_record
from engine.evals.probe.evaluate import ProbeOptions, Problem, Progress, evaluate_problem
from engine.evals.probe.external import Destination, External, ExternalTest, destinations, external_tests
from engine.evals.probe.fold_options import Folds, check_folds
from engine.evals.probe.options import LowShot, Options, Policies, SplitOptions, check_combination
from engine.evals.probe.parts import Columns
from engine.evals.probe.resident import one_ahead
from engine.evals.probe.result import Result
from engine.evals.probe.stratify import Stratify, check_strata
from engine.evals.probe.targets import targets_of
from engine.evals.probe.task import ProbeResult
from engine.executors import Executor
from stores.bank.reader import Bank
from stores.bank.records import RunRecord, keep, not_kept
from stores.bank.records import together as recorded_together
from stores.json_types import JsonObject

if TYPE_CHECKING:
    from engine.evals.controls.evaluate import ControlsReport


@dataclass(frozen=True)
class BankProbe:
    """Columns, parts and curves to probe in a bank.

    Attributes:
        labels: columns of the manifest.
        multi_label: learn all of them in one run, one-vs-rest.
        policies: the columns are findings, whose uncertain and blank cells become this; None for
            columns of classes.
        splits: which rows play which part.
        low_shot: also draw low-shot curves.
        strata: also test in strata of the test images.
        controls: also evaluate the controls (`engine.evals.controls`).
        external: other banks that the probes are tested on.
        folds: test every image by cross-validation, whatever its split.

    Raises:
        Refused: a column of strata named twice, a low-shot curve of several findings, or folds with options
            that they exclude.
    """

    labels: tuple[str, ...] = ("label",)
    multi_label: bool = False
    policies: Policies | None = None
    splits: SplitOptions = field(default_factory=SplitOptions)
    low_shot: LowShot | None = None
    strata: tuple[Stratify, ...] = ()
    controls: bool = False
    external: External = field(default_factory=External)
    folds: Folds | None = None

    def __post_init__(self) -> None:
        check_combination("default", self.multi_label, self.low_shot)
        check_strata(self.strata)
        others = {
            "--multi-label": self.multi_label,
            "--external": bool(self.external.banks),
            "--strata": bool(self.strata),
            "--controls": self.controls,
        }
        check_folds(self.folds, others)

    @property
    def runs(self) -> list[tuple[str, ...]]:
        """The columns of each run."""
        return [self.labels] if self.multi_label else [(column,) for column in self.labels]

    def options(self, fitting: ProbeOptions, run: tuple[str, ...]) -> Options:
        """Return the options of one run."""
        findings = run if self.multi_label else ()
        return Options.of(
            fitting,
            findings=findings,
            policies=self.policies,
            splits=self.splits,
            low_shot=self.low_shot,
            strata=self.strata,
            folds=self.folds,
        )


def probes_from_bank(
    bank: Path | str,
    models: Sequence[str],
    wanted: BankProbe | None = None,
    options: ProbeOptions | None = None,
    *,
    executor: Executor | None = None,
    on_progress: Callable[[str], Progress] | None = None,
) -> list[JsonObject]:
    """Probe every model on every label column (or on all columns together) and keep RunRecords.

    Args:
        models: slugs or feature names.
        wanted: columns and splits; by default the classes of `label`.
        options: how to fit, and where.
        executor: its workers share the models and columns; they must see the bank at the same place. None
            computes here.
        on_progress: called with `model, label`; gives what `engine.evals.probe.evaluate.probe` reports to.

    Returns:
        For each model and label `{model, label, test, best_C, val_score, converged, objective, ...}`:
        fractions, log loss in nats, seconds.

    Raises:
        Refused: unknown models, columns or splits, or what `engine.evals.probe.evaluate.probe` refuses.
        BankError: a damaged bank.
    """
    wanted, options = wanted or BankProbe(), options or ProbeOptions()
    check_combination(options.mode, wanted.multi_label, wanted.low_shot)
    _check_columns(wanted.labels)
    store = Bank.open(bank)
    names = [store.features(model).name for model in models]
    if not names or len(set(names)) < len(names):
        raise Refused(f"models {list(models)}", "Each model is named once", "drop the repetition")
    jobs = [_Job(store, name, run, wanted, options) for name in names for run in wanted.runs]
    problems = _problems(jobs)
    elsewhere = {(job.name, job.run): job.destinations for job in jobs}  # refused before the first fit
    if executor:
        return _by_workers(executor, bank, jobs)
    with recorded_together():
        return _one_by_one(jobs, problems, elsewhere, options, on_progress)


def _one_by_one(
    jobs: Sequence["_Job"],
    problems: Mapping[tuple[str, ...], Problem],
    elsewhere: Mapping[tuple[str, tuple[str, ...]], Sequence[Destination]],
    options: ProbeOptions,
    on_progress: Callable[[str], Progress] | None,
) -> list[JsonObject]:
    """Probe here; the features of a model are sent to a device once for all of its runs."""
    by_model: dict[str, list[_Job]] = {}
    for job in jobs:
        by_model.setdefault(job.name, []).append(job)
    of_models = one_ahead([partial(getattr, own[0], "features") for own in by_model.values()], options)
    return [
        job.do(problems[job.run], elsewhere[job.name, job.run], on_progress, array)
        for own, (_, array) in zip(by_model.values(), of_models, strict=True)
        for job in own
    ]


def _check_columns(columns: tuple[str, ...]) -> None:
    if not columns or len(set(columns)) < len(columns):
        raise Refused(
            f"label columns {', '.join(columns) or '(none)'}",
            "Each column is named once, and at least one",
            "name the columns to learn",
        )


@dataclass(frozen=True)
class _Job:
    """One model on the columns of one run."""

    store: Bank
    name: str
    run: tuple[str, ...]
    wanted: BankProbe
    fitting: ProbeOptions

    @property
    def options(self) -> Options:
        return self.wanted.options(self.fitting, self.run)

    @property
    def compute(self) -> Compute:
        return Compute(self.fitting.device, self.fitting.threads, memory=self.fitting.memory)

    @property
    def features(self) -> Features:
        label = "label" if self.wanted.multi_label else self.run[0]
        return Features.from_bank(self.store, self.name, label=label)

    @property
    def destinations(self) -> tuple[Destination, ...]:
        label = "label" if self.wanted.multi_label else self.run[0]
        return destinations(self.store, self.name, label, self.options, self.wanted.external)

    def do(
        self,
        problem: Problem,
        elsewhere: Sequence[Destination],
        on_progress: Callable[[str], Progress] | None,
        array: Any,
    ) -> JsonObject:
        """Probe, and keep a record; the array is of the model's features, as `resident` gives it."""
        start = time.perf_counter()
        features = self.features
        progress = on_progress(f"{features.title}, {', '.join(self.run)}") if on_progress else None
        result = evaluate_problem(features, problem, self.options, self.compute, progress, array)
        fitted, device = [one for one in result.tasks if isinstance(one, ProbeResult)], self.fitting
        tests = [test for to in elsewhere for test in external_tests(features, fitted, to, device)]
        settings = _settings(self.wanted, self.fitting, result.backend)
        entry: JsonObject = {
            "model": features.title,
            "feature": features.name,
            **settings,
            **result.to_dict(),
        }
        controls = None
        if self.wanted.controls:
            # Imported here: a probe without them starts sooner.
            from engine.evals.controls.evaluate import controls_of

            seed = self.fitting.seed
            controls = controls_of(
                "probe", features, self.options, result, self.compute, seed=seed, progress=progress
            )
            entry |= controls.to_dict()
        if tests:
            entry["external"] = [test.to_dict() for test in tests]
        entry["seconds"] = round(time.perf_counter() - start, 4)
        _record(self, features, entry, settings, result, controls, tests)
        return entry


def _problems(jobs: Sequence[_Job]) -> dict[tuple[str, ...], Problem]:
    """Read the targets of each run, and the columns, which all models share."""
    first = jobs[0].features
    columns = Columns.of(first)
    problems: dict[tuple[str, ...], Problem] = {}
    for job in jobs:
        if job.run not in problems:
            problems[job.run] = Problem(targets_of(job.features, job.options), columns)
    return problems


def _by_workers(executor: Executor, bank: Path | str, jobs: Sequence[_Job]) -> list[JsonObject]:
    """Probe each model and run as a task of its own; return results in the order of a serial run."""
    tasks = [(bank, (job.name,), replace(job.wanted, labels=job.run), job.fitting) for job in jobs]
    done = dict(executor.run(_unrecorded, tasks))
    outcomes = [outcome for position in range(len(tasks)) for outcome in done[position]]
    for entry, record, lost in outcomes:
        if lost is None:
            keep(record, bank, entry)
        else:
            not_kept(lost, entry, record)
    return [entry for entry, _, _ in outcomes]


def _unrecorded(*task: Any) -> list[tuple[JsonObject, RunRecord, EmbankError | None]]:
    """Return a worker's results, each with its record, and with the error why it cannot be kept, if any.

    The records are written once all workers have succeeded.
    """
    with recorded_together(write=False) as batch:
        entries = probes_from_bank(*task)
    waiting = {id(entry) for _, _, entry in batch.waiting}
    lost = iter(batch.lost)
    return [
        (entry, record, None if id(entry) in waiting else next(lost))
        for entry, record in zip(entries, batch.made, strict=True)
    ]


def _settings(wanted: BankProbe, fitting: ProbeOptions, backend: str) -> JsonObject:
    """Return the settings, without those that the result itself states."""
    settings: JsonObject = {**asdict(fitting), "backend": backend}
    if fitting.mode == "as-published":
        settings["standardise"] = False
    del settings["C"], settings["select"], settings["memory"]
    if wanted.external.banks:
        settings["external_validation"] = wanted.external.settings()
    if wanted.folds:
        settings["cross_validation"] = asdict(wanted.folds)
    return {
        **settings,
        "multi_label": wanted.multi_label,
        "policies": asdict(wanted.policies) if wanted.policies else None,
        "splits": asdict(wanted.splits),
        "stratify": [by.word for by in wanted.strata],
    }


#: Members of an entry that are not metrics of its record.
_APART = ("feature", "seconds", "stages", "masked", "targets")


def _record(
    job: _Job,
    features: Features,
    entry: JsonObject,
    settings: JsonObject,
    result: Result,
    controls: "ControlsReport | None",
    tests: Sequence[ExternalTest],
) -> None:
    splits, total = job.wanted.splits, len(features)
    words: dict[str, str | None] = {"train": splits.train, "val": splits.val, "test": splits.test}
    words |= dict.fromkeys(result.parts.cut, splits.train)  # no split of their own
    if not features.split_names:
        words = dict.fromkeys(words)
    parts = {part: Part.of(getattr(result.parts, part), total, word) for part, word in words.items()}
    if job.wanted.folds:
        parts = {"images": Part.of(result.parts.test, total)}
    used = Used.of(features, job.compute, parts, backend=result.backend, seed=job.fitting.seed)
    if job.wanted.multi_label:
        used = replace(used, label=", ".join(target.column for target in result.targets))
    stages = entry["stages"]
    assert isinstance(stages, dict)
    outcome = Outcome(
        metrics={name: value for name, value in entry.items() if name not in (*_APART, *settings)},
        seconds={"total": entry["seconds"], **stages},
        failures={task.task.name: dict(task.task.parts.masked) for task in result.tasks},
        convergence={task.task.name: task.fits for task in result.tasks},
        predictions=result.predictions(),
        validity=(
            *result.validity,
            *(controls.validity if controls else ()),
            *(one for test in tests for one in test.validity),
        ),
        caches=controls.caches if controls else (),
        patients_apart=job.wanted.folds is not None,
    )
    request: JsonObject = {**{name: entry[name] for name in ("model", "label", "select")}, **settings}
    keep_record(entry, "probe", features, request, used, outcome, {"targets": entry["targets"]})
