"""Moments and regularised factors of features on a device: the numbers of `covariance` and `whitening`.

Features on the host are streamed through page-locked memory; those that reside on the device are read there.
Everything stays on the device. The host waits once for moments, to see that they are finite, and once for a
factor, to see that there is one; torch's eigenvalue decomposition waits for itself besides.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.kernels.sample_moments import Arithmetic, Moments, block_size, not_finite, sample_rows
from engine.runtime import fetched, float32_products, placed, uploaded_blocks


def moments_on(features: Any, rows: NDArray[np.intp] | None, arithmetic: Arithmetic, device: str) -> Moments:
    """Compute `engine.kernels.covariance.moments` on a device.

    Args:
        features: [N, d], numpy or a tensor on the device, of any float type.

    Returns:
        Moments whose mean [d], scatter [d, d] and quartic [] are float64 tensors on the device.

    Raises:
        Refused: a value that is not finite.
    """
    count = len(features) if rows is None else len(rows)
    dtype = {"float64": torch.float64, "float32": torch.float32}[arithmetic]
    with float32_products():
        shift = _shift(features, rows, count, device)
        total, squares, cubes, quartic, scatter = _sums(features, rows, shift, dtype, device)
    offset = total / count
    scatter -= count * torch.outer(offset, offset)
    # |y - c|^4 = (|y|^2 - 2 c.y + |c|^2)^2, summed over rows y whose mean is c.
    length = offset @ offset
    along = offset @ scatter @ offset + count * length**2
    quartic = quartic + 4 * along - 4 * (offset @ cubes) + 2 * length * squares - 3 * count * length**2
    if not np.isfinite(fetched(scatter.sum())[0]):
        raise not_finite()
    return Moments(count, shift.double() + offset, scatter, quartic)


def _shift(features: Any, rows: NDArray[np.intp] | None, count: int, device: str) -> torch.Tensor:
    """Return the mean of a sample of rows, float32 [d]."""
    chosen = sample_rows(rows, count)
    if isinstance(features, torch.Tensor):
        return features[placed(chosen, device)].double().mean(0).float()
    return placed(np.asarray(features[chosen].astype(np.float64).mean(axis=0), np.float32), device)


def _blocks(features: Any, rows: NDArray[np.intp] | None, step: int, device: str) -> Iterator[torch.Tensor]:
    if not isinstance(features, torch.Tensor):
        for _, block in uploaded_blocks(features, device, step, rows):
            yield block
        return
    places = None if rows is None else placed(rows, device)
    for start in range(0, len(features) if places is None else len(places), step):
        part = slice(start, start + step)
        yield features[part] if places is None else features[places[part]]


def _sums(
    features: Any, rows: NDArray[np.intp] | None, shift: torch.Tensor, dtype: torch.dtype, device: str
) -> tuple[torch.Tensor, ...]:
    """Return sums over shifted rows y, float64: y, |y|^2, |y|^2 y, |y|^4 and y y^T."""
    dim = features.shape[1]
    zeros: dict[str, Any] = {"dtype": torch.float64, "device": device}
    scatter, total, cubes = (torch.zeros(s, **zeros) for s in ((dim, dim), (dim,), (dim,)))
    squares, quartic = torch.zeros((), **zeros), torch.zeros((), **zeros)
    origin = shift.to(dtype)
    for block in _blocks(features, rows, block_size(dim, dtype.itemsize), device):
        y = block.to(dtype) - origin
        norms = (y * y).sum(dim=1)
        total += y.sum(dim=0)
        cubes += norms @ y
        squares += norms.double().sum()
        quartic += norms.double().square().sum()
        scatter += y.T @ y
    return total, squares, cubes, quartic, scatter


@dataclass(frozen=True)
class Factor:
    """A factored covariance, and what the host must know of it.

    Attributes:
        factor: float64 on the device; [d, d] lower triangular, or [k, d] for components.
        variance: of all features, the trace of their scatter.
        failed: whether there is no factor, because the covariance is not positive definite.
        shrinkage: share of the identity. low, high: extreme eigenvalues of the matrix inverted.
    """

    factor: torch.Tensor
    variance: float
    failed: bool
    shrinkage: float
    low: float
    high: float


def factored(moments: Moments, method: str, value: float, ddof: int) -> Factor:
    """Regularise a covariance and factor it, in float64.

    Args:
        moments: on the device.
        method, value: of the `Regularisation`, but not components.
    """
    covariance = moments.covariance(ddof)
    diagonal = covariance.diagonal()
    shrinkage = torch.zeros((), dtype=torch.float64, device=covariance.device)
    if method == "ledoit-wolf":
        shrinkage = _shrinkage(moments)
        average = diagonal.mean()
        covariance *= 1 - shrinkage
        diagonal += shrinkage * average
    elif method == "ridge":
        diagonal += value
    factor, info = torch.linalg.cholesky_ex(covariance)
    # A matrix that is not finite has no eigenvalues; one without a factor needs none.
    safe = torch.where(
        info == 0, covariance, torch.eye(len(diagonal), dtype=factor.dtype, device=factor.device)
    )
    values = torch.linalg.eigvalsh(safe)
    numbers = torch.stack([moments.scatter.trace(), info.double(), shrinkage, values[0], values[-1]])
    variance, failed, share, low, high = fetched(numbers)[0].tolist()
    return Factor(factor, variance, failed != 0, share, low, high)


def _shrinkage(moments: Moments) -> torch.Tensor:
    """Return `Moments.shrinkage` without waiting for it."""
    n, d = moments.count, moments.dim
    squared = (moments.scatter * moments.scatter).sum() / n**2
    average = moments.scatter.trace() / n / d
    spread = squared - d * average**2
    error = torch.minimum((moments.quartic / n - squared) / n, spread)
    none = (error <= 0) if d > 1 else torch.ones_like(error, dtype=torch.bool)
    return torch.where(none, 0.0, error / torch.where(none, 1.0, spread))


def components(moments: Moments, count: int, ddof: int) -> tuple[NDArray[np.float64], torch.Tensor, float]:
    """Return eigenvalues of the covariance, float64 [d] of the host, largest first; a projection; the trace.

    Args:
        count: of components, at most d.

    Returns:
        The projection is float64 [count, d] on the device: eigenvectors over the roots of their values.
    """
    covariance = moments.covariance(ddof)
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0), vectors.flip(1)
    projection = (vectors[:, :count] / values[:count].sqrt()).T.contiguous()
    known, trace = fetched(values, covariance.trace())
    return known, projection, float(trace)
