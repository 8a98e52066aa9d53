"""Reconstruction on the device: a batch of networks against each alone and the CPU, and its rate."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.floors import GEMM, Bound
from benchmarks.gpu.suite import Context, Verdict, measurement, proof
from benchmarks.gpu.timing import ConvolutionFlop
from engine.evals.reconstruction.generator import Architecture
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


def _protocol(context: Context, updates: int) -> Protocol:
    """Return the study's network, or a small one for a quick run."""
    small = Architecture(channels=(8, 16, 16), kernels=(7, 5, 3), depth=8)
    return Protocol(updates, architecture=context.pick(Architecture(), small))


def _first_step(
    context: Context, runtime: Runtime, pixels: NDArray[np.uint8], seeds: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the first losses [N], and their gradients [N, P]."""
    fix_flags(runtime)
    encode = FeatureMap(context.spec(_slug(context)), runtime)
    return Lane(encode, runtime, _protocol(context, 1), pixels, seeds).gradients()


@proof("reconstruction: a batch on the device, against each network alone and the CPU", seconds=30, rank=26)
def reconstruction_agrees(context: Context) -> Verdict:
    count, device = context.pick(4, 2), context.runtime("fp32")
    pixels, seeds = _pictures(count, context.side), list(range(count))
    batch = _first_step(context, device, pixels, seeds)
    singles = [_first_step(context, device, pixels[i : i + 1], seeds[i : i + 1]) for i in seeds]
    here = _first_step(context, context.cpu, pixels, seeds)
    numbers: dict[str, Any] = {"networks": count}
    for name, other in (("alone", tuple(map(np.concatenate, zip(*singles, strict=True)))), ("the CPU", here)):
        numbers[f"loss against {name}"] = float((np.abs(batch[0] - other[0]) / other[0]).max())
        norms = np.linalg.norm(batch[1] - other[1], axis=1) / np.linalg.norm(other[1], axis=1)
        numbers[f"gradient against {name}"] = float(norms.max())
    ok = all(value <= 1e-2 for name, value in numbers.items() if "against" in name)
    limit = "first losses, and gradients in norm, within 1e-2"
    return Verdict(numbers, ok, limit)


@measurement("reconstruction: updates of networks, one at a time and in batches", seconds=40, rank=82)
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
                encode,
                runtime,
                _protocol(context, updates + 2),
                _pictures(count, context.side),
                list(range(count)),
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
