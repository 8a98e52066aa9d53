"""Whitening on a device: `engine.kernels.whitening` with its vectors there from start to end.

Cosines and distances alone return, in copies that the host waits for once.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.kernels.sample_moments import Arithmetic
from engine.kernels.whitening import Agreement, PairAgreement, Whitener, check_arithmetic
from engine.runtime import fetched, float32_products, free_device_bytes, placed, upload

#: Bytes of whitened vectors that are made at a time, at most.
_BLOCK_BYTES = 1 << 30


class DeviceWhitening:
    """A `Whitener` applied on a device in one arithmetic.

    Args:
        whitener: mean and factor, on the host or on the device.
        arithmetic: of the products. The factor is float64 in any case; for `float32` it is inverted there in
            float64.
        device: `cuda:N`.
    """

    def __init__(self, whitener: Whitener, arithmetic: Arithmetic, device: str) -> None:
        check_arithmetic(arithmetic)
        self.whitener, self._device = whitener, device
        self._dtype = torch.float64 if arithmetic == "float64" else torch.float32
        self._mean = _there(whitener.mean, device)
        self._matrix = self._prepared(_there(whitener.factor, device))

    def _prepared(self, factor: torch.Tensor) -> torch.Tensor:
        """Return what a vector is solved with, or multiplied by."""
        if self._dtype == torch.float64 or not self.whitener.solves:
            return factor.to(self._dtype)
        identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        inverse: torch.Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
        return inverse.to(self._dtype)

    def __call__(self, features: Any) -> torch.Tensor:
        """Return whitened deviations [n, rank] on the device, in the arithmetic's dtype.

        Args:
            features: [n, d] of any float type, numpy or a tensor on the device.
        """
        features = features if isinstance(features, torch.Tensor) else upload(features, self._device)
        # Subtracted in float64, because float32 would lose digits if the mean is far from zero.
        centred = (features.double() - self._mean).to(self._dtype)
        if self.whitener.solves and self._dtype == torch.float64:
            solved: torch.Tensor = torch.linalg.solve_triangular(self._matrix, centred.T, upper=False)
            return solved.T
        with float32_products():
            product: torch.Tensor = centred @ self._matrix.T
        return product

    def agreement(self, images: Any, views: Any) -> Agreement:
        """Compute the cosine and distance of every view to its image.

        Args:
            images: [n, d] of any float type, numpy or a tensor on the device.
            views: [n, k, d], as the images.
        """
        n, k, d = views.shape
        similar, apart, unit = [], [], []
        for block in self._blocks(n, k + 1):
            z = self(images[block])
            w = (
                self(views[block].reshape(-1, d)).unflatten(0, (-1, k))
                if k
                else z.new_zeros(len(z), 0, z.shape[1])
            )
            length = z.norm(dim=1, keepdim=True)
            unit.append(z / length)
            similar.append((w @ z[..., None])[..., 0] / (w.norm(dim=2) * length))
            apart.append((w - z[:, None]).norm(dim=2))
        if not unit:
            return Agreement(np.empty((0, k)), np.empty((0, k)), np.empty((0, self.whitener.rank)))
        cosine, distance = fetched(torch.cat(similar).double(), torch.cat(apart).double())
        return Agreement(cosine, distance, torch.cat(unit))

    def compare(self, features: Any, first: NDArray[np.intp], second: NDArray[np.intp]) -> PairAgreement:
        """Compute the cosine and distance of pairs of rows.

        Args:
            features: [N, d], numpy or a tensor on the device.
            first, second: rows [n].
        """
        parts = []
        for block in self._blocks(len(first), 4):
            x, y = (self(_rows(features, rows[block], self._device)).double() for rows in (first, second))
            distance = (x - y).norm(dim=1)
            x, y = (z / z.norm(dim=1, keepdim=True) for z in (x, y))
            parts.append(((x * y).sum(1), distance, x.float(), y.float()))
        if not parts:
            none = np.empty((0, self.whitener.rank), np.float32)
            return PairAgreement(np.empty(0), np.empty(0), none, none)
        similar, apart, a, b = (torch.cat(column) for column in zip(*parts, strict=True))
        cosine, distances = fetched(similar, apart)
        return PairAgreement(cosine, distances, a, b)

    def _blocks(self, count: int, vectors: int) -> Iterator[slice]:
        """Yield slices of items, of so many vectors each, that fit in memory at a time."""
        room = min(_BLOCK_BYTES, free_device_bytes(self._device) // 8 or _BLOCK_BYTES)
        step = max(1, room // (8 * vectors * max(self.whitener.rank, len(self._mean))))
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))


def _there(array: Any, device: str) -> torch.Tensor:
    return array.to(device) if isinstance(array, torch.Tensor) else placed(np.array(array), device)


def _rows(features: Any, rows: NDArray[np.intp], device: str) -> torch.Tensor:
    if isinstance(features, torch.Tensor):
        return features[placed(rows, device)]
    return upload(features, device, rows)
