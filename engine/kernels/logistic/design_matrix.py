"""The design matrix of a fit: centred, scaled, multiplied block by block, and cached where memory allows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import Refused
from engine.kernels.logistic.device_rows import DeviceRows
from engine.runtime import HostCopy, Span, placed

#: Rows of a block: small enough that products with it run at the speed of the cache, not of main memory.
_CPU_ROWS, _CUDA_ROWS = 1024, 1 << 15
#: Blocks multiplied in one batch on the CPU, one thread per block: faster than all threads on one block when
#: the other factor has few columns.
_STACKED = 16
#: Minimum number of columns of a panel: of symmetric products only half is computed, panel by panel.
_PANEL = 512
#: Elements up to which the matrix is cached, and the problem solved, in float64 only.
SMALL = 1 << 20


@dataclass
class DesignMatrix:
    """X = (features - centre) / scale, [n, d], in blocks of rows.

    Attributes:
        features: [N, d] numpy (possibly memory-mapped) or torch, of any float type; on a CUDA device
            `DeviceRows`.
        index: intp [n], ascending positions of the rows used.
        centre, scale: float64 [d].
        device: `cpu` or `cuda:N`.
        resident: bytes that X may take in float32. If it does not fit, and whenever float64 is needed, the
            features are read, widened and centred in every pass.
        flops: of products so far.
    """

    features: Any
    index: NDArray[np.intp]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    device: str
    resident: int
    flops: float = 0.0
    _seconds: float = 0.0
    _cached: dict[torch.dtype, Tensor] = field(default_factory=dict)

    @classmethod
    def around_mean(
        cls, features: Any, index: NDArray[np.intp], scale: NDArray[Any] | None, device: str, resident: int
    ) -> "DesignMatrix":
        """Return the design matrix of features centred at their mean.

        Raises:
            Refused: one of the values is not finite.
        """
        if device.startswith("cuda"):
            return cls._on_device(features, index, scale, device, resident)
        d = int(features.shape[1])
        total, step = np.zeros(d), _step(device)
        for start in range(0, len(index), step):
            block_rows = index[start : start + step]
            block = _take(features, block_rows)
            total += block.numpy().sum(0, dtype=np.float64)
            _check_finite(total, block_rows)
        return cls(features, index, _centre(total, index, features), _scale(scale, d), device, resident)

    @classmethod
    def _on_device(
        cls, features: Any, index: NDArray[np.intp], scale: NDArray[Any] | None, device: str, resident: int
    ) -> "DesignMatrix":
        """As `around_mean` on a CUDA device, which computes the mean; the host waits once."""
        rows, d = DeviceRows.of(features, index, device, resident), int(features.shape[1])
        total = torch.zeros(d, dtype=torch.float64, device=device)
        for block in rows.blocks(_step(device)):
            total += block.sum(0, dtype=torch.float64)
        sums = HostCopy(total).wait().numpy()
        if not np.isfinite(sums).all():
            for start, block in enumerate(rows.blocks(_step(device))):
                at = slice(start * _step(device), (start + 1) * _step(device))
                _check_finite(HostCopy(block.sum(0, dtype=torch.float64)).wait().numpy(), index[at])
        return cls(
            rows, index, _centre(sums, index, features), _scale(scale, d), device, resident - rows.bytes
        )

    def __len__(self) -> int:
        return len(self.index)

    def __post_init__(self) -> None:
        self.dim = len(self.centre)
        self._shift, self._divisor = placed(self.centre, self.device), placed(self.scale, self.device)
        self._spans: list[Span] = []

    @property
    def seconds(self) -> float:
        """Seconds spent on products so far; on a CUDA device, which must have passed them, by its clock."""
        return self._seconds + sum(span.seconds_passed for span in self._spans)

    @property
    def small(self) -> bool:
        """True if X is small enough for float64 throughout."""
        return len(self) * self.dim <= SMALL or self.dim != len(self.centre)

    def block_slices(self) -> list[slice]:
        """Return the slice of rows of each block."""
        step = _step(self.device)
        return [slice(start, min(start + step, len(self))) for start in range(0, len(self), step)]

    def blocks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield X in blocks [rows, d]."""
        for stack in self.stacks(dtype):
            yield from stack

    def stacks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield X in stacks of blocks [blocks, rows, d]; one block per stack where X is not cached."""
        if dtype in self._cached:
            yield from self._stacked(self._cached[dtype])
            return
        size = torch.finfo(dtype).bits // 8 * len(self) * self.dim
        cache = self.small or (dtype == torch.float32 and size <= self.resident)
        matrix = torch.empty(len(self) if cache else 0, self.dim, dtype=dtype, device=self.device)
        centre, scale = self._shift, self._divisor
        for rows, block in zip(self.block_slices(), self._stored(), strict=True):
            # The mean is subtracted in at least float32: nearby large numbers would lose digits in float16.
            x = block.to(torch.promote_types(dtype, block.dtype))
            x = (x - centre.to(x.dtype)).div_(scale.to(x.dtype)).to(dtype)
            if cache:
                matrix[rows] = x
            yield x[None]
        if cache:
            self._cached[dtype] = matrix

    def _stored(self) -> Iterator[Tensor]:
        """Yield the rows in their stored precision, block by block, on the device."""
        if isinstance(self.features, DeviceRows):
            yield from self.features.blocks(_step(self.device))
        else:
            for rows in self.block_slices():
                yield _take(self.features, self.index[rows])

    def _stacked(self, matrix: Tensor) -> Iterator[Tensor]:
        step = _step(self.device)
        stack_rows = _STACKED * step if self.device == "cpu" else step
        full_blocks_end = len(matrix) // step * step
        for start in range(0, full_blocks_end, stack_rows):
            yield matrix[start : min(start + stack_rows, full_blocks_end)].view(-1, step, self.dim)
        if full_blocks_end < len(matrix):
            yield matrix[full_blocks_end:][None]

    def reduce(self) -> Tensor | None:
        """Replace the columns by coordinates in the row space if there are fewer rows than columns.

        The solutions are the same: by the representer theorem the weights lie in the row space.

        Returns:
            Orthonormal basis of the row space, float64 [d, n]; None if nothing was reduced.
        """
        if len(self) >= self.dim:
            return None
        matrix = torch.cat(list(self.blocks(torch.float64)))
        basis: Tensor
        basis, triangle = torch.linalg.qr(matrix.T)
        self._cached = {torch.float64: triangle.T.contiguous()}
        self.dim = len(self)
        return basis

    def linear_predictors(self, theta: Tensor) -> list[Tensor]:
        """Return X theta for weights and intercepts [P, K, d + 1]: [P, K, rows] for each block."""
        problems, classes = theta.shape[:2]
        weights = theta[..., :-1].reshape(problems * classes, -1)
        intercepts = theta[..., -1:].reshape(-1, 1)
        predictors: list[Tensor] = []
        with self.clock(2.0 * len(self) * weights.numel()):
            for stack in self.stacks(theta.dtype):
                stacked_weights = weights.expand(len(stack), -1, -1)
                predictors += torch.baddbmm(intercepts, stacked_weights, stack.transpose(1, 2))
        return [block.view(problems, classes, -1) for block in predictors]

    def transpose_products(self, residuals: Sequence[Tensor]) -> Tensor:
        """Return sums over rows of residual times (x, 1), float64 [P, K, d + 1], of blocks [P, K, rows]."""
        problems, classes, _ = residuals[0].shape
        dtype = residuals[0].dtype
        total = torch.zeros(problems * classes, self.dim, dtype=torch.float64, device=self.device)
        with self.clock(2.0 * len(self) * problems * classes * self.dim):
            remaining = iter(residuals)
            for stack in self.stacks(dtype):
                stacked_residuals = torch.stack(
                    [r.view(problems * classes, -1) for r in islice(remaining, len(stack))]
                )
                # Summed within a block in the working precision, over blocks in float64.
                for product in torch.bmm(stacked_residuals, stack):
                    total += product
        sums = torch.stack([r.sum(2, dtype=torch.float64) for r in residuals]).sum(0)
        return torch.cat([total.view(problems, classes, -1), sums[..., None]], dim=2)

    def clock(self, flops: float) -> "_Clock":
        """Return a context that counts its body as a product of so many floating-point operations."""
        self.flops += flops
        return _Clock(self)


def add_gram(total: Tensor, x: Tensor) -> None:
    """Add X^T X to the lower half of a [d, d] total, in place; entries above the diagonal are arbitrary."""
    d = len(total)
    panel = max(_PANEL, -(-d // 8))
    for at in range(0, d, panel):
        stop = min(at + panel, d)
        total[at:, at:stop] += x[:, at:].T @ x[:, at:stop]


class _Clock:
    """Context that adds the duration of its body to the design matrix's seconds."""

    def __init__(self, design: DesignMatrix) -> None:
        self._design = design

    def __enter__(self) -> None:
        self._span = Span(self._design.device)

    def __exit__(self, *_: object) -> None:
        self._span.stop()
        if self._design.device == "cpu":
            self._design._seconds += self._span.seconds
        else:  # read at the end: the host must not wait for a product
            self._design._spans.append(self._span)


def _check_finite(total: NDArray[np.float64], rows: NDArray[np.intp]) -> None:
    """Refuse sums over rows that are not finite. Raises Refused."""
    if not np.isfinite(total).all():
        column = int(np.flatnonzero(~np.isfinite(total))[0])
        raise Refused(
            f"a feature that is NaN or infinite, in column {column}, rows {rows[0]} to {rows[-1]}",
            "A fit needs finite features",
            "leave failed rows out (`bank verify` counts them), or embed them again",
        )


def _centre(total: NDArray[np.float64], index: NDArray[np.intp], features: Any) -> NDArray[np.float64]:
    centre = total / max(len(index), 1)
    if _itemsize(features) < 8:
        # Rounded like the features, so that a constant column becomes exactly zero.
        centre = centre.astype(np.float32).astype(np.float64)
    return centre


def _scale(scale: NDArray[Any] | None, dim: int) -> NDArray[np.float64]:
    scale = np.ones(dim) if scale is None else np.where(np.asarray(scale) > 0, scale, 1.0)
    return scale.astype(np.float64)


def _step(device: str) -> int:
    return _CPU_ROWS if device == "cpu" else _CUDA_ROWS


def _take(features: Any, rows: NDArray[np.intp]) -> Tensor:
    """Return selected rows on the CPU, as stored; copied, because torch wants writable memory."""
    if isinstance(features, Tensor):
        return features[torch.from_numpy(rows)].cpu()
    selected = np.asarray(features[rows])
    return torch.from_numpy(selected.astype(selected.dtype.newbyteorder("="), copy=False))


def _itemsize(features: Any) -> int:
    return int(features.element_size() if isinstance(features, Tensor) else features.dtype.itemsize)
