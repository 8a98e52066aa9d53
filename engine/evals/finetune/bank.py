"""Finetuning of several models and label columns, with a result and a RunRecord of each."""

import time
from collections.abc import Sequence
from pathlib import Path

from engine.errors import Refused
from engine.evals.common.record import Outcome, Part, Used, record_about
from engine.evals.finetune.evaluate import Run, options_document, prepare
from engine.evals.finetune.evaluate import finetune as run_one
from engine.evals.finetune.inputs import Inputs
from engine.evals.finetune.options import FinetuneOptions
from engine.evals.finetune.progress import Hooks
from engine.models import ModelSpec, resolve
from engine.models.forward.encoder import build_with_weights
from engine.runtime import Runtime
from stores.bank.layout import MANIFEST
from stores.bank.records import keep
from stores.bank.records import together as recorded_together
from stores.json_types import JsonObject
from stores.manifest.manifest import Manifest
from stores.parquet import Texts


def finetune(
    manifest: Manifest | Path | str,
    models: Sequence[str | ModelSpec],
    bank: Path | str,
    options: FinetuneOptions | None = None,
    *,
    label: str | Sequence[str] = "label",
    runtime: Runtime | None = None,
    allow_outside: bool = False,
    hooks: Hooks | None = None,
) -> list[JsonObject]:
    """Finetune every model on every label column (or on all findings together) and keep RunRecords.

    Checkpoints and finished weights are kept in the bank, which is made if it is not there. Run it again to
    go on; what was finished is only tested again.

    Args:
        manifest: the images, or the path of their list.
        models: slugs or specifications.
        bank: of these images.
        options: what to learn and how; None is `FinetuneOptions()`.
        label: column or columns of classes; not used with findings.
        runtime: device, precision, threads; None chooses, in float32 as published.
        allow_outside: accept paths and links that lead out of the root.
        hooks: called as it goes.

    Returns:
        For each model and label `{model, label, test, steps, best_step, val_score, seconds, ...}`:
        fractions, log loss in nats, seconds.

    Raises:
        Refused, ManifestError, BankError: as `engine.evals.finetune.evaluate.finetune`; nothing was changed.
        Diverged, MachineFault: as there; checkpoints, and models that are finished, are kept.
    """
    options = options or FinetuneOptions()
    runtime = runtime or Runtime.resolve(
        precision="fp32" if options.mode == "as-published" else "auto", seed=options.seed
    )
    manifest = manifest if isinstance(manifest, Manifest) else Manifest.read(str(manifest))
    specs = [resolve(model, seed=options.seed) if isinstance(model, str) else model for model in models]
    _refuse_repetition([spec.slug for spec in specs])
    jobs = [
        Inputs.of_manifest(manifest, spec, bank, label=column, allow_outside=allow_outside)
        for spec in specs
        for column in _columns(options, label)
    ]
    for job in jobs[: len(jobs) // len(specs)]:  # the columns are the same for all models
        prepare(job, options, runtime)
    for spec in specs[1:]:  # refused before the first model is trained
        build_with_weights(spec)
    with recorded_together():
        return [_one(job, options, runtime, hooks or Hooks()) for job in jobs]


def _columns(options: FinetuneOptions, label: str | Sequence[str]) -> tuple[str, ...]:
    if options.findings:
        return (options.findings[0],)
    columns = (label,) if isinstance(label, str) else tuple(label)
    if not columns or len(set(columns)) < len(columns):
        raise Refused(
            f"label columns {', '.join(columns) or '(none)'}",
            "Each column is named once, and at least one",
            "name the columns to learn",
        )
    return columns


def _refuse_repetition(slugs: Sequence[str]) -> None:
    if not slugs or len(set(slugs)) < len(slugs):
        raise Refused(f"models {list(slugs)}", "Each model is named once", "drop the repetition")


def _one(inputs: Inputs, options: FinetuneOptions, runtime: Runtime, hooks: Hooks) -> JsonObject:
    """Finetune one model on one column, and keep a record."""
    start = time.perf_counter()
    run = run_one(inputs, options, runtime, hooks)
    entry: JsonObject = {
        "model": inputs.title,
        "mode": options.mode,
        "device": runtime.device,
        "precision": runtime.precision,
        **run.result.to_dict(),
    }
    entry["seconds"] = round(time.perf_counter() - start, 4)
    entry["trained_seconds"] = round(run.result.training.seconds, 4)
    _record(entry, inputs, options, runtime, run)
    return entry


#: Members of an entry that are not metrics of its record.
_APART = ("model", "device", "precision", "seconds", "stages", "masked", "targets", "failures", "mode")


def _record(entry: JsonObject, inputs: Inputs, options: FinetuneOptions, runtime: Runtime, run: Run) -> None:
    result, manifest, bank = run.result, inputs.manifest, inputs.bank()
    parts, splits = result.problem.parts, options.splits
    words: dict[str, str | None] = {"train": splits.train, "val": splits.val, "test": splits.test}
    words |= dict.fromkeys(parts.cut, splits.train)  # no split of their own
    if not manifest.has("split"):
        words = dict.fromkeys(words)
    spec = inputs.spec
    used = Used(
        feature=inputs.feature,
        title=inputs.title,
        key=inputs.key,
        manifest_digest=manifest.digest,
        image_digest=manifest.image_digest,
        label=result.label,
        splits={part: Part.of(getattr(parts, part), len(manifest), word) for part, word in words.items()},
        device=runtime.device,
        backend="torch",
        threads=runtime.threads,
        seed=options.seed,
    )
    more_used: JsonObject = {
        **run.settings,
        "weights_source": spec.weights_source,
        "flags": run.flags,
        "targets": entry["targets"],
    }
    stages = entry["stages"]
    assert isinstance(stages, dict)
    outcome = Outcome(
        {name: value for name, value in entry.items() if name not in _APART},
        {"total": entry["seconds"], "training": entry["trained_seconds"], **stages},
        failures=result.failures_of_record(),
        convergence={"stopped_early": result.training.stopped, "steps": result.training.steps},
        predictions=result.predictions(),
        validity=result.validity,
    )
    settings: JsonObject = {
        **options_document(options),
        "model": inputs.title,
        "label": result.label,
        "precision": runtime.precision,
    }
    ids = manifest.image_ids
    record = record_about(
        "finetune", lambda: Texts.of(ids), bank.files[MANIFEST], settings, used, outcome, more_used
    )
    keep(record, inputs.home, entry)
