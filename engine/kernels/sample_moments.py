"""Sample moments of features: what they are, and the blocks and samples of rows that they are summed over."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused

Arithmetic = Literal["float64", "float32"]
#: Rows of a block, and bytes that it may take once widened, at most; no float32 sum is longer than a block.
_BLOCK_ROWS, _BLOCK_BYTES = 8192, 64 << 20
#: Least rows of a block, and rows that the shift is computed from.
_LEAST, _SAMPLE = 128, 1024


@dataclass(frozen=True)
class Moments:
    """Sample moments of features [n, d]: numpy arrays, or torch tensors on the device that computed them.

    Attributes:
        count: n.
        mean: float64 [d].
        scatter: float64 [d, d], sum over rows of (x - mean)(x - mean)^T.
        quartic: sum over rows of |x - mean|^4.
    """

    count: int
    mean: Any
    scatter: Any
    quartic: Any

    @property
    def dim(self) -> int:
        return len(self.mean)

    def covariance(self, ddof: int = 1) -> Any:
        """Return scatter / (n - ddof), float64 [d, d]."""
        return self.scatter / (self.count - ddof)

    def on(self, device: str) -> "Moments":
        """Return moments of the host on a device, where their factor is then computed."""
        if device == "cpu":
            return self
        from engine.runtime import placed

        parts = (placed(np.asarray(part), device) for part in (self.mean, self.scatter, self.quartic))
        return Moments(self.count, *parts)

    def to_host(self) -> "Moments":
        """Return the same as numpy arrays."""
        if isinstance(self.scatter, np.ndarray):
            return self
        from engine.runtime import fetched

        mean, scatter, quartic = fetched(self.mean, self.scatter, self.quartic)
        return Moments(self.count, mean, scatter, float(quartic))

    def shrinkage(self) -> float:
        """Return the Ledoit-Wolf share of the identity, 0 to 1, as scikit-learn's `LedoitWolf` computes it.

        Source: Ledoit, Wolf, J. Multivariate Analysis 88 (2004) 365, doi:10.1016/S0047-259X(03)00096-4.
        """
        n, d = self.count, self.dim
        squared = float((self.scatter * self.scatter).sum()) / n**2
        average = float(self.scatter.trace()) / n / d
        spread = squared - d * average**2
        error = min((float(self.quartic) / n - squared) / n, spread)
        # In one dimension the covariance is already a multiple of the identity.
        return 0.0 if d == 1 or error <= 0 else error / spread


def not_finite() -> Refused:
    """Return the refusal of features that are not finite."""
    return Refused(
        "Features that are not finite", "A covariance needs finite features", "leave these rows out"
    )


def sample_rows(rows: NDArray[np.intp] | None, count: int) -> NDArray[np.intp]:
    """Return the rows whose mean is the shift: at most 1,024, evenly spaced."""
    positions = np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.intp)
    return positions if rows is None else rows[positions]


def block_size(dim: int, itemsize: int) -> int:
    """Return the number of rows of a block."""
    return min(_BLOCK_ROWS, max(_LEAST, _BLOCK_BYTES // (dim * itemsize)))
