"""Search directions: limited-memory BFGS for many problems at once, with a Kronecker preconditioner.

For L-BFGS see Liu and Nocedal, Math. Programming 45 (1989) 503. The two-loop recursion is written in terms of
the small matrices of inner products, as in Byrd, Nocedal and Schnabel, Math. Programming 63 (1994) 129, so
that a direction costs a few batched matrix-vector products instead of a long sequence of dot products.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.logistic.design_matrix import DesignMatrix, add_gram

#: Lower bound of eigenvalues as a share of the largest: smaller ones are rounding errors in that precision.
_FLOOR = {torch.float32: 3e-7, torch.float64: 1e-14}
#: Number of pairs for which memory is allocated at first.
_FIRST_PAIRS = 8


@dataclass(frozen=True)
class Spectrum:
    """The eigendecomposition X^T X = V diag(values) V^T.

    Attributes:
        values: float64 [d], not negative; X^T X is the sum over rows, not the mean.
        vectors: float64 [d, d], one eigenvector per column.
    """

    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, design: DesignMatrix) -> "Spectrum":
        """Compute X^T X in one pass over the rows, and decompose it in float64."""
        dtype = torch.float64 if design.small else torch.float32
        gram = torch.zeros(design.dim, design.dim, dtype=torch.float64, device=design.device)
        with design.clock(float(len(design) * design.dim**2)):  # half of a product, by symmetry
            for block in design.blocks(dtype):
                add_gram(gram, block)
        values, vectors = torch.linalg.eigh(gram, UPLO="L")
        return cls(values.clamp(min=0.0), vectors)

    def floored(self, dtype: torch.dtype) -> Tensor:
        """Return the eigenvalues, raised to the smallest value that the precision resolves."""
        return torch.maximum(self.values, _FLOOR[dtype] * self.values[-1:])

    def whitening(self, curvature: float, rows: int, C: float, dtype: torch.dtype) -> Tensor:
        """Return factors [d + 1] of (X V, 1) that turn curvature (X, 1)^T (X, 1) / rows + I / C into I."""
        weights = (curvature / rows * self.floored(dtype) + 1.0 / C).rsqrt()
        return torch.cat([weights, torch.full_like(weights[:1], curvature).rsqrt()]).to(dtype)


class KroneckerPreconditioner:
    """Inverse of M (x) X^T X / n + I for each problem: the Hessian if every row's softmax Hessian were M / n.

    It is diagonal in the basis of M's eigenvectors (K x K) times those of X^T X; the intercepts involve M
    only. At W = 0 all rows have the same softmax Hessian, and the first direction is Newton's.

    Args:
        curvature: float64 [P, K, K], C times the weighted sum over rows of the softmax Hessians.
    """

    def __init__(self, spectrum: Spectrum, rows: int, dtype: torch.dtype, curvature: Tensor) -> None:
        self._values = spectrum.floored(dtype) / rows
        self._vectors = spectrum.vectors.to(dtype)
        self._intercept, self._scale, self._classes = self._parts(curvature)

    def _parts(self, curvature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._of(*torch.linalg.eigh(curvature))

    def _of(self, values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the parts of M with these eigenvalues [P, K] and eigenvectors [P, K, K]."""
        values = values.clamp(min=0.0)
        # Adding a constant to all intercepts of a softmax changes nothing: that direction has no curvature.
        flat = values <= 1e-12 * values.amax(1, keepdim=True)
        intercept = torch.where(flat, 0.0, 1.0 / torch.where(flat, 1.0, values))
        return intercept, 1.0 / (values[:, :, None] * self._values + 1.0), vectors

    def renew(self, which: Tensor, curvature: Tensor) -> None:
        """Replace M, float64 [P', K, K], of the problems `which`."""
        self._intercept[which], self._scale[which], self._classes[which] = self._parts(curvature)

    def join(self, curvature: Tensor) -> None:
        """Add problems with the given M."""
        parts = self._parts(curvature)
        self._intercept = torch.cat([self._intercept, parts[0]])
        self._scale = torch.cat([self._scale, parts[1]])
        self._classes = torch.cat([self._classes, parts[2]])

    def keep(self, which: Tensor) -> None:
        """Drop all problems but these."""
        self._intercept, self._scale = self._intercept[which], self._scale[which]
        self._classes = self._classes[which]

    def __call__(self, gradient: Tensor) -> Tensor:
        """Multiply gradients [P, K, d + 1], of weights and intercepts, by the inverse."""
        dtype = gradient.dtype
        classes = self._classes.to(dtype)
        rotated = classes.transpose(1, 2) @ gradient
        weights = ((rotated[..., :-1] @ self._vectors) * self._scale.to(dtype)) @ self._vectors.T
        intercepts = rotated[..., -1:] * self._intercept.to(dtype)[..., None]
        preconditioned: Tensor = classes @ torch.cat([weights, intercepts], dim=2)
        return preconditioned


class History:
    """The last steps s and gradient changes y of each problem.

    Args:
        problems, size: number of problems, and of variables of each.
        memory: maximum number of pairs. Space grows as needed: most problems are solved before it is full.
    """

    def __init__(self, problems: int, size: int, memory: int, dtype: torch.dtype, device: str) -> None:
        self._memory = memory
        self._steps = torch.zeros(problems, 0, size, dtype=dtype, device=device)
        self._changes = torch.zeros_like(self._steps)
        # products[p, i, j] = s_i . y_j; a missing pair has s = y = 0 and 1 on the diagonal.
        self._products = torch.zeros(problems, 0, 0, dtype=torch.float64, device=device)
        self._taken = torch.zeros(problems, dtype=torch.int64, device=device)

    def keep(self, which: Tensor) -> None:
        """Drop all problems but these."""
        self._taken = self._taken[which]
        slots = min(self._steps.shape[1], self._largest()) if len(self._taken) else 0
        self._steps, self._changes = self._steps[which, :slots], self._changes[which, :slots]
        self._products = self._products[which, :slots, :slots]

    def join(self, count: int) -> None:
        """Add problems without pairs."""
        empty = self._steps.new_zeros(count, *self._steps.shape[1:])
        self._steps, self._changes = torch.cat([self._steps, empty]), torch.cat([self._changes, empty])
        slots = self._products.shape[1]
        self._products = torch.cat([self._products, self._eye(slots).expand(count, -1, -1)])
        self._taken = torch.cat([self._taken, self._taken.new_zeros(count)])

    def forget(self, which: Tensor) -> None:
        """Drop all pairs of the problems where `which` [P] is true."""
        for pairs in (self._steps, self._changes):
            pairs[which] = 0
        self._products[which] = self._eye(self._products.shape[1])
        self._taken[which] = 0

    def add(self, step: Tensor, change: Tensor) -> None:
        """Add a pair [P, size], replacing the oldest; pairs without positive curvature are ignored."""
        product = (step * change).sum(1, dtype=torch.float64)
        length = (step * step).sum(1, dtype=torch.float64) * (change * change).sum(1, dtype=torch.float64)
        usable = (product > 1e-10 * length.sqrt()) & torch.isfinite(length)
        if self._steps.shape[1] < self._memory and self._largest() >= self._steps.shape[1]:
            self._grow()
        problems, slot = torch.arange(len(step), device=step.device), self._taken % self._memory
        self._steps[problems, slot] = torch.where(usable[:, None], step, 0)
        self._changes[problems, slot] = torch.where(usable[:, None], change, 0)
        self._products[problems, slot, :] = _times(self._changes, self._steps[problems, slot])
        self._products[problems, :, slot] = _times(self._steps, self._changes[problems, slot])
        self._products[problems, slot, slot] = torch.where(usable, product, 1.0)
        self._taken += 1

    def _largest(self) -> int:
        """Return the largest number of pairs that a problem has taken."""
        return int(self._taken.max())

    def _grow(self) -> None:
        """Double the space for pairs; existing pairs keep their slots."""
        problems, old_slots, size = self._steps.shape
        new_slots = min(max(2 * old_slots, _FIRST_PAIRS), self._memory)
        self._steps, self._changes = (
            torch.cat([pairs, pairs.new_zeros(problems, new_slots - old_slots, size)], dim=1)
            for pairs in (self._steps, self._changes)
        )
        products = self._eye(new_slots).expand(problems, -1, -1).clone()
        products[:, :old_slots, :old_slots] = self._products
        self._products = products

    def _eye(self, pairs: int) -> Tensor:
        return torch.eye(pairs, dtype=torch.float64, device=self._products.device)

    def direction(self, gradient: Tensor, precondition: Callable[[Tensor], Tensor]) -> Tensor:
        """Return minus the approximate inverse Hessian times the gradient [P, K, d + 1]."""
        slots = self._steps.shape[1]
        if slots == 0:
            return -precondition(gradient)
        # Oldest first; empty slots come before all pairs.
        order = (torch.arange(slots, device=gradient.device) + self._taken[:, None]) % slots
        products = self._products.gather(1, order[:, :, None].expand(-1, -1, slots))
        products = products.gather(2, order[:, None, :].expand(-1, slots, -1))
        upper = torch.triu(products)
        flat = gradient.flatten(1)
        step_products = _times(self._steps, flat).gather(1, order)
        alpha = torch.linalg.solve_triangular(upper, step_products[..., None], upper=True)[..., 0]
        flat = flat - self._combine(self._changes, alpha, order)
        result = precondition(flat.view(gradient.shape)).flatten(1)
        change_products = _times(self._changes, result).gather(1, order)
        residual = torch.diagonal(products, dim1=1, dim2=2) * alpha - change_products
        gamma = torch.linalg.solve_triangular(upper.transpose(1, 2), residual[..., None], upper=False)[..., 0]
        result = result + self._combine(self._steps, gamma, order)
        return -result.view(gradient.shape)

    @staticmethod
    def _combine(pairs: Tensor, weights: Tensor, order: Tensor) -> Tensor:
        """Return the sum of pairs [P, memory, size] weighted by [P, memory], weights oldest first."""
        weights_by_slot = torch.empty_like(weights).scatter_(1, order, weights)
        return torch.bmm(weights_by_slot.to(pairs.dtype)[:, None], pairs)[:, 0]


def _times(pairs: Tensor, vector: Tensor) -> Tensor:
    """Return inner products [P, memory], float64, of pairs [P, memory, size] and a vector [P, size]."""
    return torch.bmm(pairs, vector[..., None])[..., 0].double()
