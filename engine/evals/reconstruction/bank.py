"""Reconstruction of the images of a bank, with a record."""

from collections.abc import Callable
from pathlib import Path

from engine.evals.common.image_inputs import Images, open_images
from engine.evals.common.image_record import keep_image_record
from engine.evals.common.record import Outcome
from engine.evals.reconstruction.evaluate import Hooks, Run, measure
from engine.evals.reconstruction.options import ReconstructionOptions
from engine.evals.reconstruction.progress import Progress
from engine.evals.reconstruction.result import Reconstruction
from engine.runtime import Runtime
from stores.json_types import JsonObject

#: Members of a report that are metrics.
_METRICS = ("items", "lpips", "loss", "by_image", "curves", "notes", "failed")


def reconstruct(
    images: Images, options: ReconstructionOptions, *, runtime: Runtime, hooks: Hooks | None = None
) -> JsonObject:
    """Reconstruct images; keeps each reconstruction, a RunRecord, and tables beside it.

    Finished reconstructions are not computed again, and others go on at their last checkpoint.

    Args:
        images: which, of what model, and where to keep reconstructions
            (`engine.evals.common.image_inputs.open_images`).
        runtime: device, precision, threads.

    Returns:
        `{model, items: [{image_id, seed, loss, initial_loss, lpips: {alex, squeeze, vgg, mean}, ...}], lpips:
        {mean, seed_sd, interval}, loss: {...}, by_image, curves, ...}`. What is not defined is NaN, and
        `reason` says why.

    Raises:
        Refused, MachineFault: as `engine.evals.reconstruction.evaluate.measure`.
    """
    run = measure(images, options, runtime, hooks)
    report = run.result.report
    _record(report, images, options, runtime, run)
    return report


def _record(
    report: JsonObject, images: Images, options: ReconstructionOptions, runtime: Runtime, run: Run
) -> None:
    """Keep a RunRecord in the bank."""
    result = run.result
    more_used: JsonObject = {
        **run.settings,
        "reconstructions": result.setting.key,
        "shape": list(result.setting.shape),
        "side": result.setting.side,
        "noise": result.setting.noise,
        "flags": run.flags,
        "lpips_trunks": list(run.trunks),
        "abreast": result.work.abreast,
        "memory": result.work.memory,
    }
    outcome = Outcome(
        {name: report[name] for name in _METRICS},
        {"total": report["seconds"], "estimated": (result.work.estimate or {}).get("seconds")},
        failures=result.failures,
        predictions=result.predictions(),
        validity=result.validity,
    )
    keep_image_record("reconstruct", report, images, run.rows, options, runtime, outcome, more_used)


def reconstruct_from_bank(
    bank: Path | str,
    model: str,
    options: ReconstructionOptions | None = None,
    *,
    weights: Path | None = None,
    root: Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_reconstruction: Callable[[Reconstruction], None] | None = None,
) -> JsonObject:
    """Reconstruct images of a bank from a model's last feature map; keeps reconstructions and a RunRecord.

    Args:
        model: slug or feature name.
        options: what to reconstruct; None is `ReconstructionOptions()`, 4 images with 3 seeds.
        weights, root: weights file and image folder, where they are not at their recorded places any more.
        device: `auto`, `cpu`, `cuda` or `cuda:N`. precision: `fp32`, or on CUDA `bf16`, which is mixed.
        threads: of the CPU.
        on_progress, on_reconstruction: as `engine.evals.reconstruction.progress.Hooks`.

    Returns:
        As `reconstruct`.

    Raises:
        Refused, MachineFault: as `engine.evals.common.image_inputs.open_images` and `reconstruct`.
    """
    options = options or ReconstructionOptions()
    images = open_images(bank, model, weights=weights, seed=options.seed, root=root)
    runtime = Runtime.resolve(device, precision, threads, options.seed)
    return reconstruct(images, options, runtime=runtime, hooks=Hooks(on_progress, on_reconstruction))
