"""Timing of device work: warmed up, in blocks, by the device's clock."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from benchmarks.speed.common import Spread
from engine.runtime import Span, synchronize

#: Blocks of a measurement; their spread is reported.
BLOCKS = 5


def seconds_each(device: str, work: Callable[[], object], *, budget_s: float, warm_up: int = 2) -> Spread:
    """Measure the seconds of a call of `work`, as the spread of blocks of calls.

    Args:
        device: of the work; timed by events on CUDA, by the clock on the CPU.
        work: queues device work without having to wait for it.
        budget_s: approximate duration of the measurement.
        warm_up: number of calls before it.
    """
    for _ in range(warm_up):
        work()
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    once = max(time.perf_counter() - start, 1e-6)
    calls = max(1, int(budget_s / BLOCKS / once))
    return Spread.of([_block(device, work, calls) / calls for _ in range(BLOCKS)])


def _block(device: str, work: Callable[[], object], calls: int) -> float:
    span = Span(device)
    for _ in range(calls):
        work()
    span.stop()
    return span.seconds


def per_second(amount: float, seconds: Spread) -> Spread:
    """Convert the seconds of a call to a rate of `amount` per call."""
    return Spread(seconds.n, amount / seconds.median, amount / seconds.max, amount / seconds.min)


def gemm_rate(device: str, dtype: torch.dtype, size: int, *, budget_s: float) -> Spread:
    """Measure the FLOP/s of a square matrix product of random numbers."""
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return per_second(
        2.0 * size**3, seconds_each(device, lambda: torch.matmul(a, b, out=out), budget_s=budget_s)
    )


class ConvolutionFlop(TorchFunctionMode):
    """Counts the floating-point operations of this thread's convolutions while the body runs."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function; count it if it is a convolution."""
        result = func(*args, **(kwargs or {}))
        if func is torch.conv2d:
            self.flop += 2 * result.numel() * args[1][0].numel()
        return result


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return row-wise cosines of two float64 matrices on the CPU."""
    return torch.nn.functional.cosine_similarity(a, b, dim=1)


def distance(features: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Compare features [n, d] with the true ones.

    Returns:
        `min_cosine`; `min_centred_cosine`, after subtracting the true mean from both, which is far stricter
        if all features point in a similar direction; `max_relative_error`, the largest |features - truth| /
        |truth|.
    """
    features, truth = features.detach().cpu().double(), truth.detach().cpu().double()
    centre = truth.mean(dim=0, keepdim=True)
    error = (features - truth).norm(dim=1) / truth.norm(dim=1)
    return {
        "min_cosine": float(cosines(features, truth).min()),
        "min_centred_cosine": float(cosines(features - centre, truth - centre).min()),
        "max_relative_error": float(error.max()),
    }


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return True if two tensors are equal bit for bit (unlike `==`, including NaN)."""
    return a.shape == b.shape and bool(torch.equal(_bits(a), _bits(b)))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    words = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.detach().cpu().contiguous().view(words[tensor.element_size()])
