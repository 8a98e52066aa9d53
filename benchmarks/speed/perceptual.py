"""LPIPS of pairs: networks built once and batches, against networks built again for each pair (the study).

`rebuilt` builds the package's networks for every pair and forwards it alone, as the study did; `single`
builds them once and forwards one pair after the other, as a careful script does; `embank` builds them once,
too, and forwards batches. Images are in memory. Trunks are drawn, which costs no way time, but their files
have no classifiers, so that `rebuilt` reads less than the study did (VGG-16's published file has 528 MB).
"""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lpips
import torch

from benchmarks.speed.common import Spread, finish, interleaved, machine, markdown_table, parser, ratio, say
from benchmarks.trunks import save_trunk
from engine import malloc
from engine.models.perceptual import NETS, PerceptualDistance
from engine.runtime import Runtime, fix_flags, synchronize


def run(
    nets: Sequence[str] = NETS,
    *,
    pairs: int = 16,
    batch_size: int = 16,
    side: int = 224,
    rounds: int = 3,
    device: str = "auto",
    threads: int | None = None,
) -> dict[str, Any]:
    """Time LPIPS of all pairs by each way.

    Args:
        nets: of `alex`, `squeeze` and `vgg`.
        pairs: of images.
        batch_size: of `embank`, in pairs.
        side: of the images, in pixels.
        rounds: with each way once.
        device, threads: as for `Runtime.resolve`.

    Returns:
        `{..., contenders: {name: {ms_a_pair, over_rebuilt, largest_error}}}`; spreads {n, median, min, max};
        the error is relative to `rebuilt`.
    """
    runtime = Runtime.resolve(device, "fp32", threads)
    flags = fix_flags(runtime)
    a, b = _images(pairs, side)
    with tempfile.TemporaryDirectory(prefix="embank-trunks-") as folder:
        files = {net: save_trunk(net, Path(folder)) for net in nets}
        say(f"{', '.join(nets)} on {runtime.device}, {pairs} pairs")
        ways = _ways(a, b, files, runtime.device, batch_size)
        values = {name: way() for name, way in ways.items()}
        seconds = interleaved(ways, rounds=rounds, warm_up=False)
    truth = values["rebuilt"]
    return {
        "nets": list(nets),
        "pairs": pairs,
        "batch_size": batch_size,
        "side": side,
        "rounds": rounds,
        "runtime": vars(runtime),
        "flags": flags,
        "machine": machine(),
        "contenders": {
            name: {
                "ms_a_pair": Spread.of([1e3 * s / pairs for s in times]),
                "over_rebuilt": ratio(seconds["rebuilt"], times),
                "largest_error": float(((values[name] - truth).abs() / truth).max()),
            }
            for name, times in seconds.items()
        },
    }


def _images(count: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return smooth images and noisy copies, uint8 [count, side, side, 3]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 9, 9, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    noisy = smooth + 0.1 * torch.randn(smooth.shape, generator=generator)
    a, b = ((x.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous() for x in (smooth, noisy))
    return a, b


def _ways(
    a: torch.Tensor, b: torch.Tensor, files: dict[str, Path], device: str, batch_size: int
) -> dict[str, Callable[[], torch.Tensor]]:
    """Return name -> function that computes the mean distances of all pairs, float32 [pairs] on the CPU."""
    built = {net: _package(net, file, device) for net, file in files.items()}
    metric = PerceptualDistance(tuple(files), device, files)

    def rebuilt() -> torch.Tensor:
        values = []
        for i in range(len(a)):
            modules = {net: _package(net, file, device) for net, file in files.items()}
            values.append(_mean(modules, a[i], b[i], device))
        return torch.stack(values)

    def single() -> torch.Tensor:
        return torch.stack([_mean(built, a[i], b[i], device) for i in range(len(a))])

    def batched() -> torch.Tensor:
        starts = range(0, len(a), batch_size)
        with malloc.retain_freed():  # as the evaluation does
            parts = [metric.distance(a[i : i + batch_size], b[i : i + batch_size]) for i in starts]
        result = torch.cat([metric.mean(part) for part in parts]).cpu()
        synchronize(device)
        return result

    return {"rebuilt": rebuilt, "single": single, "embank": batched}


def _package(net: str, file: Path, device: str) -> torch.nn.Module:
    """Build a network of the package, and load its trunk as the package does: from torchvision's file."""
    with warnings.catch_warnings(action="ignore"):
        module: torch.nn.Module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    state = torch.load(file, map_location="cpu", weights_only=True)
    trunk: Any = module.net
    trunk.load_state_dict({name: state["features." + name.partition(".")[2]] for name in trunk.state_dict()})
    return module.to(device)


def _mean(modules: dict[str, torch.nn.Module], a: torch.Tensor, b: torch.Tensor, device: str) -> torch.Tensor:
    first, second = (x[None].permute(0, 3, 1, 2).float().div(127.5).sub(1).to(device) for x in (a, b))
    with torch.no_grad():
        values = [module(first, second).reshape(()) for module in modules.values()]
    return torch.stack(values).mean().cpu()


def _table(result: dict[str, Any]) -> str:
    lines = [
        [name, str(row["ms_a_pair"]), str(row["over_rebuilt"]), f"{row['largest_error']:.1e}"]
        for name, row in result["contenders"].items()
    ]
    runtime = result["runtime"]
    head = (
        f"{', '.join(result['nets'])} on {runtime['device']}, {runtime['threads']} threads; "
        f"{result['pairs']} pairs of {result['side']} pixels, batches of {result['batch_size']}\n\n"
    )
    return head + markdown_table(["how", "ms a pair", "times as fast as rebuilt", "largest error"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parser((__doc__ or "").partition("\n")[0])
    options.add_argument("--net", action="append", choices=NETS, help="repeat; all three if left out")
    options.add_argument("--pairs", type=int, default=16)
    options.add_argument("--batch-size", type=int, default=16)
    options.add_argument("--side", type=int, default=224)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--device", default="auto")
    options.add_argument("--threads", type=int, default=None)
    args = options.parse_args(argv)
    result = run(
        args.net or NETS,
        pairs=args.pairs,
        batch_size=args.batch_size,
        side=args.side,
        rounds=args.rounds,
        device=args.device,
        threads=args.threads,
    )
    finish(result, _table(result), args)


if __name__ == "__main__":
    main()
