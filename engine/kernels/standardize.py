"""Mean and standard deviation of features in one pass, in float64, block by block."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.vectors import Vectors

#: Rows widened to float64 at a time: 16 MiB at 2,048 features.
_ROWS = 1024


@dataclass(frozen=True)
class Moments:
    """What standardises features: (x - mean) / scale.

    Attributes:
        mean: float64 [d].
        scale: float64 [d], the population's standard deviation; 1 where a feature is constant.
        constant: how many features are.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    constant: int

    @property
    def note(self) -> str:
        """What to say about constant features."""
        return f"{self.constant} of {len(self.mean)} features are constant in train: they are left unscaled"

    @classmethod
    def of(cls, features: NDArray[Any], rows: NDArray[np.intp]) -> "Moments":
        """Moments of some rows, at least one, of features [N, d] of any float type, all finite.

        Blocks are merged as in Chan, Golub and LeVeque (The American Statistician 1983, 37, 242). All values
        are taken relative to the first row, so a constant feature has a spread of exactly zero.
        """
        vectors = Vectors(features, rows)
        origin = vectors.slice(0, 1)[0].astype(np.float64)
        mean, squares, seen = np.zeros_like(origin), np.zeros_like(origin), 0
        for _, block in vectors.blocks(_ROWS):
            moved = block.astype(np.float64) - origin
            centre = moved.mean(axis=0)
            step, total = centre - mean, seen + len(moved)
            moved -= centre
            squares += np.einsum("ij,ij->j", moved, moved) + step**2 * (seen * len(moved) / total)
            mean += step * (len(moved) / total)
            seen = total
        constant = squares == 0
        return cls(mean + origin, np.where(constant, 1.0, np.sqrt(squares / seen)), int(constant.sum()))
