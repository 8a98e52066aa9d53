"""The backbone only, with pixels on the device: as it is usually run, and as embank runs it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import loop
from benchmarks.gpu.suite import Context, Skip, Verdict, measurement
from benchmarks.gpu.timing import gemm_rate, per_second, seconds_each
from engine.models import load
from engine.normalise import normalise
from engine.runtime import Precision, fix_flags, peak_device_bytes, plain_flags

#: Multiply-adds of a ResNet-50 at 224 x 224, times two.
RESNET50_FLOP = 2 * 4.089e9


def _pixels(context: Context) -> torch.Tensor:
    batch, side = context.pick(256, 2), context.side
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=generator)
    return pixels.to(context.device)


def _usual(model: nn.Module, pixels: torch.Tensor, context: Context, dtype: torch.dtype | None) -> Any:
    """Return a forward pass as in a plain script: eager, NCHW, normalised float32, autocast or not."""
    batch = normalise(pixels, context.recipe).contiguous(memory_format=torch.contiguous_format)

    def once() -> torch.Tensor:
        with torch.no_grad(), torch.autocast(batch.device.type, dtype=dtype, enabled=dtype is not None):
            features: torch.Tensor = model(batch)
        return features

    return once


def _encoder(context: Context, name: str, precision: Precision, compile: bool, pixels: torch.Tensor) -> Any:
    runtime = context.runtime(precision, compile=compile)
    fix_flags(runtime)
    encoder = load(context.spec(f"random/{name}"), runtime)
    return lambda: encoder(pixels)


def _rate(context: Context, once: Callable[[], object], batch: int) -> dict[str, Any]:
    peak_device_bytes(context.device, reset=True)
    seconds = seconds_each(context.device, once, budget_s=context.pick(1.5, 0.0), warm_up=context.pick(5, 0))
    return {
        "img/s": per_second(batch, seconds),
        "peak device MiB": peak_device_bytes(context.device) / 2**20,
    }


@measurement("forward rate: resnet50", seconds=40, rank=52)
def resnet50(context: Context) -> Verdict:
    name = context.pick("resnet50", "resnet18")
    pixels = _pixels(context)
    batch = len(pixels)
    numbers: dict[str, Any] = {"batch": batch}
    model = loop.untrained(name).to(context.device)
    with plain_flags():
        numbers["usual loop, eager fp32 (TF32 convolutions)"] = _rate(
            context, _usual(model, pixels, context, None), batch
        )
        numbers["usual loop, eager bf16 autocast"] = _rate(
            context, _usual(model, pixels, context, torch.bfloat16), batch
        )
    fix_flags(context.runtime("fp32"))
    numbers["eager fp32 NCHW, TF32 off"] = _rate(context, _usual(model, pixels, context, None), batch)
    for precision in context.precisions:
        once = _encoder(context, name, precision, False, pixels)
        numbers[f"embank {precision}, pixels to features"] = _rate(context, once, batch)
    _against_ceiling(context, numbers)
    return Verdict(numbers)


def _against_ceiling(context: Context, numbers: dict[str, Any]) -> None:
    """Add the share of a matrix product's rate, measured now."""
    if context.quick:
        return
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        peak = gemm_rate(context.device, dtype, 8192, budget_s=0.5).median
        rates = numbers[f"embank {precision}, pixels to features"]
        rates["TFLOP/s"] = rates["img/s"].median * RESNET50_FLOP / 1e12
        rates["share of the matrix product's rate"] = rates["img/s"].median * RESNET50_FLOP / peak


@measurement("forward rate: resnet50, compiled", seconds=90, rank=81)
def compiled(context: Context) -> Verdict:
    if context.quick:
        raise Skip("compiling takes longer than everything else at tiny sizes")
    pixels = _pixels(context)
    numbers: dict[str, Any] = {"batch": len(pixels)}
    for precision in ("bf16", "fp32"):
        once = _encoder(context, "resnet50", precision, True, pixels)
        numbers[f"embank {precision} compiled"] = _rate(context, once, len(pixels))
    return Verdict(numbers)
