"""Few-shot from the bank: features in, record out. No image is opened."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.record import Outcome, Part, Used, keep_record
from engine.evals.fewshot.evaluate import compute_for, evaluate_together
from engine.evals.fewshot.options import Options, Protocol
from engine.evals.fewshot.result import FewShotResult
from stores.bank.reader import Bank
from stores.json_types import JsonObject

if TYPE_CHECKING:
    from engine.evals.controls.evaluate import ControlsReport

#: Called with (what, done, to do).
Progress = Callable[[str, int, int], None]


def fewshot_from_bank(bank: Path | str, model: str, protocol: Protocol, **options: Any) -> JsonObject:
    """Run `fewshots_from_bank` for one model."""
    return fewshots_from_bank(bank, [model], protocol, **options)[0]


def fewshots_from_bank(
    bank: Path | str,
    models: Sequence[str],
    protocol: Protocol,
    *,
    split: str | None = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    bootstrap: int = 0,
    controls: bool = False,
    progress: Callable[[str], Progress] | None = None,
) -> list[JsonObject]:
    """Run a few-shot protocol on models' sealed features, all on the same episodes, and keep RunRecords.

    Args:
        models: slugs or feature names.
        split: take images of this split only; None for all.
        controls: also evaluate the controls (`engine.evals.controls`).
        progress: of the controls, called with a model; gives what is called with (what, done, to do).
        backend, device, threads, bootstrap: as for `engine.evals.fewshot.evaluate.fewshot`.

    Returns:
        For each model the protocol and `{model, accuracy, ci95, images, masked, seconds, stages, paired}`:
        accuracy as a fraction, ci95 its half width; `paired` lists, for each other model,
        `{model, difference, ci95, low, high, patients}` of this one minus that one, `low` and `high` over
        episodes. With one model it is empty.

    Raises:
        Refused: an unknown model or split, too few usable images, or options that exclude one another.
    """
    start = time.perf_counter()
    store = Bank.open(bank)
    several = [Features.from_bank(store, model) for model in models]
    names = [features.name for features in several]
    if not names or len(set(names)) != len(names):
        raise Refused(f"models {list(models)}", "Each model is named once", "drop the repetition")
    options = Options.of(protocol, split, bootstrap)
    computes = [compute_for(features.array, device, threads, backend) for features in several]
    opened = time.perf_counter() - start
    results = evaluate_together(several, options, computes)
    reports = []
    for features, compute, result in zip(several, computes, results, strict=True):
        report: JsonObject = {
            "model": features.title,
            "feature": features.name,
            **result.to_dict(),
            "paired": [*_paired(result, results, several)],
            **_masked(result),
            "split": split,
            "backend": backend,
            "device": device,
        }
        own = None
        if controls:
            own = _controls(features, options, result, compute, progress)
            report |= own.to_dict()
        report["seconds"] = round(time.perf_counter() - start, 4)
        stages: JsonObject = {"open": round(opened, 6), **result.seconds}
        before = time.perf_counter()
        _record(report, stages, features, compute, options, result, own)
        report["stages"] = {**stages, "record": round(time.perf_counter() - before, 6)}
        reports.append(report)
    return reports


def _controls(
    features: Features,
    options: Options,
    result: FewShotResult,
    compute: Compute,
    progress: Callable[[str], Progress] | None,
) -> "ControlsReport":
    # Imported here: a study without them starts sooner.
    from engine.evals.controls.evaluate import controls_of

    shown = progress(features.title) if progress else None
    return controls_of("fewshot", features, options, result, compute, seed=options.seed, progress=shown)


def _paired(
    result: FewShotResult, results: Sequence[FewShotResult], several: Sequence[Features]
) -> list[JsonObject]:
    """Return the differences between a result and each other one."""
    return [
        {"model": features.title, **result.minus(other).to_dict()}
        for features, other in zip(several, results, strict=True)
        if other is not result
    ]


def _masked(result: FewShotResult) -> JsonObject:
    """Count the rows that were not used, by reason."""
    assert result.usable is not None
    others: JsonObject = {"other_splits": dict(result.others), "split_notes": list(result.split_notes)}
    return {**result.usable.to_dict(), **others}


#: Members of a report that describe settings and inputs; all others are metrics.
_ASKED = (*Protocol.__dataclass_fields__, "model", "split", "backend", "device")
_FAILURES = ("failed", "unlabelled", "outside_split")
_APART = (*_ASKED, *_FAILURES, "feature", "seconds")


def _record(
    report: JsonObject,
    stages: JsonObject,
    features: Features,
    compute: Compute,
    options: Options,
    result: FewShotResult,
    controls: "ControlsReport | None",
) -> None:
    """Keep a RunRecord of the evaluation in the bank."""
    assert result.drawable is not None
    parts = {"images": Part.of_mask(result.drawable, options.split)}
    used = Used.of(features, compute, parts, backend=result.backend, seed=options.seed)
    outcome = Outcome(
        metrics={name: value for name, value in report.items() if name not in _APART},
        seconds={"total": report["seconds"], **stages},
        failures={name: report[name] for name in _FAILURES},
        predictions=result.predictions(),
        validity=(*result.validity, *(controls.validity if controls else ())),
        patients_apart=bool(result.protocol.group_disjoint),
        caches=controls.caches if controls else (),
    )
    keep_record(report, "fewshot", features, {name: report[name] for name in _ASKED}, used, outcome)
