"""Mean and standard deviation of features in one pass, in float64, block by block."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.vectors import Vectors

#: Rows widened to float64 at a time: 16 MiB at 2,048 features.
_ROWS = 1024


@dataclass(frozen=True)
class Scaler:
    """Mean and scale that standardise features: (x - mean) / scale.

    Attributes:
        mean: float64 [d].
        scale: float64 [d], population standard deviation; 1 where a feature is constant.
        constant: number of constant features.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    constant: int

    @property
    def note(self) -> str:
        """A remark on constant features, for the user."""
        return f"{self.constant} of {len(self.mean)} features are constant in train: they are left unscaled"

    @classmethod
    def of(cls, features: NDArray[Any], rows: NDArray[np.intp]) -> "Scaler":
        """Compute mean and scale of at least one row of features [N, d] of any float type, all finite.

        Blocks are merged as in Chan, Golub and LeVeque (The American Statistician 1983, 37, 242). Values are
        taken relative to the first row, so that the variance of a constant feature is exactly zero.
        """
        vectors = Vectors(features, rows)
        origin = vectors.slice(0, 1)[0].astype(np.float64)
        mean, squares, count = np.zeros_like(origin), np.zeros_like(origin), 0
        for _, block in vectors.blocks(_ROWS):
            shifted = block.astype(np.float64) - origin
            block_mean = shifted.mean(axis=0)
            mean_change, total = block_mean - mean, count + len(shifted)
            shifted -= block_mean
            squares += np.einsum("ij,ij->j", shifted, shifted) + mean_change**2 * (
                count * len(shifted) / total
            )
            mean += mean_change * (len(shifted) / total)
            count = total
        constant = squares == 0
        return cls(mean + origin, np.where(constant, 1.0, np.sqrt(squares / count)), int(constant.sum()))
