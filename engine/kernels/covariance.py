"""Mean and covariance of stored features in one streaming pass; Ledoit-Wolf's shrinkage from the same pass.

Rows are shifted by the mean of a sample of them before they are multiplied, so that nothing cancels; products
of blocks are summed up in float64. Blocks are multiplied in float64 or, on request, in float32: then entry
(i, j) is off by less than 1e-6 sqrt(S_ii S_jj), which the tests hold it to. float16 rounds features 500 times
as coarsely.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.kernels.float16 import SCALE, widen

Arithmetic = Literal["float64", "float32"]
#: Rows of a block and the most bytes that it may take once widened; float32 sums grow no longer than that.
_BLOCK_ROWS, _BLOCK_BYTES = 8192, 64 << 20
#: Rows that are widened at a time, to stay in the cache; rows that the shift is taken from.
_PIECE, _SAMPLE = 128, 1024


@dataclass(frozen=True)
class Moments:
    """What a pass over [n, d] features finds.

    Attributes:
        count: n.
        mean: float64 [d].
        scatter: float64 [d, d], sum over rows of (x - mean)(x - mean)^T.
        quartic: sum over rows of |x - mean|^4.
    """

    count: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]
    quartic: float

    @property
    def dim(self) -> int:
        return len(self.mean)

    def covariance(self, ddof: int = 1) -> NDArray[np.float64]:
        """scatter / (n - ddof)."""
        found: NDArray[np.float64] = self.scatter / (self.count - ddof)
        return found

    def shrinkage(self) -> float:
        """Ledoit and Wolf's share of the identity, 0 to 1, as scikit-learn's `LedoitWolf` gives it.

        Source: Ledoit, Wolf, J. Multivariate Analysis 88 (2004) 365, doi:10.1016/S0047-259X(03)00096-4.
        """
        n, d = self.count, self.dim
        squared = float((self.scatter * self.scatter).sum()) / n**2
        average = float(np.trace(self.scatter)) / n / d
        spread = squared - d * average**2
        error = min((self.quartic / n - squared) / n, spread)
        # In one dimension the covariance is a multiple of the identity: nothing to mix with.
        return 0.0 if d == 1 or error <= 0 else error / spread


def moments(
    features: NDArray[Any],
    rows: NDArray[np.intp] | None = None,
    *,
    arithmetic: Arithmetic = "float64",
    device: str = "cpu",
) -> Moments:
    """Mean and scatter of rows of `features`, read once, block by block.

    Memory: two blocks of 64 MiB, and twenty bytes for each of d x d.

    Args:
        features: [N, d], any float type, e.g. mapped from a bank.
        rows: which ones, perhaps repeated; None takes all. Ascending rows are read fastest.
        arithmetic: of the products.
        device: `cpu` or `cuda:N`.

    Raises:
        Refused: fewer than two rows, or a number that is not finite.
    """
    if arithmetic not in get_args(Arithmetic):
        raise Refused(f"arithmetic {arithmetic!r}", "Products are float64 or float32", "choose one")
    count = len(features) if rows is None else len(rows)
    if count < 2:
        raise Refused(f"{count} images", "A covariance needs at least two", "add images")
    shift = _shift(features, rows, count)
    # A sum of squares that is not finite is found at the end; on the way there it is no news.
    with np.errstate(invalid="ignore", over="ignore"):
        sums = _on_cpu if device == "cpu" else _on_device
        total, squares, cubes, quartic, scatter = sums(features, rows, shift, arithmetic, device)
    if not np.isfinite(scatter.sum()):
        raise Refused(
            "Features that are not finite", "Statistics are taken over whole features", "mask these rows"
        )
    offset = total / count
    scatter -= count * np.outer(offset, offset)
    # |y - c|^4 = (|y|^2 - 2 c.y + |c|^2)^2, summed over rows y whose mean is c.
    length = float(offset @ offset)
    along = float(offset @ scatter @ offset) + count * length**2
    quartic += 4 * along - 4 * float(offset @ cubes) + 2 * length * squares - 3 * count * length**2
    return Moments(count, shift.astype(np.float64) + offset, scatter, quartic)


_Sums = tuple[NDArray[np.float64], float, NDArray[np.float64], float, NDArray[np.float64]]


def _shift(features: NDArray[Any], rows: NDArray[np.intp] | None, count: int) -> NDArray[np.float32]:
    """Mean of some rows, spread over all: any value is right, one near the mean is accurate."""
    at = np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.intp)
    sample = features[at if rows is None else rows[at]].astype(np.float64)
    return np.asarray(sample.mean(axis=0), np.float32)


def _step(dim: int, itemsize: int) -> int:
    """Rows a block."""
    return min(_BLOCK_ROWS, max(_PIECE, _BLOCK_BYTES // (dim * itemsize)))


def _blocks(features: NDArray[Any], rows: NDArray[np.intp] | None, step: int) -> Iterator[NDArray[Any]]:
    count = len(features) if rows is None else len(rows)
    for start in range(0, count, step):
        yield features[start : start + step] if rows is None else features[rows[start : start + step]]


def _on_cpu(
    features: NDArray[Any],
    rows: NDArray[np.intp] | None,
    shift: NDArray[np.float32],
    arithmetic: Arithmetic,
    device: str,
) -> _Sums:
    dim, dtype = features.shape[1], np.dtype(arithmetic)
    step = _step(dim, dtype.itemsize)
    buffer = np.empty((step, dim), dtype)
    product = np.empty((dim, dim), dtype)
    scatter, total, cubes = np.zeros((dim, dim)), np.zeros(dim), np.zeros(dim)
    squares = quartic = 0.0
    for block in _blocks(features, rows, step):
        y = buffer[: len(block)]
        for start in range(0, len(block), _PIECE):
            piece = y[start : start + _PIECE]
            _widen_and_shift(block[start : start + _PIECE], shift, piece)
            norms = np.einsum("ij,ij->i", piece, piece).astype(np.float64)
            total += piece.sum(axis=0)
            cubes += norms @ piece
            squares += float(norms.sum())
            quartic += float(norms @ norms)
        # numpy sees that both factors are one array and computes half of the product (BLAS syrk).
        scatter += np.matmul(y.T, y, out=product)
    return total, squares, cubes, quartic, scatter


def _widen_and_shift(source: NDArray[Any], shift: NDArray[np.float32], into: NDArray[Any]) -> None:
    if source.dtype == np.float16 and into.dtype == np.float32 and sys.byteorder == "little":
        if np.isfinite(source).all():
            widen(source, into)
            np.multiply(into, SCALE, out=into)
        else:
            into[...] = np.nan
    else:
        into[...] = source
    np.subtract(into, shift, out=into)


def _on_device(
    features: NDArray[Any],
    rows: NDArray[np.intp] | None,
    shift: NDArray[np.float32],
    arithmetic: Arithmetic,
    device: str,
) -> _Sums:
    import torch

    dtype = {"float64": torch.float64, "float32": torch.float32}[arithmetic]
    dim = features.shape[1]
    step = _step(dim, dtype.itemsize)
    zeros: dict[str, Any] = {"dtype": torch.float64, "device": device}
    scatter, total, cubes = (torch.zeros(s, **zeros) for s in ((dim, dim), (dim,), (dim,)))
    squares, quartic = torch.zeros((), **zeros), torch.zeros((), **zeros)
    moved = torch.from_numpy(shift).to(device, dtype)
    for block in _blocks(features, rows, step):
        y = torch.from_numpy(np.array(block)).to(device).to(dtype) - moved
        norms = (y * y).sum(dim=1)
        total += y.sum(dim=0)
        cubes += norms @ y
        squares += norms.double().sum()
        quartic += norms.double().square().sum()
        scatter += y.T @ y
    host = [each.cpu().numpy() for each in (total, cubes, scatter)]
    return host[0], float(squares), host[1], float(quartic), host[2]
