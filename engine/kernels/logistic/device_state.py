"""What the solver keeps of selected problem on a CUDA device, so that the host need not wait for it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels.logistic.lbfgs import History, KroneckerPreconditioner


class DeviceHistory(History):
    """A history that knows how many pairs a problem can have, by the iterations since it began.

    Attributes:
        _most: intp [P], at least the number of pairs; the number itself is on the device.
    """

    def __init__(self, problems: int, size: int, memory: int, dtype: torch.dtype, device: str) -> None:
        super().__init__(problems, size, memory, dtype, device)
        self._most: NDArray[np.intp] = np.zeros(problems, np.intp)

    @property
    def has_pairs(self) -> Tensor:
        """Bool [P], whether a problem has pairs, be they usable or not."""
        return self._taken > 0

    def keep_rows(self, rows: NDArray[np.intp], positions: Tensor) -> None:
        """Drop all problems but these, whose positions are given on the host and on the device."""
        self._most = self._most[rows]
        self.keep(positions)

    def join(self, count: int) -> None:
        """Add problems without pairs."""
        super().join(count)
        self._most = np.concatenate([self._most, np.zeros(count, np.intp)])

    def forget(self, which: Tensor) -> None:
        """Drop all pairs of the problems where `which` [P] is true."""
        selected = which[:, None, None]
        self._steps.masked_fill_(selected, 0)
        self._changes.masked_fill_(selected, 0)
        self._products = torch.where(selected, self._eye(self._products.shape[1]), self._products)
        self._taken = self._taken.masked_fill(which, 0)

    def add(self, step: Tensor, change: Tensor) -> None:
        """Add a pair [P, size], as `History.add`."""
        super().add(step, change)
        self._most = self._most + 1

    def _largest(self) -> int:
        return int(self._most.max())


class DeviceKronecker(KroneckerPreconditioner):
    """Kronecker preconditioners, renewed for all problems at a time."""

    def _parts(self, curvature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if curvature.shape[1] == 1:
            return self._of(curvature[:, 0], torch.ones_like(curvature))
        values, vectors = torch.linalg.eigh(curvature)
        return self._of(values, vectors)

    def reset(self, curvature: Tensor) -> None:
        """Replace M, float64 [P, K, K], of all problems. With K > 1 the host waits."""
        self._intercept, self._scale, self._classes = self._parts(curvature)

    def follow(self, curvature: Tensor) -> None:
        """Replace M, float64 [P, K, K], by its diagonal in the present eigenvectors; nothing waits."""
        vectors = self._classes
        values = (vectors * (curvature @ vectors)).sum(1)
        self._intercept, self._scale, self._classes = self._of(values, vectors)
