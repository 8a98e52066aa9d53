"""Upper limits of the machine: copies between host and device, on the device, and matrix products."""

from functools import partial
from typing import Any

import torch

from benchmarks.gpu.suite import Context, Verdict, measurement
from benchmarks.gpu.timing import gemm_rate, per_second, seconds_each
from benchmarks.speed.common import Spread
from engine.runtime import host_buffer, plain_flags


@measurement("ceilings: copy bandwidth", seconds=10, rank=50)
def copies(context: Context) -> Verdict:
    size, budget = context.pick(256 << 20, 1 << 20), context.pick(1.0, 0.02)
    device = context.device
    on_device = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    other = torch.empty_like(on_device)
    plain = torch.randint(0, 255, (size,), dtype=torch.uint8)
    pinned = host_buffer((size,), torch.uint8, device)
    pinned.copy_(plain)
    routes = {
        "host to device, pinned": (on_device, pinned),
        "host to device, pageable": (on_device, plain),
        "device to host, pinned": (pinned, on_device),
        "device to host, pageable": (plain, on_device),
        "device to device, read + written": (other, on_device),
    }
    numbers: dict[str, Any] = {"bytes": size}
    for name, (to, source) in routes.items():
        seconds = seconds_each(device, partial(to.copy_, source, non_blocking=True), budget_s=budget)
        moved = size * (2 if name.startswith("device to device") else 1)
        numbers[f"{name}, GB/s"] = per_second(moved / 1e9, seconds)
    return Verdict(numbers)


@measurement("ceilings: matrix products", seconds=12, rank=51)
def products(context: Context) -> Verdict:
    size, budget = context.pick(8192, 256), context.pick(1.0, 0.02)
    numbers: dict[str, Any] = {"size": size}
    cases = [("fp32", torch.float32, False), ("bf16", torch.bfloat16, False)]
    if context.on_cuda:
        cases += [("tf32", torch.float32, True), ("fp16", torch.float16, False)]
    for name, dtype, tf32 in cases:
        with plain_flags(tf32_matmul=tf32):
            rate = gemm_rate(context.device, dtype, size, budget_s=budget)
        scaled = (x / 1e12 for x in (rate.median, rate.min, rate.max))
        numbers[f"{name}, TFLOP/s"] = Spread(rate.n, *scaled)
    return Verdict(numbers)
