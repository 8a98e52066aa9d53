"""The backbone only, with pixels on the device: as it is usually run, and as embank runs it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import loop
from benchmarks.gpu.floors import resnet50_gemm
from benchmarks.gpu.suite import Context, Skip, Verdict, measurement
from benchmarks.gpu.timing import per_second, seconds_each
from engine.models import load
from engine.normalise import normalise
from engine.runtime import Precision, fix_flags, peak_device_bytes, plain_flags


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


@measurement("forward rate: resnet50", seconds=30, rank=60)
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
    readings = []
    for precision in context.precisions:
        once = _encoder(context, name, precision, False, pixels)
        rates = numbers[f"embank {precision}, pixels to features"] = _rate(context, once, batch)
        reading = f"ResNet-50 forward in {precision}"
        readings.append(context.reading(reading, rates["img/s"].median, "img/s", resnet50_gemm(precision)))
    return Verdict(numbers, readings=tuple(readings))


@measurement("forward rate: resnet50, compiled", seconds=90, rank=90)
def compiled(context: Context) -> Verdict:
    if context.quick:
        raise Skip("compiling takes longer than everything else at tiny sizes")
    pixels = _pixels(context)
    numbers: dict[str, Any] = {"batch": len(pixels)}
    readings = []
    precisions: tuple[Precision, ...] = ("bf16", "fp32")
    for precision in precisions:
        once = _encoder(context, "resnet50", precision, True, pixels)
        rates = numbers[f"embank {precision} compiled"] = _rate(context, once, len(pixels))
        reading = f"ResNet-50 forward in {precision}, compiled"
        readings.append(context.reading(reading, rates["img/s"].median, "img/s", resnet50_gemm(precision)))
    return Verdict(numbers, readings=tuple(readings))
