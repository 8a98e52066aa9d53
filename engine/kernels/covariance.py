"""Mean, covariance and Ledoit-Wolf shrinkage of stored features in one streaming pass.

Rows are shifted by the mean of a sample of them before they are multiplied, which avoids cancellation;
products of blocks are summed in float64. Blocks are multiplied in float64 or, on request, in float32: entry
(i, j) is then off by less than 1e-6 sqrt(S_ii S_jj), as the tests verify. Storing features as float16 rounds
them 500 times as coarsely.
"""

import sys
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.kernels.float16 import SCALE, widen
from engine.kernels.sample_moments import Arithmetic, Moments, block_size, not_finite, sample_rows

#: Rows widened at a time, so that they stay in the cache.
_PIECE = 128


def moments(
    features: Any,
    rows: NDArray[np.intp] | None = None,
    *,
    arithmetic: Arithmetic = "float64",
    device: str = "cpu",
) -> Moments:
    """Compute the moments of rows of `features`, reading them once, block by block.

    Needs memory for two blocks of 64 MiB and 20 d^2 bytes.

    Args:
        features: [N, d], any float type, e.g. memory-mapped from a bank; on a device perhaps a tensor there.
        rows: positions of rows, possibly repeated; None takes all. Ascending rows are read fastest.
        arithmetic: of the products.
        device: `cpu` or `cuda:N`, where the moments stay.

    Raises:
        Refused: fewer than two rows, or a value that is not finite.
    """
    if arithmetic not in get_args(Arithmetic):
        raise Refused(f"arithmetic {arithmetic!r}", "Products are float64 or float32", "choose one")
    count = len(features) if rows is None else len(rows)
    if count < 2:
        raise Refused(f"{count} images", "A covariance needs at least two", "add images")
    if device != "cpu":
        from engine.kernels.device_covariance import moments_on

        return moments_on(features, rows, arithmetic, device)
    shift = _shift(features, rows, count)
    # Sums that are not finite are refused below; the warnings on the way there add nothing.
    with np.errstate(invalid="ignore", over="ignore"):
        total, squares, cubes, quartic, scatter = _sums(features, rows, shift, arithmetic)
    if not np.isfinite(scatter.sum()):
        raise not_finite()
    offset = total / count
    scatter -= count * np.outer(offset, offset)
    # |y - c|^4 = (|y|^2 - 2 c.y + |c|^2)^2, summed over rows y whose mean is c.
    length = float(offset @ offset)
    along = float(offset @ scatter @ offset) + count * length**2
    quartic += 4 * along - 4 * float(offset @ cubes) + 2 * length * squares - 3 * count * length**2
    return Moments(count, shift.astype(np.float64) + offset, scatter, quartic)


_Sums = tuple[NDArray[np.float64], float, NDArray[np.float64], float, NDArray[np.float64]]


def _shift(features: NDArray[Any], rows: NDArray[np.intp] | None, count: int) -> NDArray[np.float32]:
    """Return the mean of a sample of rows: any shift is correct, one near the mean keeps the most digits."""
    sample = features[sample_rows(rows, count)].astype(np.float64)
    return np.asarray(sample.mean(axis=0), np.float32)


def _blocks(features: NDArray[Any], rows: NDArray[np.intp] | None, step: int) -> Iterator[NDArray[Any]]:
    count = len(features) if rows is None else len(rows)
    for start in range(0, count, step):
        yield features[start : start + step] if rows is None else features[rows[start : start + step]]


def _sums(
    features: NDArray[Any],
    rows: NDArray[np.intp] | None,
    shift: NDArray[np.float32],
    arithmetic: Arithmetic,
) -> _Sums:
    dim, dtype = features.shape[1], np.dtype(arithmetic)
    step = block_size(dim, dtype.itemsize)
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
        # numpy recognises that both factors are the same array and computes half of the product (BLAS syrk).
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
