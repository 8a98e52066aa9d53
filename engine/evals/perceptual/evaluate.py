"""LPIPS of two images, or of the images of two folders, pair by pair."""

import time
from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path

import numpy as np
import torch

from engine import malloc
from engine.evals.perceptual.images import RenderedPair, batches
from engine.evals.perceptual.options import PerceptualOptions
from engine.evals.perceptual.pairs import Pair, find_pairs
from engine.evals.perceptual.result import PairDistance, PerceptualResult
from engine.models.perceptual import MIN_SIDE, PerceptualDistance
from engine.runtime import Runtime, fix_flags


def perceptual(
    a: Path | str,
    b: Path | str,
    options: PerceptualOptions | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    allow_outside: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> PerceptualResult:
    """Compute LPIPS of two images, or of the images of two folders that have the same names.

    Args:
        a, b: image files, or folders of them, matched by path without extension. A file without a partner,
            or one that cannot be read, is a pair with a reason instead of distances.
        options: see `PerceptualOptions`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: for decoding, and torch's; None for all usable cores.
        allow_outside: accept links that lead out of the folders.
        on_progress: called with (pairs done, pairs).

    Raises:
        Refused: nothing to compare, or nonsense.
        WeightsError: a trunk is not on this machine, damaged, or does not fit.
        MachineFault: the machine is at fault.
    """
    start = time.perf_counter()
    options = options or PerceptualOptions()
    runtime = Runtime.resolve(device, "fp32", threads)
    pairs = find_pairs(Path(a), Path(b))
    fix_flags(runtime)
    metric = PerceptualDistance(options.nets, runtime.device, options.trunks)
    results: list[PairDistance] = []
    with malloc.retain_freed():  # feature maps of a batch are large, and made anew for each
        for batch in batches(pairs, options, runtime.threads, allow_outside):
            results += _distances(metric, batch, pairs.pairs)
            if on_progress:
                on_progress(len(results), len(pairs.pairs))
    return PerceptualResult(
        results,
        metric.nets,
        metric.trunks,
        options.side,
        runtime.device,
        time.perf_counter() - start,
        _notes(metric),
    )


def _distances(
    metric: PerceptualDistance, batch: Sequence[RenderedPair], pairs: Sequence[Pair]
) -> list[PairDistance]:
    """Compute the distances of a batch: sound pairs of one size, or one that failed."""
    reason = batch[0].reason or _too_small(metric, batch[0].a)
    nothing = dict.fromkeys((*metric.nets, "mean"), nan)
    if reason:
        return [PairDistance(pairs[p.index].a, pairs[p.index].b, nothing, reason) for p in batch]
    a, b = (torch.from_numpy(np.stack([getattr(pair, side) for pair in batch])) for side in "ab")
    by_net = metric.distance(a, b)
    table = torch.stack((*by_net.values(), metric.mean(by_net)), dim=1).cpu()  # one wait for the device
    return [
        PairDistance(pairs[p.index].a, pairs[p.index].b, dict(zip(nothing, row, strict=True)))
        for p, row in zip(batch, table.tolist(), strict=True)
    ]


def _too_small(metric: PerceptualDistance, image: np.ndarray) -> str:
    """Return why images at their own size are too small for a net; empty if they are not."""
    side, needed = min(image.shape[:2]), max(MIN_SIDE[net] for net in metric.nets)
    return f"size: {side} pixels, {needed} or more are needed; leave --own-size out" if side < needed else ""


def _notes(metric: PerceptualDistance) -> tuple[str, ...]:
    own = [trunk.net for trunk in metric.trunks if not trunk.published]
    if not own:
        return ()
    return (
        f"trunk of {', '.join(own)}: not the file that torchvision publishes, so these distances are not "
        "LPIPS as published and compare with each other alone",
    )
