"""Forward passes of frozen backbones: eager float32 as most write it, step by step to what the encoder runs.

Every contender gets the same batch. `eager` to `bf16 autocast` get it normalised already and use torch's own
threads; `encoder` starts from uint8 pixels, normalisation included. Each one's features are compared with
float64's (cosine, largest error), so that no gain is bought with another result.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.speed.common import finish, interleaved, machine, markdown_table, parser, rate, ratio, say
from engine.models import Encoder, resolve
from engine.models.backbones import architectures
from engine.models.checkpoints import weights
from engine.models.forward import fx_fusion
from engine.normalise import normalise
from engine.recipes import Recipe
from engine.runtime import Runtime, autocast, synchronize

MODELS = ("resnet18", "resnet50", "densenet121")
Forward = Callable[[], torch.Tensor]


def run(
    models: Sequence[str] = MODELS,
    *,
    batch: int = 16,
    rounds: int = 9,
    side: int = 224,
    device: str = "auto",
    threads: int | None = None,
    compiled: bool = False,
) -> dict[str, Any]:
    """Time torchvision backbones with random weights and trained-like BatchNorm statistics.

    Args:
        models: torchvision names.
        batch: images a forward pass.
        rounds: each contender once a round.
        side: of an image, in pixels.
        device, threads: as `Runtime.resolve` takes them.
        compiled: also the encoder under torch.compile (minutes of compiling).

    Returns:
        `{machine, runtime, batch, side, models}`; models is name -> contender -> `{img_per_s, over_eager,
        cosine, max_error}`: the first two as {n, median, min, max}; cosine to float64's features is the
        smallest over images, max_error the largest relative to the largest feature.
    """
    runtime = Runtime.resolve(device, "fp32", threads)
    torch.set_num_threads(runtime.threads)
    found = {}
    for name in models:
        say(f"{name}: batch {batch} on {runtime.device}")
        found[name] = _measure(name, batch, rounds, side, runtime, compiled)
    return {
        "machine": machine(),
        "runtime": vars(runtime),
        "batch": batch,
        "side": side,
        "models": found,
    }


def _measure(
    name: str, batch: int, rounds: int, side: int, runtime: Runtime, compiled: bool
) -> dict[str, Any]:
    slug, recipe = f"random/{name}", Recipe(size=side, crop=side)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=generator)
    module = _trained_like(architectures.build_seeded(f"torchvision/{name}", 0), generator)
    spec = resolve(slug, recipe=recipe)
    contenders = _plain(module, pixels, recipe, runtime)
    for label, precision, compile_it in _encoders(runtime, compiled):
        own = Runtime(runtime.device, precision, runtime.threads, 0, compile_it)  # type: ignore[arg-type]
        encoder = Encoder(spec, own, module, weights.LoadReport())
        contenders[label] = _of_encoder(encoder, pixels.to(runtime.torch_device))
    exact = _exact(module, pixels, recipe)
    errors = {label: _error(forward().cpu().double(), exact) for label, forward in contenders.items()}
    timed = {label: _waiting(forward, runtime.device) for label, forward in contenders.items()}
    seconds = interleaved(timed, rounds=rounds)
    return {
        label: {"img_per_s": rate(batch, each), "over_eager": ratio(seconds["eager"], each), **errors[label]}
        for label, each in seconds.items()
    }


def _encoders(runtime: Runtime, compiled: bool) -> list[tuple[str, str, bool]]:
    reduced = ["bf16", "fp16"] if runtime.on_cuda else ["bf16"]
    kinds = [("encoder" if p == "fp32" else f"encoder {p}", p, False) for p in ("fp32", *reduced)]
    return kinds + [(f"{label}, compiled", p, True) for label, p, _ in kinds if compiled]


def _plain(module: nn.Module, pixels: torch.Tensor, recipe: Recipe, runtime: Runtime) -> dict[str, Forward]:
    """torch's own ways, one step after the other."""
    x = normalise(pixels.to(runtime.torch_device), recipe)
    rows = x.contiguous()
    module = module.to(runtime.torch_device)
    last = _channels_last(module)
    folded = _channels_last(fx_fusion.rewrite(module)[0])
    half = Runtime(runtime.device, "bf16", runtime.threads)
    return {
        "eager": _forward(module, rows, runtime),
        "channels_last": _forward(last, x, runtime),
        "channels_last, folded": _forward(folded, x, runtime),
        "bf16 autocast": _forward(module, rows, half),
        "bf16 autocast, channels_last, folded": _forward(folded, x, half),
    }


def _channels_last(module: nn.Module) -> nn.Module:
    import copy

    moved: nn.Module = copy.deepcopy(module).to(memory_format=torch.channels_last)
    return moved


def _forward(module: nn.Module, x: torch.Tensor, runtime: Runtime) -> Forward:
    def forward() -> torch.Tensor:
        with autocast(runtime):
            features: torch.Tensor = module(x)
        return features

    return forward


def _of_encoder(encoder: Encoder, pixels: torch.Tensor) -> Forward:
    return lambda: encoder(pixels)


def _waiting(forward: Forward, device: str) -> Callable[[], None]:
    def timed() -> None:
        forward()
        synchronize(device)

    return timed


def _trained_like(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Statistics and factors as training leaves them, so that folding them is no empty exercise."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.normal_(0, 0.1, generator=generator)
    return module.eval()


def _exact(module: nn.Module, pixels: torch.Tensor, recipe: Recipe, count: int = 4) -> torch.Tensor:
    """Features of the first images in float64 on the CPU."""
    import copy

    x = normalise(pixels[:count], recipe).double().contiguous()
    with torch.inference_mode():
        features: torch.Tensor = copy.deepcopy(module).cpu().double()(x)
    return features


def _error(found: torch.Tensor, exact: torch.Tensor) -> dict[str, float]:
    found = found[: len(exact)]
    return {
        "cosine": float(nn.functional.cosine_similarity(found, exact).min()),
        "max_error": float((found - exact).abs().max() / exact.abs().max()),
    }


def _table(result: dict[str, Any]) -> str:
    lines = [
        [name, label, str(row["img_per_s"]), str(row["over_eager"]), f"{1 - row['cosine']:.1e}"]
        for name, rows in result["models"].items()
        for label, row in rows.items()
    ]
    runtime = result["runtime"]
    place = f"{runtime['device']}, {runtime['threads']} threads"
    head = f"batch {result['batch']} at {result['side']} pixels on {place}\n\n"
    columns = ["backbone", "how", "img/s: median (min-max)", "times eager", "1 - cosine to float64"]
    return head + markdown_table(columns, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument(
        "--model", action="append", choices=MODELS, help="repeat for several; all if left out"
    )
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--side", type=int, default=224)
    options.add_argument("--device", default="auto")
    options.add_argument("--threads", type=int, default=None)
    options.add_argument("--compiled", action="store_true", help="also compiled: minutes of compiling")
    asked = options.parse_args(arguments)
    result = run(
        asked.model or MODELS,
        batch=asked.batch,
        rounds=asked.rounds,
        side=asked.side,
        device=asked.device,
        threads=asked.threads,
        compiled=asked.compiled,
    )
    finish(result, _table(result), asked)


if __name__ == "__main__":
    main()
