"""Mean and standard deviation of features, in float64, block by block."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.vectors import Vectors

if TYPE_CHECKING:
    import torch

#: Rows widened to float64 at a time: 16 MiB at 2,048 features.
_ROWS = 1024
#: The same on a device: 256 MiB.
_TENSOR_ROWS = 1 << 14


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
    def of(cls, features: Any, rows: NDArray[np.intp]) -> "Scaler":
        """Compute mean and scale of at least one row of features [N, d] of any float type, all finite.

        Args:
            features: numpy or torch.
            rows: positions.

        Blocks of an array are merged as in Chan, Golub and LeVeque (The American Statistician 1983, 37, 242);
        a tensor is read twice where it lies. Values are taken relative to the first row, so that the variance
        of a constant feature is exactly zero.
        """
        if not isinstance(features, np.ndarray) and hasattr(features, "device"):
            return cls._of_tensor(features, rows)
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
        return cls._from(mean + origin, squares, count)

    @classmethod
    def _of_tensor(cls, features: "torch.Tensor", rows: NDArray[np.intp]) -> "Scaler":
        import torch

        from engine.runtime import HostCopy, placed

        positions = placed(rows, str(features.device))
        origin = features[positions[:1]][0].double()
        mean, squares = torch.zeros_like(origin), torch.zeros_like(origin)
        starts = range(0, len(rows), _TENSOR_ROWS)
        for start in starts:
            mean += (features[positions[start : start + _TENSOR_ROWS]].double() - origin).sum(0)
        mean /= len(rows)
        for start in starts:
            shifted = features[positions[start : start + _TENSOR_ROWS]].double() - origin
            squares += (shifted - mean).square_().sum(0)
        both = HostCopy(torch.stack([mean + origin, squares])).wait().numpy()
        return cls._from(both[0].copy(), both[1], len(rows))

    @classmethod
    def _from(cls, mean: NDArray[np.float64], squares: NDArray[np.float64], count: int) -> "Scaler":
        """Return the scaler of features with these means and sums of squared deviations, float64 [d]."""
        constant = squares == 0
        return cls(mean, np.where(constant, 1.0, np.sqrt(squares / count)), int(constant.sum()))
