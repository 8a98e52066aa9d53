"""Invariance from a bank: features and images in, records out."""

import time
from pathlib import Path

import numpy as np

from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.record import Outcome, Part, Used, keep_record
from engine.evals.invariance import multiview
from engine.evals.invariance.evaluate import Access, OnProgress, Run, measure
from engine.evals.invariance.options import InvarianceOptions, MultiViewOptions
from engine.evals.invariance.result import Invariance
from stores.bank.records import together
from stores.json_types import Json, JsonObject


def invariances_from_bank(
    bank: Path | str,
    model: str,
    options: InvarianceOptions,
    *,
    weights: Path | None = None,
    root: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    skip_undefined: bool = False,
) -> list[Invariance]:
    """Measure a model's invariances; keeps a RunRecord of each, and the cosine of each image beside it.

    Args:
        model: slug or feature name.
        weights, root, device: as for `engine.embed.restore.restore`.
        threads: of the CPU; None takes all usable cores.
        on_progress: called during a pass over the images.
        skip_undefined: leave out transforms that the images cannot have, with a reason in the report,
            instead of refusing.

    Raises:
        Refused, MachineFault: as `engine.evals.invariance.evaluate.measure`.
    """
    start = time.perf_counter()
    features = Features.from_bank(bank, model)
    access = Access(weights, root, device, threads)
    run = measure(features, options, access, on_progress=on_progress, skip_undefined=skip_undefined)
    with together():
        for result in run.result.transforms:
            _record(features, run, result, start)
    return list(run.result.transforms)


#: Members of a report that describe settings and inputs; all others are metrics.
_ASKED = ("model", "mode", "transform", "images", "seed", "arithmetic", "batch_norm")
_APART = (*_ASKED, "feature", "seconds", "covariance", "not_reproduced", "failed", "transformed")


def _record(features: Features, run: Run, result: Invariance, start: float) -> None:
    """Keep a RunRecord of one transform."""
    from engine.kernels.transforms import find_transform

    report, setting, runtime = result.report, result.setting, run.runtime
    sample = setting.sample
    parts = {
        "scored": Part.of(sample.scored, len(features)),
        "covariance": Part.of(sample.covariance, len(features)),
    }
    compute = Compute(runtime.device, runtime.threads)
    used = Used.of(features, compute, parts, backend="array", seed=setting.options.seed, labelled=False)
    by_view: JsonObject = {
        "names": list(find_transform(result.transform).parameters),
        "parameters": [list(parameters) for parameters in result.views.parameters],
        "cosine": result.curve.tolist(),
        "ci95": result.curve_ci95.tolist(),
    }
    outcome = Outcome(
        {**{name: value for name, value in report.items() if name not in _APART}, "by_view": by_view},
        {
            "total": round(time.perf_counter() - start, 4),
            "views": round(run.seconds, 4),
            "covariance": round(setting.statistics.seconds, 4),
        },
        failures=setting.failures,
        predictions=result.predictions(),
        validity=result.validity,
    )
    more_used: JsonObject = {name: report[name] for name in ("transformed", "covariance", "not_reproduced")}
    more_used |= {"rows": sample.scored.tolist(), "precision": runtime.numerics}
    settings = {**{name: report[name] for name in _ASKED}, "views": result.views.count}
    keep_record(report, "invariance", features, settings, used, outcome, more_used)


def multiview_from_bank(
    bank: Path | str,
    model: str,
    options: MultiViewOptions,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> JsonObject:
    """Compare pairs of views; keeps a RunRecord, and the cosine of each pair beside it. Opens no image.

    Args:
        model: slug or feature name.
        device: of the products, `cpu` or `cuda:N`.
        threads: of the CPU; None takes all usable cores.

    Returns:
        `{model, transform: "multi-view", cosine, ci95, baseline, n, ...}`; the interval is over patients, the
        baseline over all pairs of a first view and a second view of different patients of one half.

    Raises:
        Refused: as `engine.evals.invariance.multiview.evaluate`.
    """
    start = time.perf_counter()
    features, compute = Features.from_bank(bank, model), Compute.resolve(device, threads)
    result = multiview.evaluate(features, options, compute)
    covariance: list[Json] = [statistics.to_dict() for statistics in result.statistics]
    report: JsonObject = {
        "model": features.title,
        "feature": features.name,
        **result.to_dict(),
        "covariance": covariance,
        "seconds": round(time.perf_counter() - start, 4),
    }
    parts = {
        name: Part.of(rows, len(features))
        for name, rows in (("first", np.unique(result.first)), ("second", np.unique(result.second)))
    }
    used = Used.of(features, compute, parts, backend="array", seed=options.seed, labelled=options.same_label)
    left_out: JsonObject = {**result.pairs.left_out}
    outcome = Outcome(
        {name: value for name, value in report.items() if name not in _APART_OF_PAIRS},
        {"total": report["seconds"]},
        failures=left_out,
        predictions=result.predictions(),
        validity=result.validity,
    )
    settings = {**{name: report[name] for name in _ASKED_OF_PAIRS}, "images": options.images}
    rows: JsonObject = {"first": result.first.tolist(), "second": result.second.tolist()}
    keep_record(
        report, "invariance", features, settings, used, outcome, {"rows": rows, "covariance": covariance}
    )
    return report


_ASKED_OF_PAIRS = ("model", "mode", "transform", "views", "same_label", "seed", "arithmetic")
_APART_OF_PAIRS = (*_ASKED_OF_PAIRS, "feature", "covariance", "left_out", "seconds")
