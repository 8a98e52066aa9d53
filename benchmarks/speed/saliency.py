"""Occlusion saliency: the study's loop against batches, and against batches that share the early layers.

The loop forwards one occluded image after the other through the eager model in float32. `batched` makes
the occluded images on the device and runs the rewritten backbone on the whole of each; `shared` runs each
layer only where the square can have changed something; both as the evaluation does, accumulation included.
Every contender is timed on a sample of places drawn over the whole image (what is shared depends on the
place), and the seconds of an image are extrapolated from it; base image and accumulation count in full.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.common import (
    Spread,
    finish,
    interleaved,
    machine,
    markdown_table,
    parser,
    ratio,
    say,
)
from engine.evals.saliency.occluder import Occluder, Scores
from engine.kernels.occlusion import Squares, accumulate
from engine.models import resolve
from engine.models.forward import windowed_forward
from engine.normalise import normalise
from engine.runtime import Runtime, fix_flags, synchronize


def run(
    model: str = "random/resnet50",
    *,
    loop_places: int = 12,
    places: int = 300,
    rounds: int = 3,
    precisions: Sequence[str] = ("fp32", "bf16"),
    device: str = "auto",
    threads: int | None = None,
    inner: int = 224,
) -> dict[str, Any]:
    """Time one image's occlusion scores.

    Args:
        model: slug.
        loop_places: places that the loop is timed on.
        places: that the others are timed on, at least; whole blocks are taken.
        rounds: each contender once a round.
        precisions: of the contenders; the loop is in float32.
        device, threads: as `Runtime.resolve` takes them.
        inner: side of the map, pixels.

    Returns:
        `{..., contenders: {name: {ms_a_place, image_s, over_loop, places, largest_error}}}`; spreads
        {n, median, min, max}. image_s is extrapolated to all places; largest_error is that of the scores
        against the loop's, at its places.
    """
    squares = Squares(inner + 18)
    spec = resolve(model)
    runtimes = {p: Runtime.resolve(device, p, threads) for p in precisions}
    runtime = next(iter(runtimes.values()))
    flags = fix_flags(runtime)
    pixels = _picture(squares.side)
    loop, truth = _loop(spec, runtime, squares, pixels, loop_places)
    timed: dict[str, Callable[[], Any]] = {"loop": loop}
    counts, errors = {"loop": loop_places}, {"loop": 0.0}
    for precision, each in runtimes.items():
        for name in ("batched", "shared"):
            say(f"{model}, {name} {precision} on {each.device}")
            occluder = Occluder(spec, each, squares)
            if name == "batched":
                occluder.net = windowed_forward.LocalForward(occluder._module, each, squares.side, whole=True)
            label = f"{name} {precision}"
            errors[label] = _largest_error(occluder, pixels, truth)
            timed[label], counts[label] = _sampled(occluder, pixels, places)
    seconds = interleaved(timed, rounds=rounds)
    a_place = {name: [s / counts[name] for s in each] for name, each in seconds.items()}
    return {
        "model": model,
        "runtime": vars(runtime),
        "flags": flags,
        "all_places": squares.count,
        "rounds": rounds,
        "machine": machine(),
        "contenders": {
            name: {
                "ms_a_place": Spread.of([1e3 * s for s in each]),
                "image_s": Spread.of([s * squares.count for s in each]),
                "over_loop": ratio(a_place["loop"], each),
                "places": counts[name],
                "largest_error": errors[name],
            }
            for name, each in a_place.items()
        },
    }


def _picture(side: int) -> NDArray[np.uint8]:
    """Smooth, as photographs are: uint8 [side, side, 3]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    found: NDArray[np.uint8] = (smooth[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return found


def _places(squares: Squares, count: int) -> list[tuple[int, int]]:
    """Rows and columns drawn over the whole grid."""
    drawn = np.random.default_rng(0).choice(squares.count, min(count, squares.count), replace=False)
    return [divmod(int(place), squares.per_axis) for place in drawn]


def _loop(
    spec: Any, runtime: Runtime, squares: Squares, pixels: NDArray[np.uint8], count: int
) -> tuple[Callable[[], Any], dict[tuple[int, int], float]]:
    """The study's way, and the scores that it finds."""
    module = windowed_forward.load(spec).to(runtime.torch_device)
    image = normalise(torch.from_numpy(pixels)[None].to(runtime.torch_device), spec.recipe).contiguous()
    places = _places(squares, count)

    def loop() -> dict[tuple[int, int], float]:
        found = {}
        with torch.inference_mode():
            feature = module(image)
            for row, column in places:
                copy = image.clone()
                copy[:, :, row : row + squares.size, column : column + squares.size] = 0
                found[row, column] = float((module(copy) - feature).norm() / feature.norm())
        return found

    return loop, loop()


def _sampled(occluder: Occluder, pixels: NDArray[np.uint8], least: int) -> tuple[Callable[[], None], int]:
    """The evaluation on some blocks, drawn, and the number of their places."""
    blocks = occluder.blocks()
    each = len(blocks[0].rows) * len(blocks[0].columns)
    count = min(len(blocks), -(-least // each))
    drawn = np.random.default_rng(1).choice(len(blocks), count, replace=False)
    done = np.ones((occluder.squares.per_axis,) * 2, np.bool_)
    for block in drawn:
        done[blocks[block].slices] = False

    def run() -> None:
        scores = Scores(np.zeros(done.shape), done.copy())
        occluder.score(pixels, scores, check=False)
        accumulate(scores.values, occluder.squares)
        synchronize(occluder.runtime.device)

    return run, int((~done).sum())


def _largest_error(
    occluder: Occluder, pixels: NDArray[np.uint8], truth: dict[tuple[int, int], float]
) -> float:
    scores = Scores.none(occluder.squares)
    scores.done[:] = True
    for place in truth:
        scores.done[place] = False
    found, _ = occluder.score(pixels, scores, check=False)
    return max(abs(float(found.values[place]) - score) for place, score in truth.items())


def _table(result: dict[str, Any]) -> str:
    lines = [
        [
            name,
            row["places"],
            str(row["ms_a_place"]),
            str(row["image_s"]),
            str(row["over_loop"]),
            f"{row['largest_error']:.1e}",
        ]
        for name, row in result["contenders"].items()
    ]
    runtime = result["runtime"]
    head = (
        f"{result['model']} on {runtime['device']}, {runtime['threads']} threads; seconds of an image are "
        f"extrapolated from the sample to {result['all_places']:,} places\n\n"
    )
    columns = ["how", "places timed", "ms a place", "s an image", "times the loop", "largest error"]
    return head + markdown_table(columns, lines)


def main(argv: Sequence[str] | None = None) -> None:
    options = parser((__doc__ or "").partition("\n")[0])
    options.add_argument("--model", default="random/resnet50")
    options.add_argument("--loop-places", type=int, default=12)
    options.add_argument("--places", type=int, default=300)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument(
        "--precision", action="append", choices=["fp32", "bf16"], help="repeat; both if left out"
    )
    options.add_argument("--device", default="auto")
    options.add_argument("--threads", type=int, default=None)
    options.add_argument("--inner", type=int, default=224, help="side of the map, pixels")
    asked = options.parse_args(argv)
    result = run(
        asked.model,
        loop_places=asked.loop_places,
        places=asked.places,
        rounds=asked.rounds,
        precisions=asked.precision or ("fp32", "bf16"),
        device=asked.device,
        threads=asked.threads,
        inner=asked.inner,
    )
    finish(result, _table(result), asked)


if __name__ == "__main__":
    main()
