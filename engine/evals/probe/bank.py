"""Probes from the bank: several models and label columns in, one result and one RunRecord each out."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from engine.errors import Refused
from engine.evals.probe.as_published import probe_published
from engine.evals.probe.evaluate import ProbeOptions, Progress, Task, probe_task
from engine.evals.probe.lowshot import LowShot, low_shot
from engine.evals.probe.multilabel import probe_findings
from engine.evals.probe.parts import Columns, SplitOptions, parts
from engine.evals.probe.targets import Policies, Target, from_bank
from engine.evals.probe.targets import together as joined
from engine.executors import SERIAL, Executor, Local
from engine.versions import versions
from stores.bank.reader import Bank, FeatureSet
from stores.bank.records import RunRecord, keep, together


@dataclass(frozen=True)
class BankProbe:
    """What to probe in a bank.

    Attributes:
        labels: columns of the manifest.
        multi_label: learn all of them in one run, one-vs-rest.
        policies: the columns are findings, whose uncertain and blank cells become this; None for
            columns of classes.
        splits: which rows play which part.
        low_shot: also draw low-shot curves.
    """

    labels: tuple[str, ...] = ("label",)
    multi_label: bool = False
    policies: Policies | None = None
    splits: SplitOptions = field(default_factory=SplitOptions)
    low_shot: LowShot | None = None

    def __post_init__(self) -> None:
        if self.multi_label and self.low_shot:
            raise Refused(
                "--low-shot with --multi-label",
                "So many images per class are drawn of one label column at a time",
                "leave --multi-label out",
            )

    @property
    def findings(self) -> bool:
        return self.multi_label or self.policies is not None


def probes_from_bank(
    bank: Path | str,
    models: Sequence[str],
    asked: BankProbe | None = None,
    options: ProbeOptions | None = None,
    *,
    executor: Executor = SERIAL,
    on_progress: Callable[[str], Progress] | None = None,
) -> list[dict[str, Any]]:
    """Probe every model on every label column (or on all columns together) and keep RunRecords.

    Args:
        models: slugs or feature names.
        executor: its workers share the models and columns; they must see the bank at the same place.
        on_progress: given `model, label`, what `engine.evals.probe.evaluate.probe` reports to.

    Returns:
        For each model and label `{model, label, test, best_C, val_score, converged, objective, ...}`:
        fractions, log loss in nats, seconds.

    Raises:
        Refused: unknown models, columns or splits, or what `engine.evals.probe.evaluate.probe` refuses.
        BankError: a damaged bank.
    """
    asked, options = asked or BankProbe(), options or ProbeOptions()
    _refuse_unpublished(asked, options)
    store = Bank.open(bank)
    chosen = [store.features(model) for model in models]
    if not chosen or len({each.name for each in chosen}) < len(chosen):
        raise Refused(f"models {list(models)}", "Each model is named once", "drop the repetition")
    targets = from_bank(store, asked.labels, findings=asked.findings, policies=asked.policies)
    runs = [targets] if asked.multi_label else [[target] for target in targets]
    here = _Here(store, {each.name: each for each in chosen}, {t.column: t for t in targets}, on_progress)
    tasks = [
        _ProbeTask(position, features.name, tuple(target.column for target in run))
        for position, (features, run) in enumerate(product(chosen, runs))
    ]
    results: dict[int, tuple[dict[str, Any], RunRecord]] = {}
    with executor.session(_Probes(bank, asked, options, Local(here))) as session:
        session.run(tasks, results.update)
    for position in range(len(tasks)):  # when all of it has been computed
        entry, record = results[position]
        keep(record, store.path, entry)
    return [results[position][0] for position in range(len(tasks))]


@dataclass(frozen=True)
class _Here:
    """What the process that asks for probes has opened already, and where it shows progress."""

    store: Bank
    features: Mapping[str, FeatureSet]
    targets: Mapping[str, Target]
    on_progress: Callable[[str], Progress] | None


@dataclass(frozen=True)
class _ProbeTask:
    """One result: a feature, by its full name, on label columns that are learnt together."""

    position: int
    feature: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class _Probes:
    """What a process needs to probe a bank's features: an executor's job."""

    bank: Path | str
    asked: BankProbe
    options: ProbeOptions
    here: Local[_Here] = field(default_factory=Local, compare=False)

    def open(self) -> "_Prober":
        """Read what the probes share."""
        return _Prober(self)


class _Prober:
    """Probes features of one bank, one after another."""

    def __init__(self, job: _Probes) -> None:
        self._job, here = job, job.here.value
        self._store = here.store if here else Bank.open(job.bank)
        self._columns = Columns.of(self._store)

    def run(
        self,
        tasks: Sequence[_ProbeTask],
        report: Callable[[dict[int, tuple[dict[str, Any], RunRecord]]], None],
        /,
    ) -> None:
        """Report each result with its record, which is not written yet, by its position."""
        asked, options, here = self._job.asked, self._job.options, self._job.here.value
        for task in tasks:
            features, targets = self._inputs(task)
            on_progress = here.on_progress if here else None
            with together(write=False) as batch:
                entry = _run(self._store, features, targets, self._columns, asked, options, on_progress)
            ((record, _, _),) = batch.waiting
            report({task.position: (entry, record)})

    def _inputs(self, task: _ProbeTask) -> tuple[FeatureSet, list[Target]]:
        here, asked = self._job.here.value, self._job.asked
        if here:
            return here.features[task.feature], [here.targets[column] for column in task.columns]
        policies = asked.policies
        targets = from_bank(self._store, task.columns, findings=asked.findings, policies=policies)
        return self._store.features(task.feature), targets

    def close(self) -> None:
        """Hold nothing that must be let go of."""


def _refuse_unpublished(asked: BankProbe, options: ProbeOptions) -> None:
    extra = "--multi-label" if asked.multi_label else "--low-shot" if asked.low_shot else ""
    if options.mode == "as-published" and extra:
        raise Refused(
            f"as-published with {extra}",
            "The study probed one label column with all of its images",
            f"leave {extra} out, or use --mode default",
        )


def _run(
    store: Bank,
    features: FeatureSet,
    run: list[Target],
    columns: Columns,
    asked: BankProbe,
    options: ProbeOptions,
    on_progress: Callable[[str], Progress] | None,
) -> dict[str, Any]:
    start = time.perf_counter()
    model = features.title
    told = on_progress(f"{model}, {', '.join(target.column for target in run)}") if on_progress else None
    if asked.multi_label:
        found = parts(columns, joined(run), features.ok, asked.splits)
        result = probe_findings(features.array, run, found, options, columns.group, told).to_dict()
        result["notes"] = [*found.notes, *result["notes"]]
    else:
        (target,) = run
        found = parts(columns, target.codes, features.ok, asked.splits, target.classes)
        task = Task(target.column, target.classes, target.codes, found)
        if options.mode == "as-published":
            result = probe_published(features.array, task, options, columns.group, told)
        else:
            result = probe_task(features.array, task, options, columns.group, told).to_dict()
        if asked.low_shot:
            drawn = (asked.low_shot, store.image_digest)
            result["low_shot"] = low_shot(features.array, task, options, *drawn, told)
    settings = _settings(asked, options)
    entry = {
        "model": model,
        "feature": features.name,
        **settings,
        **result,
        "other_splits": found.others,
        "targets": [target.to_dict() for target in run],
    }
    entry["seconds"] = round(time.perf_counter() - start, 4)
    _record(store, features, entry, settings)
    return entry


def _settings(asked: BankProbe, options: ProbeOptions) -> dict[str, Any]:
    """What was asked for, less what the result says itself."""
    settings = asdict(options)
    if options.mode == "as-published":
        settings |= {"standardise": False, "backend": "sklearn"}
    del settings["C"], settings["select"]
    policies = asdict(asked.policies) if asked.policies else None
    return {
        **settings,
        "multi_label": asked.multi_label,
        "policies": policies,
        "splits": asdict(asked.splits),
    }


#: Members of an entry that are not metrics of the record.
_APART = ("feature", "seconds", "stages", "masked", "targets")


def _record(store: Bank, features: FeatureSet, entry: dict[str, Any], settings: dict[str, Any]) -> None:
    used = {"feature": features.name, "key": features.key.digest, "manifest_digest": store.manifest_digest}
    fits = entry.get("findings", [entry])
    record = RunRecord.now(
        kind="probe",
        asked={"model": entry["model"], "label": entry["label"], "select": entry["select"], **settings},
        used={**used, "image_digest": store.image_digest, "targets": entry["targets"]},
        metrics={name: each for name, each in entry.items() if name not in (*_APART, *settings)},
        seconds={"total": entry["seconds"], **entry["stages"]},
        versions=versions(),
        failures={each["label"]: each["masked"] for each in fits if "masked" in each},
        convergence={
            each["label"]: {"sweep": _convergence(each["sweep"]), "refit": each["refit"]}
            for each in fits
            if "sweep" in each
        },
    )
    keep(record, store.path, entry)


def _convergence(sweep: dict[str, Any]) -> dict[str, Any]:
    """A sweep's convergence in short; the metrics have every fit's."""
    stuck = [C for C, fine in zip(sweep["C"], sweep["converged"], strict=True) if not fine]
    return {
        "fits": len(sweep["C"]),
        "not_converged": stuck,
        "largest_gradient_norm": max(sweep["gradient_norm"]),
        "iterations": sum(sweep["iterations"]),
    }
