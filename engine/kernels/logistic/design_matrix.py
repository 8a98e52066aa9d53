"""The rows of a fit: centred, scaled, and multiplied block by block, resident where memory allows."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import Refused
from engine.runtime import synchronize

#: Rows of a block: the product with a block runs at the speed of the cache, not of the memory.
_CPU_ROWS, _CUDA_ROWS = 1024, 1 << 15
#: Blocks that are multiplied at a time on the CPU: each by one thread, which is faster than each by all where
#: the other factor has few columns.
_STACKED = 16
#: Columns of a panel, at least: products that are symmetric are made by half, panel by panel.
_PANEL = 512
#: Elements below which the rows are kept, and the problem is solved, in float64 alone.
SMALL = 1 << 20


@dataclass
class Rows:
    """X = (features - centre) / scale, [n, d], in blocks of rows.

    Attributes:
        features: [N, d] numpy (may be a mapping of files) or torch, of any float type.
        index: intp [n], ascending: the rows meant.
        centre, scale: float64 [d].
        device: `cpu` or `cuda:N`.
        resident: bytes that X may take in float32; if it does not fit, and where float64 is asked for, the
            features are read, widened and centred every time.
        flops, seconds: of the products so far.
    """

    features: Any
    index: NDArray[np.intp]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    device: str
    resident: int
    flops: float = 0.0
    seconds: float = 0.0
    _kept: dict[torch.dtype, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls, features: Any, index: NDArray[np.intp], scale: NDArray[Any] | None, device: str, resident: int
    ) -> "Rows":
        """Rows around their mean.

        Raises:
            Refused: a value among them that is not finite.
        """
        d = int(features.shape[1])
        total, step = np.zeros(d), _step(device)
        for start in range(0, len(index), step):
            part = index[start : start + step]
            block = _take(features, part)
            total += (block.numpy() if block.device.type == "cpu" else block.cpu().numpy()).sum(
                0, dtype=np.float64
            )
            if not np.isfinite(total).all():
                column = int(np.flatnonzero(~np.isfinite(total))[0])
                raise Refused(
                    f"a feature in column {column}, rows {part[0]} to {part[-1]}, that is NaN or infinite",
                    "A fit needs finite features",
                    "leave failed rows out (`bank verify` counts them), or embed them again",
                )
        centre = total / max(len(index), 1)
        if _itemsize(features) < 8:
            # Rounded like the features: a constant column becomes exactly zero.
            centre = centre.astype(np.float32).astype(np.float64)
        scale = np.ones(d) if scale is None else np.where(np.asarray(scale) > 0, scale, 1.0)
        return cls(features, index, centre, scale.astype(np.float64), device, resident)

    def __len__(self) -> int:
        return len(self.index)

    def __post_init__(self) -> None:
        self.dim = len(self.centre)

    @property
    def small(self) -> bool:
        """Whether float64 is no burden."""
        return len(self) * self.dim <= SMALL or self.dim != len(self.centre)

    def slices(self) -> list[slice]:
        """Of the rows in each block."""
        step = _step(self.device)
        return [slice(start, min(start + step, len(self))) for start in range(0, len(self), step)]

    def blocks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """X in blocks [rows, d]."""
        for stack in self.stacks(dtype):
            yield from stack

    def stacks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """X in stacks of such blocks, [blocks, rows, d]: of one block each where X is not kept."""
        if dtype in self._kept:
            yield from self._stacked(self._kept[dtype])
            return
        size = torch.finfo(dtype).bits // 8 * len(self) * self.dim
        keep = self.small or (dtype == torch.float32 and size <= self.resident)
        whole = torch.empty(len(self) if keep else 0, self.dim, dtype=dtype, device=self.device)
        centre, scale = (torch.as_tensor(v, device=self.device) for v in (self.centre, self.scale))
        for part in self.slices():
            block = _take(self.features, self.index[part]).to(self.device)
            # Small differences of large numbers: float32 subtracts them exactly, float16 would not.
            wide = block.to(torch.promote_types(dtype, block.dtype))
            wide = (wide - centre.to(wide.dtype)).div_(scale.to(wide.dtype)).to(dtype)
            if keep:
                whole[part] = wide
            yield wide[None]
        if keep:
            self._kept[dtype] = whole

    def _stacked(self, whole: Tensor) -> Iterator[Tensor]:
        step = _step(self.device)
        several = _STACKED * step if self.device == "cpu" else step
        full = len(whole) // step * step
        for start in range(0, full, several):
            yield whole[start : min(start + several, full)].view(-1, step, self.dim)
        if full < len(whole):
            yield whole[full:][None]

    def reduce(self) -> Tensor | None:
        """Where there are fewer rows than columns, give the rows n coordinates in the space they span.

        Nothing is lost: by the representer theorem the weights lie in that space.

        Returns:
            Orthonormal basis, float64 [d, n]; None where nothing was reduced.
        """
        if len(self) >= self.dim:
            return None
        whole = torch.cat(list(self.blocks(torch.float64)))
        basis: Tensor
        basis, triangle = torch.linalg.qr(whole.T)
        self._kept = {torch.float64: triangle.T.contiguous()}
        self.dim = len(self)
        return basis

    def images(self, theta: Tensor) -> list[Tensor]:
        """Linear predictors of every block: [P, K, rows] of weights and intercepts [P, K, d + 1]."""
        problems, classes = theta.shape[:2]
        weights = theta[..., :-1].reshape(problems * classes, -1)
        intercepts = theta[..., -1:].reshape(-1, 1)
        found: list[Tensor] = []
        with self.clock(2.0 * len(self) * weights.numel()):
            for stack in self.stacks(theta.dtype):
                several = weights.expand(len(stack), -1, -1)
                found += torch.baddbmm(intercepts, several, stack.transpose(1, 2))
        return [block.view(problems, classes, -1) for block in found]

    def gradients(self, residuals: Sequence[Tensor]) -> Tensor:
        """Sums over rows of residual times (x, 1): float64 [P, K, d + 1] of blocks [P, K, rows]."""
        problems, classes, _ = residuals[0].shape
        dtype = residuals[0].dtype
        total = torch.zeros(problems * classes, self.dim, dtype=torch.float64, device=self.device)
        with self.clock(2.0 * len(self) * problems * classes * self.dim):
            left = iter(residuals)
            for stack in self.stacks(dtype):
                several = torch.stack([r.view(problems * classes, -1) for r in islice(left, len(stack))])
                # Sums within a block in the working precision, over blocks in float64.
                for each in torch.bmm(several, stack):
                    total += each
        sums = torch.stack([r.sum(2, dtype=torch.float64) for r in residuals]).sum(0)
        return torch.cat([total.view(problems, classes, -1), sums[..., None]], dim=2)

    def clock(self, flops: float) -> "_Clock":
        """Count the body as a product of so many floating-point operations."""
        self.flops += flops
        return _Clock(self)


def add_gram(total: Tensor, x: Tensor) -> None:
    """Add X^T X to the lower half of a [d, d] total, in place; what is above the diagonal means nothing."""
    d = len(total)
    panel = max(_PANEL, -(-d // 8))
    for at in range(0, d, panel):
        stop = min(at + panel, d)
        total[at:, at:stop] += x[:, at:].T @ x[:, at:stop]


class _Clock:
    """Adds what its body takes to the rows' seconds."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        synchronize(self._rows.device)
        self._rows.seconds += time.perf_counter() - self._start


def _step(device: str) -> int:
    return _CPU_ROWS if device == "cpu" else _CUDA_ROWS


def _take(features: Any, rows: NDArray[np.intp]) -> Tensor:
    """Some rows in their own precision; a copy, because torch wants writable memory."""
    if isinstance(features, Tensor):
        return features[torch.from_numpy(rows).to(features.device)]
    part = np.asarray(features[rows])
    return torch.from_numpy(part.astype(part.dtype.newbyteorder("="), copy=False))


def _itemsize(features: Any) -> int:
    return int(features.element_size() if isinstance(features, Tensor) else features.dtype.itemsize)
