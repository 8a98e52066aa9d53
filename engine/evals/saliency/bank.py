"""Saliency from a bank alone: its images, its model, a runtime of one's choice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.evals.saliency.evaluate import Progress, SaliencyMap, saliency
from engine.evals.saliency.images import open_images
from engine.evals.saliency.options import SaliencyOptions
from engine.runtime import Runtime


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
) -> dict[str, Any]:
    """Measure occlusion maps and attentive diffusion of a bank's images; keeps maps and a RunRecord.

    The encoder computes in float32.

    Args:
        model: slug or feature name.
        options: what to measure; None is `SaliencyOptions()`, 8 images.
        weights, root: weights file and image folder, where they are not at their recorded places any more.
        device: `auto`, `cpu`, `cuda` or `cuda:N`. threads: of the CPU.
        on_progress, on_map: as for `engine.evals.saliency.evaluate.saliency`.

    Returns:
        As `engine.evals.saliency.evaluate.saliency`.

    Raises:
        Refused, MachineFault: as `engine.evals.saliency.images.open_images` and `saliency`.
    """
    options = options or SaliencyOptions()
    images = open_images(bank, model, weights=weights, seed=options.seed, root=root)
    runtime = Runtime.resolve(device, "fp32", threads, options.seed)
    return saliency(images, options, runtime=runtime, on_progress=on_progress, on_map=on_map)
