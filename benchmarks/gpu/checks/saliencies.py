"""Occlusion saliency on the device, compared with complete forward passes and with the CPU."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.floors import GEMM, Bound
from benchmarks.gpu.suite import Context, Verdict, measurement, proof
from benchmarks.gpu.targets import OCCLUSION
from benchmarks.gpu.timing import ConvolutionFlop
from engine.evals.saliency.occluder import Occluder, Scores
from engine.kernels.occlusion import Squares, accumulate, attentive_diffusion
from engine.runtime import Precision, count_copies, fix_flags, synchronize


def _picture(side: int) -> NDArray[np.uint8]:
    """Return an image of coloured blocks, uint8 [side, side, 3]."""
    coarse = np.random.default_rng(0).integers(0, 256, (side // 8 + 1, side // 8 + 1, 3), dtype=np.uint8)
    image: NDArray[np.uint8] = coarse.repeat(8, axis=0).repeat(8, axis=1)[:side, :side]
    return image


def _slug(context: Context) -> str:
    return str(context.pick("random/resnet50", "random/resnet18"))


@proof("saliency: on the device, against the CPU and whole forward passes", seconds=30, rank=9)
def saliency_agrees(context: Context) -> Verdict:
    spec, side = context.spec(_slug(context)), context.side + 18
    squares = Squares(side, 10, 10)
    numbers: dict[str, Any] = {}
    maps = {}
    for name, runtime in {"cpu": context.cpu, "device": context.runtime("fp32")}.items():
        fix_flags(runtime)
        occluder = Occluder(spec, runtime, squares)
        scores, error = occluder.score(_picture(side))
        assert error is not None
        occluder.close()
        maps[name] = accumulate(scores.values, squares)
        numbers[name] = {"diffusion": attentive_diffusion(maps[name]), **error.to_dict()}
    difference = float(np.abs(maps["device"] - maps["cpu"]).max() / maps["cpu"].max())
    numbers["largest_difference"] = difference
    exact = all(numbers[name]["max_error"] <= 1e-4 * numbers[name]["mean_score"] for name in maps)
    limit = "maps within 1e-3 of the largest value; scores within 1e-4 of the mean score of whole passes'"
    return Verdict(numbers, difference <= 1e-3 and exact, limit)


@measurement(OCCLUSION.check, seconds=40, rank=65)
def saliency_seconds(context: Context) -> Verdict:
    spec, side = context.spec(_slug(context)), context.side + 18
    squares = Squares(side, 10, context.pick(1, 4))
    numbers: dict[str, Any] = {"places": squares.count}
    readings = []
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        runtime = context.runtime(precision)
        fix_flags(runtime)
        occluder = Occluder(spec, runtime, squares)
        few = _few(squares)
        occluder.score(_picture(side), few, check=False)  # warm
        synchronize(context.device)
        start = time.perf_counter()
        scores, _ = occluder.score(_picture(side), check=False)
        attentive_diffusion(accumulate(scores.values, squares))
        seconds = time.perf_counter() - start
        few = _few(squares)
        places = int((~few.done).sum())
        with count_copies(context.device) as copies, ConvolutionFlop() as counted:
            occluder.score(_picture(side), few, check=False)
        occluder.close()
        numbers[precision] = {
            "seconds": seconds,
            "places_per_s": squares.count / seconds,
            f"bytes_to_device_of_{places}_places": copies.get("to_device"),
        }
        flop = counted.flop / places * squares.count
        formula = (
            f"2 x outputs x weights of an output, over the convolutions of {places} places in the middle "
            f"and of the whole image, by place, times {squares.count:,}, {precision}"
        )
        # float32 is the evaluation's precision unless it is told otherwise.
        name = OCCLUSION.name if precision == "fp32" else f"{OCCLUSION.name} in {precision}"
        readings.append(context.reading(name, seconds, "s", Bound("gemm", GEMM[precision], flop, formula)))
    return Verdict(numbers, limit="pixels to map, weights loaded before", readings=tuple(readings))


def _few(squares: Squares) -> Scores:
    """Return scores of which a block in the middle is not done yet."""
    few = Scores.none(squares)
    few.done[:] = True
    middle = slice(max(0, squares.per_axis // 2 - 8), squares.per_axis // 2 + 8)
    few.done[middle, middle] = False
    return few
