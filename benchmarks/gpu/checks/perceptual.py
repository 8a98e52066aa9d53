"""LPIPS on the device, compared with the CPU, and its rate; trunks are drawn, since none are fetched."""

from typing import Any

import torch

from benchmarks.gpu.floors import GEMM, Bound
from benchmarks.gpu.suite import Context, Verdict, measurement, proof
from benchmarks.gpu.timing import ConvolutionFlop, per_second, seconds_each
from benchmarks.trunks import save_trunk
from engine.models.perceptual import NETS, PerceptualDistance


def _built(context: Context, device: str) -> PerceptualDistance:
    nets = context.pick(NETS, ("squeeze",))
    return PerceptualDistance(nets, device, {net: save_trunk(net, context.work) for net in nets})


def _pairs(context: Context, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return smooth images and noisy copies of them, uint8 [count, side, side, 3]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 7, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(context.side,) * 2, mode="bicubic")
    noisy = smooth + 0.1 * torch.randn(smooth.shape, generator=generator)
    a, b = ((x.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous() for x in (smooth, noisy))
    return a, b


@proof("perceptual: LPIPS on the device, against the CPU", seconds=10, rank=28)
def perceptual_agrees(context: Context) -> Verdict:
    a, b = _pairs(context, context.pick(8, 2))
    expected = _built(context, "cpu").distance(a, b)
    metric = _built(context, context.device)
    a, b = a.to(context.device), b.to(context.device)
    batched, same = metric.distance(a, b), metric.distance(a, a)
    numbers: dict[str, Any] = {}
    ok = True
    for net in metric.nets:
        single = torch.cat([metric.distance(a[i : i + 1], b[i : i + 1])[net] for i in range(len(a))])
        numbers[net] = {
            "mean": float(expected[net].mean()),
            "relative_error": _relative(batched[net], expected[net]),
            "batch_against_single": _relative(single, expected[net]),
            "identical_images": float(same[net].abs().max()),
        }
        errors = (numbers[net]["relative_error"], numbers[net]["batch_against_single"])
        ok &= max(errors) <= 1e-3 and numbers[net]["identical_images"] == 0
    return Verdict(numbers, ok, "batched and single within 1e-3 of the CPU's; identical images exactly 0")


def _relative(values: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((values.cpu() - expected).abs() / expected).max())


@measurement("perceptual: LPIPS of pairs by all nets", seconds=15, rank=81)
def perceptual_rate(context: Context) -> Verdict:
    count = context.pick(64, 2)
    metric = _built(context, context.device)
    a, b = (images.to(context.device) for images in _pairs(context, count))
    with ConvolutionFlop() as counted:
        metric.distance(a, b)
    seconds = seconds_each(
        context.device, lambda: metric.distance(a, b), budget_s=context.pick(5, 0.2), warm_up=1
    )
    rate = per_second(count, seconds)
    formula = f"2 x outputs x weights of an output, over the convolutions of {', '.join(metric.nets)}, fp32"
    bound = Bound("gemm", GEMM["fp32"], counted.flop / count, formula)
    numbers = {"nets": list(metric.nets), "pairs_a_batch": count, "pairs_per_s": vars(rate)}
    reading = context.reading(f"LPIPS by {', '.join(metric.nets)}", rate.median, "pairs/s", bound)
    return Verdict(numbers, limit="images on the device, float32 without TF32", readings=(reading,))
