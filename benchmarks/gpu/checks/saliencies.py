"""Occlusion saliency on the device, compared with complete forward passes and with the CPU."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.suite import Context, Verdict, measurement, proof
from engine.evals.saliency.occluder import Occluder, Scores
from engine.kernels.occlusion import Squares, accumulate, attentive_diffusion
from engine.runtime import count_copies, fix_flags, synchronize

#: Target for the map of one image with ResNet-50, in seconds.
TARGET_S = 10.0


def _picture(side: int) -> NDArray[np.uint8]:
    """Return an image of coloured blocks, uint8 [side, side, 3]."""
    coarse = np.random.default_rng(0).integers(0, 256, (side // 8 + 1, side // 8 + 1, 3), dtype=np.uint8)
    image: NDArray[np.uint8] = coarse.repeat(8, axis=0).repeat(8, axis=1)[:side, :side]
    return image


def _slug(context: Context) -> str:
    return str(context.pick("random/resnet50", "random/resnet18"))


@proof("saliency: on the device, against the CPU and whole forward passes", seconds=40, rank=44)
def saliency_agrees(context: Context) -> Verdict:
    spec, side = context.spec(_slug(context)), context.side + 18
    squares = Squares(side, 10, context.pick(8, 10))
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


@measurement("saliency: one image, all places, pixels to map", seconds=60, rank=75)
def saliency_seconds(context: Context) -> Verdict:
    spec, side = context.spec(_slug(context)), context.side + 18
    squares = Squares(side, 10, context.pick(1, 4))
    numbers: dict[str, Any] = {"places": squares.count}
    for precision in ("fp32", "bf16"):
        runtime = context.runtime(precision)
        fix_flags(runtime)
        occluder = Occluder(spec, runtime, squares)
        few = Scores.none(squares)
        few.done[:] = True
        few.done[:16, :16] = False
        occluder.score(_picture(side), few, check=False)  # warm
        synchronize(context.device)
        start = time.perf_counter()
        scores, _ = occluder.score(_picture(side), check=False)
        attentive_diffusion(accumulate(scores.values, squares))
        seconds = time.perf_counter() - start
        few.done[:16, :16] = False
        with count_copies(context.device) as copies:
            occluder.score(_picture(side), few, check=False)
        occluder.close()
        numbers[precision] = {
            "seconds": seconds,
            "places_per_s": squares.count / seconds,
            "bytes_to_device_of_16_x_16_places": copies.get("to_device"),
        }
    return Verdict(numbers, limit=f"at most {TARGET_S:.0f} s an image with ResNet-50 in fp32")
