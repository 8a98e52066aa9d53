"""Search directions: limited-memory BFGS for many problems at once, on a Kronecker preconditioner.

For L-BFGS see Liu and Nocedal, Math. Programming 45 (1989) 503. Here the two-loop recursion is written with
the small matrices of inner products (as Byrd, Nocedal and Schnabel, Math. Programming 63 (1994) 129, do), so
that a direction costs a few batched matrix-vector products instead of a long sequence of dot products.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.logistic.design_matrix import Rows, add_gram

#: Eigenvalues are not taken smaller than this share of the largest: below it a precision sees only rounding.
_FLOOR = {torch.float32: 3e-7, torch.float64: 1e-14}
#: Pairs that there is room for at first.
_FIRST_PAIRS = 8


@dataclass(frozen=True)
class Spectrum:
    """X^T X = V diag(values) V^T.

    Attributes:
        values: float64 [d], not negative; of the sum over rows, not the mean.
        vectors: float64 [d, d], a column each.
    """

    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, rows: Rows) -> "Spectrum":
        """One pass over the rows, and a decomposition in float64."""
        dtype = torch.float64 if rows.small else torch.float32
        gram = torch.zeros(rows.dim, rows.dim, dtype=torch.float64, device=rows.device)
        with rows.clock(float(len(rows) * rows.dim**2)):  # half of a product, by symmetry
            for block in rows.blocks(dtype):
                add_gram(gram, block)
        values, vectors = torch.linalg.eigh(gram, UPLO="L")
        return cls(values.clamp(min=0.0), vectors)

    def floored(self, dtype: torch.dtype) -> Tensor:
        """Values, none so small that the precision would see only rounding."""
        return torch.maximum(self.values, _FLOOR[dtype] * self.values[-1:])

    def whitening(self, curvature: float, rows: int, C: float, dtype: torch.dtype) -> Tensor:
        """Factors [d + 1] of (X V, 1) that make curvature (X, 1)^T (X, 1) / rows + I / C the identity."""
        weights = (curvature / rows * self.floored(dtype) + 1.0 / C).rsqrt()
        return torch.cat([weights, torch.full_like(weights[:1], curvature).rsqrt()]).to(dtype)


class Preconditioner:
    """Inverse of M (x) X^T X / n + I for each problem: of the Hessian, were M / n each row's softmax Hessian.

    It is diagonal in the basis of M's eigenvectors (K x K) times those of X^T X; the intercepts see M alone.
    At W = 0 all rows do have one softmax Hessian, and the first direction is Newton's.

    Args:
        curvature: float64 [P, K, K], C times the weighted sum over rows of the softmax Hessians.
    """

    def __init__(self, spectrum: Spectrum, rows: int, dtype: torch.dtype, curvature: Tensor) -> None:
        self._values = spectrum.floored(dtype) / rows
        self._vectors = spectrum.vectors.to(dtype)
        self._intercept, self._scale, self._classes = self._parts(curvature)

    def _parts(self, curvature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(curvature)
        values = values.clamp(min=0.0)
        # Adding one number to all intercepts of a softmax changes nothing: that direction has no curvature.
        flat = values <= 1e-12 * values[:, -1:]
        intercept = torch.where(flat, 0.0, 1.0 / torch.where(flat, 1.0, values))
        return intercept, 1.0 / (values[:, :, None] * self._values + 1.0), vectors

    def renew(self, which: Tensor, curvature: Tensor) -> None:
        """Take a new M, float64 [P', K, K], for some problems."""
        self._intercept[which], self._scale[which], self._classes[which] = self._parts(curvature)

    def join(self, curvature: Tensor) -> None:
        """Serve more problems, of these M."""
        parts = self._parts(curvature)
        self._intercept = torch.cat([self._intercept, parts[0]])
        self._scale = torch.cat([self._scale, parts[1]])
        self._classes = torch.cat([self._classes, parts[2]])

    def keep(self, which: Tensor) -> None:
        """Forget the other problems."""
        self._intercept, self._scale = self._intercept[which], self._scale[which]
        self._classes = self._classes[which]

    def __call__(self, gradient: Tensor) -> Tensor:
        """[P, K, d + 1] to the same, weights and intercepts."""
        dtype = gradient.dtype
        classes = self._classes.to(dtype)
        turned = classes.transpose(1, 2) @ gradient
        weights = ((turned[..., :-1] @ self._vectors) * self._scale.to(dtype)) @ self._vectors.T
        intercepts = turned[..., -1:] * self._intercept.to(dtype)[..., None]
        found: Tensor = classes @ torch.cat([weights, intercepts], dim=2)
        return found


class History:
    """The last steps s and changes of the gradient y of each problem.

    Args:
        problems, size: number of problems, and of numbers that one has.
        memory: pairs kept. Room is made as they come: most problems are done before there are so many.
    """

    def __init__(self, problems: int, size: int, memory: int, dtype: torch.dtype, device: str) -> None:
        self._memory = memory
        self._steps = torch.zeros(problems, 0, size, dtype=dtype, device=device)
        self._changes = torch.zeros_like(self._steps)
        # products[p, i, j] = s_i . y_j; a missing pair has s = y = 0 and 1 on the diagonal.
        self._products = torch.zeros(problems, 0, 0, dtype=torch.float64, device=device)
        self._taken = torch.zeros(problems, dtype=torch.int64, device=device)

    def keep(self, which: Tensor) -> None:
        """Forget the other problems."""
        self._taken = self._taken[which]
        room = min(self._steps.shape[1], int(self._taken.max())) if len(self._taken) else 0
        self._steps, self._changes = self._steps[which, :room], self._changes[which, :room]
        self._products = self._products[which, :room, :room]

    def join(self, count: int) -> None:
        """Have more problems, without pairs."""
        more = self._steps.new_zeros(count, *self._steps.shape[1:])
        self._steps, self._changes = torch.cat([self._steps, more]), torch.cat([self._changes, more])
        room = self._products.shape[1]
        self._products = torch.cat([self._products, self._eye(room).expand(count, -1, -1)])
        self._taken = torch.cat([self._taken, self._taken.new_zeros(count)])

    def forget(self, which: Tensor) -> None:
        """Drop all pairs of the problems where `which` [P] is true."""
        for pairs in (self._steps, self._changes):
            pairs[which] = 0
        self._products[which] = self._eye(self._products.shape[1])
        self._taken[which] = 0

    def add(self, step: Tensor, change: Tensor) -> None:
        """Take a pair [P, size] in place of the oldest; one without positive curvature is left out."""
        product = (step * change).sum(1, dtype=torch.float64)
        length = (step * step).sum(1, dtype=torch.float64) * (change * change).sum(1, dtype=torch.float64)
        usable = (product > 1e-10 * length.sqrt()) & torch.isfinite(length)
        if self._steps.shape[1] < self._memory and int(self._taken.max()) == self._steps.shape[1]:
            self._grow()
        every, at = torch.arange(len(step), device=step.device), self._taken % self._memory
        self._steps[every, at] = torch.where(usable[:, None], step, 0)
        self._changes[every, at] = torch.where(usable[:, None], change, 0)
        self._products[every, at, :] = _times(self._changes, self._steps[every, at])
        self._products[every, :, at] = _times(self._steps, self._changes[every, at])
        self._products[every, at, at] = torch.where(usable, product, 1.0)
        self._taken += 1

    def _grow(self) -> None:
        """Make room for twice as many pairs; what is there keeps its place."""
        problems, before, size = self._steps.shape
        after = min(max(2 * before, _FIRST_PAIRS), self._memory)
        self._steps, self._changes = (
            torch.cat([pairs, pairs.new_zeros(problems, after - before, size)], dim=1)
            for pairs in (self._steps, self._changes)
        )
        products = self._eye(after).expand(problems, -1, -1).clone()
        products[:, :before, :before] = self._products
        self._products = products

    def _eye(self, pairs: int) -> Tensor:
        return torch.eye(pairs, dtype=torch.float64, device=self._products.device)

    def direction(self, gradient: Tensor, precondition: Callable[[Tensor], Tensor]) -> Tensor:
        """Minus the gradient [P, K, d + 1] times the approximate inverse Hessian."""
        room = self._steps.shape[1]
        if room == 0:
            return -precondition(gradient)
        # Oldest first; where there is room left, missing pairs come first.
        order = (torch.arange(room, device=gradient.device) + self._taken[:, None]) % room
        products = self._products.gather(1, order[:, :, None].expand(-1, -1, room))
        products = products.gather(2, order[:, None, :].expand(-1, room, -1))
        upper = torch.triu(products)
        flat = gradient.flatten(1)
        along = _times(self._steps, flat).gather(1, order)
        alpha = torch.linalg.solve_triangular(upper, along[..., None], upper=True)[..., 0]
        flat = flat - self._combine(self._changes, alpha, order)
        found = precondition(flat.view(gradient.shape)).flatten(1)
        across = _times(self._changes, found).gather(1, order)
        rest = torch.diagonal(products, dim1=1, dim2=2) * alpha - across
        gamma = torch.linalg.solve_triangular(upper.transpose(1, 2), rest[..., None], upper=False)[..., 0]
        found = found + self._combine(self._steps, gamma, order)
        return -found.view(gradient.shape)

    @staticmethod
    def _combine(pairs: Tensor, weights: Tensor, order: Tensor) -> Tensor:
        """Sum of pairs [P, memory, size] with weights [P, memory] that are given in the order of age."""
        placed = torch.empty_like(weights).scatter_(1, order, weights)
        return torch.bmm(placed.to(pairs.dtype)[:, None], pairs)[:, 0]


def _times(pairs: Tensor, vector: Tensor) -> Tensor:
    """Inner products [P, memory] in float64 of pairs [P, memory, size] and a vector [P, size]."""
    return torch.bmm(pairs, vector[..., None])[..., 0].double()
