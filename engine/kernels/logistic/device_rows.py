"""Rows of features for a fit on a CUDA device: resident where they fit, else uploaded in every pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.runtime import placed, upload, uploaded_blocks

#: Share of the memory for X that rows in their stored precision may take; the rest is for X in float32.
_STORED_SHARE = 2


@dataclass(frozen=True)
class DeviceRows:
    """The rows used by a fit, in their stored precision.

    Attributes:
        features: [N, d], a tensor on the device, or an array that did not fit there.
        index: intp [n], positions of the rows; None for all of them.
        positions: int64 [n], the same on the device; None where the features are an array.
        device: `cuda:N`.
        bytes: of the device that the rows took; 0 if the caller's tensor was there already.
    """

    features: Any
    index: NDArray[np.intp] | None
    positions: Tensor | None
    device: str
    bytes: int = 0

    @classmethod
    def of(cls, features: Any, index: NDArray[np.intp], device: str, memory: int) -> "DeviceRows":
        """Return rows of features, on the device if that takes at most half of the memory.

        Args:
            features: [N, d] numpy (possibly memory-mapped) or torch, of any float type.
            index: intp [n], positions of the rows.
            memory: bytes.
        """
        if isinstance(features, Tensor) and features.device.type == "cuda":
            chosen = None if _are_all(index, len(features)) else index
            return cls(features, chosen, None if chosen is None else placed(index, device), device)
        if isinstance(features, Tensor):
            features = features.numpy()
        size = len(index) * features.shape[1] * features.dtype.itemsize
        chosen = None if _are_all(index, len(features)) else index
        if size * _STORED_SHARE <= memory:
            return cls(upload(features, device, chosen), None, None, device, size)
        return cls(features, chosen, None, device)

    def blocks(self, step: int) -> Iterator[Tensor]:
        """Yield so many rows at a time, on the device."""
        if not isinstance(self.features, Tensor):
            for _, block in uploaded_blocks(self.features, self.device, step, self.index):
                yield block
            return
        count = len(self.features) if self.index is None else len(self.index)
        for start in range(0, count, step):
            stop = min(start + step, count)
            if self.positions is None:
                yield self.features[start:stop]
            else:
                yield self.features.index_select(0, self.positions[start:stop])


def _are_all(index: NDArray[np.intp], count: int) -> bool:
    return len(index) == count and np.array_equal(index, np.arange(count))
