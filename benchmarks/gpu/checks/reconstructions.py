"""Reconstruction on the device: a batch of networks against each alone and the CPU, and its rate."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.floors import GEMM, Bound
from benchmarks.gpu.suite import Context, Verdict, measurement, proof
from benchmarks.gpu.timing import ConvolutionFlop
from engine.evals.reconstruction.lane import Lane, Protocol, bytes_of_network
from engine.models.forward.feature_map import FeatureMap
from engine.runtime import Precision, Runtime, fix_flags, peak_device_bytes, synchronize


def _pictures(count: int, side: int) -> NDArray[np.uint8]:
    """Return images of coloured blocks, uint8 [count, side, side, 3]."""
    coarse = np.random.default_rng(0).integers(
        0, 256, (count, side // 8 + 1, side // 8 + 1, 3), dtype=np.uint8
    )
    images: NDArray[np.uint8] = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :side, :side]
    return images


def _slug(context: Context) -> str:
    return str(context.pick("random/resnet50", "random/resnet18"))


def _losses(
    context: Context, runtime: Runtime, pixels: NDArray[np.uint8], seeds: Sequence[int], updates: int
) -> NDArray[np.float32]:
    """Return losses before each update and after the last, float32 [updates + 1, N]."""
    fix_flags(runtime)
    encode = FeatureMap(context.spec(_slug(context)), runtime)
    lane = Lane(encode, runtime, Protocol(updates), pixels, seeds)
    while lane.running:
        lane.update()
    lane.check()
    _, last, losses = lane.result()
    return np.concatenate([losses, last[None]])


@proof("reconstruction: a batch on the device, against each network alone and the CPU", seconds=30, rank=26)
def reconstruction_agrees(context: Context) -> Verdict:
    count, updates = context.pick(4, 2), context.pick(5, 2)
    pixels, seeds = _pictures(count, context.side), list(range(count))
    device = context.runtime("fp32")
    batch = _losses(context, device, pixels, seeds, updates)
    alone = np.concatenate(
        [_losses(context, device, pixels[i : i + 1], seeds[i : i + 1], updates) for i in seeds], axis=1
    )
    here = _losses(context, context.cpu, pixels, seeds, updates)
    numbers = {
        "networks": count,
        "updates": updates,
        "batch_against_alone": _relative(batch, alone),
        "first_loss_against_cpu": _relative(batch[:1], here[:1]),
        "losses_against_cpu": _relative(batch, here),
        "falls": bool((batch[-1] < batch[0]).all()),
    }
    ok = numbers["first_loss_against_cpu"] <= 1e-3 and numbers["losses_against_cpu"] <= 0.05
    ok &= numbers["batch_against_alone"] <= 0.05
    return Verdict(
        numbers, bool(ok), "first losses within 1e-3, later ones within 5 %: Adam magnifies rounding"
    )


def _relative(values: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float((np.abs(values - expected) / expected).max())


@measurement("reconstruction: updates of networks, one at a time and in batches", seconds=40, rank=76)
def reconstruction_rate(context: Context) -> Verdict:
    numbers: dict[str, Any] = {}
    readings = []
    spec = context.spec(_slug(context))
    precisions: tuple[Precision, ...] = context.pick(("fp32", "bf16"), ("fp32",))
    for precision in precisions:
        runtime = context.runtime(precision)
        fix_flags(runtime)
        encode = FeatureMap(spec, runtime)
        for count in context.pick((1, 16), (1, 2)):
            updates = context.pick(20, 1)
            lane = Lane(
                encode, runtime, Protocol(updates + 2), _pictures(count, context.side), list(range(count))
            )
            peak_device_bytes(context.device, reset=True)
            with ConvolutionFlop() as counted:
                lane.update()
            lane.update()
            synchronize(context.device)
            start = time.perf_counter()
            for _ in range(updates):
                lane.update()
            synchronize(context.device)
            rate = count * updates / (time.perf_counter() - start)
            name = f"reconstruction, {count} at a time, {precision}"
            numbers[name] = {
                "updates_per_s": rate,
                "seconds_of_3000": 3000 / rate,
                "bytes_of_network": bytes_of_network(lane),
                "peak_bytes": peak_device_bytes(context.device),
            }
            formula = f"3 x 2 x outputs x weights of an output, over the convolutions forward, {precision}"
            bound = Bound("gemm", GEMM[precision], 3 * counted.flop / count, formula)
            readings.append(context.reading(name, rate, "updates/s", bound))
    return Verdict(numbers, limit="networks and images on the device", readings=tuple(readings))
