"""Newton's preconditioner, for the problems that a Kronecker product serves badly.

Where C is large, rows far from the decision boundaries have no curvature left, and for a rare class few rows
have any: the Hessian C (A + I / C) with

    A = sum_i weight_i (diag(p_i) - p_i p_i^T) (x) x_i x_i^T

is no Kronecker product any more, and hundreds of iterations would follow. But then A itself hardly depends
on C, because the regularisation decides little: one Cholesky factor, made at the middle one of the values
that are left, serves all of them, and L-BFGS corrects what has changed since. Problems whose curvature
differs from the factor's (separable classes, where it falls like 1 / C) keep the Kronecker product.

Softmax probabilities stay when one vector is added to all classes' weights, so A lives on the K - 1
orthonormal differences of classes. Rows are first whitened by the spectrum of X: what is left to
factorise is well enough conditioned for float32.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.logistic_lbfgs import Spectrum
from engine.kernels.logistic_loss import Targets
from engine.kernels.logistic_rows import Rows

#: Products with X since the last factor, as a share of its cost, after which the first one pays.
_PATIENCE = 0.3
#: Iterations after which a factor is made anew for what is left, and how often in all.
_AGE, _TIMES = 25, 3
#: A factor serves problems whose C and whose mean curvature are within these factors of its own.
_SPAN, _ALIKE = 40.0, 2.0
#: Rows that are weighted at a time.
_PIECE = 4096


@dataclass(frozen=True)
class _Factor:
    """Cholesky factor of A + I / C, whitened."""

    task: int
    C: float
    curvature: float
    white: Tensor  # [d + 1], factors of the whitened coordinates
    lower: Tensor  # [m, m], m = K'' (d + 1)


class Newton:
    """Factors that a whole path of fits shares, the latest of each task.

    Args:
        outputs: K', linear predictors of a problem.
        memory: bytes that factors may take; where one does not fit there is none.
    """

    def __init__(self, rows: Rows, spectrum: Spectrum, outputs: int, dtype: torch.dtype, memory: int) -> None:
        self._rows, self._spectrum, self._dtype = rows, spectrum, dtype
        self._vectors = spectrum.vectors.to(dtype)
        self._basis = _differences(outputs, rows.device)
        self._width = self._basis.shape[1]
        unknowns = self._width * (rows.dim + 1)
        pairs = self._width * (self._width + 1) / 2
        self._cost = (1.25 * pairs + 2) * len(rows) * (rows.dim + 1) ** 2 + unknowns**3 / 3
        bytes_each = torch.finfo(dtype).bits // 8 * unknowns**2
        # While it is made: the matrix, twice that in float64, twice.
        self._most = max(0, int(memory // bytes_each) - 5)
        self._factors: list[_Factor] = []
        self._spent, self._age, self._made = rows.flops, 0, 0

    def begin(self) -> None:
        """A new group of problems is taken up."""
        self._spent, self._age, self._made = self._rows.flops, 0, 0

    def due(self, task: Tensor, C: Tensor) -> bool:
        """Whether new factors would pay for the problems that are left; to be asked once an iteration."""
        self._age += 1
        tasks = len(torch.unique(task))
        if self._made >= _TIMES or tasks > self._most or C.max() > C.min() * _SPAN**2:
            return False
        if self._made:
            return self._age >= _AGE
        return self._rows.flops - self._spent >= _PATIENCE * self._cost * tasks

    def build(
        self, task: Tensor, C: Tensor, targets: Sequence[Targets], predictors: Sequence[Tensor]
    ) -> None:
        """Make a factor for each task, at the predictors [P, K', rows] of the middle one of its problems."""
        for t in torch.unique(task).tolist():
            own = torch.nonzero(task == t)[:, 0]
            middle = own[torch.argsort(C[own], stable=True)[len(own) // 2]][None]
            self._factors = [f for f in self._factors if f.task != t][: self._most - 1]
            blocks = [(of.of(task[middle]), z[middle]) for of, z in zip(targets, predictors, strict=True)]
            trace = sum(float(mean_curvature(of.curvature(z))) for of, z in blocks)
            curvature = torch.cat([of.curvatures(z[0], self._basis) for of, z in blocks])
            strength = float(C[middle])
            white = self._spectrum.whitening(trace / self._width, len(self._rows), strength, self._dtype)
            lower = self._factorise(self._matrix(curvature, white), white, strength)
            if lower is not None:
                self._factors.append(_Factor(t, strength, trace, white, lower))
        self._age, self._made = 0, self._made + 1

    def serves(self, task: Tensor, C: Tensor, curvature: Tensor) -> Tensor:
        """int64 [P]: the factor for each problem, or -1.

        Args:
            curvature: float64 [P], `mean_curvature` without C.
        """
        found = torch.full_like(task, -1)
        for i, factor in enumerate(self._factors):
            apart = (C / factor.C).log().abs() / torch.tensor(_SPAN).log()
            unlike = (curvature / factor.curvature).log().abs() / torch.tensor(_ALIKE).log()
            found[(task == factor.task) & (apart <= 1) & (unlike <= 1)] = i
        return found

    def solve(self, factor: int, gradients: Tensor, C: Tensor) -> Tensor:
        """Approximate inverse Hessians times gradients [P, K', d + 1]."""
        basis = self._basis.to(self._dtype)
        reduced = basis.T @ gradients.to(self._dtype)
        made = self._factors[factor]
        turned = torch.cat([reduced[..., :-1] @ self._vectors, reduced[..., -1:]], dim=2) * made.white
        solved = torch.cholesky_solve(turned.flatten(1).T, made.lower).T.reshape(turned.shape) * made.white
        back = torch.cat([solved[..., :-1] @ self._vectors.T, solved[..., -1:]], dim=2)
        # A vector common to all classes meets the regularisation alone, whose Hessian is the identity.
        common = (gradients - (self._basis @ (self._basis.T @ gradients.double())).to(gradients.dtype))[
            ..., :-1
        ]
        found = (basis @ back / C.to(self._dtype)[:, None, None]).to(gradients.dtype)
        found[..., :-1] += common
        return found

    def _matrix(self, curvature: Tensor, white: Tensor) -> Tensor:
        """A, whitened, from the rows' curvatures [n, K'', K'']: [m, m], its lower triangle."""
        size, width = self._rows.dim + 1, self._width
        found = torch.zeros(width, size, width, size, dtype=self._dtype, device=self._rows.device)
        panel = max(64, -(-size // 4))
        with self._rows.clock(self._cost):
            for x, weight in self._pieces(curvature, white):
                for k in range(width):
                    for j in range(k + 1):
                        scaled = x * weight[:, k, j, None]
                        # Every block is symmetric: only its lower part is computed, panel by panel.
                        for at in range(0, size, panel):
                            found[k, at:, j, at : at + panel] += scaled[:, at:].T @ x[:, at : at + panel]
            for k in range(width):
                for j in range(k + 1):
                    block = found[k, :, j]
                    block.copy_(torch.tril(block) + torch.tril(block, -1).T)
        return found.view(width * size, width * size)

    def _pieces(self, curvature: Tensor, white: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, 1), whitened, of several blocks of rows together, and their curvatures."""
        held: list[Tensor] = []
        stop = count = 0
        for block in self._rows.blocks(self._dtype):
            held.append(torch.cat([block @ self._vectors, torch.ones_like(block[:, :1])], dim=1) * white)
            count += len(block)
            stop += len(block)
            if count >= _PIECE or stop == len(self._rows):
                yield torch.cat(held), curvature[stop - count : stop].to(self._dtype)
                held, count = [], 0

    def _factorise(self, matrix: Tensor, white: Tensor, C: float) -> Tensor | None:
        """Factor of matrix + I / C (intercepts free), with more where rounding has made it indefinite."""
        more = 4 * torch.finfo(self._dtype).eps * float(torch.diagonal(matrix).mean())
        ridge = white.double() ** 2 / C
        ridge[-1] = 0.0
        for _ in range(4):
            trial = matrix.double()
            trial.diagonal().add_(ridge.repeat(self._width) + more)
            lower, failed = torch.linalg.cholesky_ex(trial)
            if not int(failed):
                found: Tensor = lower.to(self._dtype)
                return found
            more *= 30.0
        return None


def mean_curvature(hessian: Tensor) -> Tensor:
    """Trace of softmax Hessians [..., K, K]."""
    return torch.diagonal(hessian, dim1=-2, dim2=-1).sum(-1)


def _differences(outputs: int, device: str) -> Tensor:
    """Orthonormal basis [K', K''] of class vectors that sum to zero; for one output, the output."""
    if outputs == 1:
        return torch.ones(1, 1, dtype=torch.float64, device=device)
    centre = torch.eye(outputs, dtype=torch.float64, device=device) - 1.0 / outputs
    vectors: Tensor = torch.linalg.eigh(centre)[1]
    return vectors[:, 1:]
