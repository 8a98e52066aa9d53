"""Timing device work: warm, in blocks, by the device's own clock."""

import time
from collections.abc import Callable

import torch

from benchmarks.speed.common import Spread
from engine.runtime import Span, synchronize

#: Blocks of a measurement; their spread is reported.
BLOCKS = 5


def seconds_each(device: str, work: Callable[[], object], *, budget_s: float, warm_up: int = 2) -> Spread:
    """Seconds of one call of `work`, as the median of blocks of calls.

    Args:
        device: whose work it is; timed by events there, by the clock on the CPU.
        work: queues device work; need not wait for it.
        budget_s: about how long to measure.
        warm_up: calls before.
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


def per_second(amount: float, each: Spread) -> Spread:
    """`amount` a call as a rate."""
    return Spread(each.n, amount / each.median, amount / each.max, amount / each.min)


def gemm_rate(device: str, dtype: torch.dtype, size: int, *, budget_s: float) -> Spread:
    """FLOP/s of a square matrix product of random numbers."""
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return per_second(
        2.0 * size**3, seconds_each(device, lambda: torch.matmul(a, b, out=out), budget_s=budget_s)
    )


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Row-wise cosine of two float64 matrices on the CPU."""
    return torch.nn.functional.cosine_similarity(a, b, dim=1)


def distance(found: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """How far features [n, d] are from the true ones.

    Returns:
        `min_cosine`; `min_centred_cosine`, after the true mean is taken off both, which is far stricter
        where all features point the same way; `max_relative_error`, |found - truth| / |truth| of a row.
    """
    found, truth = found.detach().cpu().double(), truth.detach().cpu().double()
    centre = truth.mean(dim=0, keepdim=True)
    error = (found - truth).norm(dim=1) / truth.norm(dim=1)
    return {
        "min_cosine": float(cosines(found, truth).min()),
        "min_centred_cosine": float(cosines(found - centre, truth - centre).min()),
        "max_relative_error": float(error.max()),
    }


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are equal bit for bit (unlike `==`, NaN included)."""
    return a.shape == b.shape and bool(torch.equal(_bits(a), _bits(b)))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    words = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.detach().cpu().contiguous().view(words[tensor.element_size()])
