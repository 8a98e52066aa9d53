"""Probes from the bank: several models and label columns in, one result and one RunRecord each out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.errors import Refused
from engine.evals.probe.as_published import probe_published
from engine.evals.probe.evaluate import ProbeOptions, Progress, Task, probe_task
from engine.evals.probe.lowshot import LowShot, low_shot
from engine.evals.probe.multilabel import probe_findings
from engine.evals.probe.parts import Columns, SplitOptions, parts
from engine.evals.probe.targets import Policies, Target, from_bank, together
from engine.executors import Executor
from engine.versions import versions
from stores.bank.reader import Bank, FeatureSet
from stores.bank.records import RunRecord, keep
from stores.bank.records import together as recorded_together


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
    executor: Executor | None = None,
    on_progress: Callable[[str], Progress] | None = None,
) -> list[dict[str, Any]]:
    """Probe every model on every label column (or on all columns together) and keep RunRecords.

    Args:
        models: slugs or feature names.
        executor: its workers share the models and columns; they must see the bank at the same place. None
            computes here.
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
    if executor:
        return _by_workers(executor, bank, chosen, runs, asked, options)
    columns = Columns.of(store)
    with recorded_together():
        return [
            _run(store, features, run, columns, asked, options, on_progress)
            for features in chosen
            for run in runs
        ]


def _by_workers(
    executor: Executor,
    bank: Path | str,
    chosen: Sequence[FeatureSet],
    runs: Sequence[list[Target]],
    asked: BankProbe,
    options: ProbeOptions,
) -> list[dict[str, Any]]:
    """Each model and run as a task of its own; results in the order of a serial run."""
    jobs = [
        (bank, (features.name,), replace(asked, labels=tuple(target.column for target in run)), options)
        for features in chosen
        for run in runs
    ]
    found = dict(executor.run(_unrecorded, jobs))
    pairs = [pair for position in range(len(jobs)) for pair in found[position]]
    for entry, record in pairs:
        keep(record, bank, entry)
    return [entry for entry, _ in pairs]


def _unrecorded(*job: Any) -> list[tuple[dict[str, Any], RunRecord]]:
    """A worker's results with their records, which are written once all workers have succeeded."""
    with recorded_together(write=False) as batch:
        entries = probes_from_bank(*job)
    return list(zip(entries, (record for record, _, _ in batch.waiting), strict=True))


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
        found = parts(columns, together(run), features.ok, asked.splits)
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
