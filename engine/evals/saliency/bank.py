"""Saliency of the images of a bank or of a manifest, with a record."""

from collections.abc import Callable
from pathlib import Path

from engine.evals.common.image_inputs import Images, open_images
from engine.evals.common.image_record import keep_image_record
from engine.evals.common.record import Outcome
from engine.evals.saliency.estimate import Estimate
from engine.evals.saliency.evaluate import Hooks, Progress, Run, measure
from engine.evals.saliency.options import SaliencyOptions
from engine.evals.saliency.result import SaliencyMap
from engine.runtime import Runtime
from stores.json_types import JsonObject


def saliency(
    images: Images,
    options: SaliencyOptions,
    *,
    runtime: Runtime,
    on_progress: Callable[[Progress], None] | None = None,
    on_map: Callable[[SaliencyMap], None] | None = None,
    on_estimate: Callable[[Estimate], None] | None = None,
) -> JsonObject:
    """Measure occlusion maps and attentive diffusion; keeps each map, a RunRecord, and a table beside it.

    Finished maps are not computed again, and an interrupted one goes on where it was last saved.

    Args:
        images: which, of what model, and where to keep maps (`engine.evals.common.image_inputs.open_images`).
        runtime: device, precision, threads.
        on_progress, on_map, on_estimate: as `engine.evals.saliency.evaluate.Hooks`.

    Returns:
        `{model, items: [{image_id, attentive_diffusion, ...}], mean, sd, min, max, interval, stride,
        stride_error, ...}`. Where nothing is defined the value is NaN, and `reason` says why. `stride_error`
        is None at stride 1, else what `engine.evals.saliency.stride_error` measured on one `image_id`.

    Raises:
        Refused, MachineFault: as `engine.evals.saliency.evaluate.measure`.
    """
    run = measure(images, options, runtime, Hooks(on_progress, on_map, on_estimate))
    report = run.result.report
    _record(report, images, options, runtime, run)
    return report


#: Members of a report that are metrics.
_METRICS = ("items", "mean", "sd", "min", "max", "interval", "notes", "places", "stride_error")


def _record(report: JsonObject, images: Images, options: SaliencyOptions, runtime: Runtime, run: Run) -> None:
    """Keep a RunRecord, in the bank or in the folder of the maps."""
    result = run.result
    more_used: JsonObject = {
        **run.settings,
        "maps": result.setting.key,
        "side": result.setting.squares.side,
        "flags": run.flags,
        "network": run.network,
    }
    outcome = Outcome(
        {name: report[name] for name in _METRICS},
        {
            "total": report["seconds"],
            "places_per_s": report["places_per_s"],
            "estimated": result.estimate.seconds if result.estimate else None,
        },
        failures=result.failures,
        predictions=result.predictions(),
        validity=result.validity,
    )
    keep_image_record("saliency", report, images, run.rows, options, runtime, outcome, more_used)


def saliency_from_bank(
    bank: Path | str,
    model: str,
    options: SaliencyOptions | None = None,
    *,
    weights: Path | None = None,
    root: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_map: Callable[[SaliencyMap], None] | None = None,
) -> JsonObject:
    """Measure occlusion maps and attentive diffusion of a bank's images; keeps maps and a RunRecord.

    The encoder computes in float32.

    Args:
        model: slug or feature name.
        options: what to measure; None is `SaliencyOptions()`, 8 images.
        weights, root: weights file and image folder, where they are not at their recorded places any more.
        device: `auto`, `cpu`, `cuda` or `cuda:N`. threads: of the CPU.
        on_progress, on_map: as for `saliency`.

    Returns:
        As `saliency`.

    Raises:
        Refused, MachineFault: as `engine.evals.common.image_inputs.open_images` and `saliency`.
    """
    options = options or SaliencyOptions()
    images = open_images(bank, model, weights=weights, seed=options.seed, root=root)
    runtime = Runtime.resolve(device, "fp32", threads, options.seed)
    return saliency(images, options, runtime=runtime, on_progress=on_progress, on_map=on_map)
