"""A preconditioner for the fits that a Kronecker product serves badly: the Hessian's diagonal blocks.

Where C is large, a rare class is told apart almost everywhere: rows far from its boundary have no curvature
left, and the mean Hessian that a Kronecker product is made of (`logistic_lbfgs`) is wrong by orders of
magnitude in the directions that only such rows see. Hundreds of iterations follow, and the estimate of what
is left to gain is as wrong. So each class k gets the block of the Hessian that belongs to its own weights,

    A_k = sum_i weight_i p_ik (1 - p_ik) (x_i, 1)(x_i, 1)^T,

and the inverse Hessian is approximated by Z diag((C A_k + I)^-1) Z, where Z takes the mean over classes away
(adding one vector to all classes' weights changes no probability). Were every row's p the same, the spectrum
of the preconditioned Hessian would lie between 1 and 2 for any number of classes.

Rows are first whitened by the spectrum of X. There the block of a class that enough rows decide is nearly a
multiple of the identity: its diagonal, which costs next to nothing, stands for it. Only classes that few rows
decide have whole blocks. Rows whose weights sum to next to nothing are left out of these: the rarer and the
better separated a class, the fewer rows make its block, and the cheaper is what changes most. Where there
are many nevertheless, products in bfloat16 (where the processor has them) suffice.

Blocks are shared. Along the path most classes' rows hardly change their curvature; a block serves every fit
of its task whose p (1 - p) are nearly its own, and only what has drifted is made anew.
"""

import math
import operator
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.kernels.logistic.design_matrix import Rows, add_gram
from engine.kernels.logistic.lbfgs import Spectrum
from engine.runtime import fast_bfloat16, synchronize

#: A block serves fits whose weights differ from its own by this share of their sum.
_ALIKE = 0.3
#: Share of a class's curvature whose rows are replaced by what rows are like on average.
_LEFT_OUT = 1e-3
#: With as many rows as this times d, were they weighted alike, the diagonal stands for a block.
_PLENTY = 2
#: With fewer rows than this times d, small eigenvalues appear and count: less is left out, and fits whose
#: progress is slow want blocks that are so much like theirs.
_MANY, _LEFT_OUT_OF_FEW, _ALIKE_OF_FEW = 2, 1e-6, 0.02
#: Regularisation below this share of a factor's pivots makes no difference to it.
_SLIGHT = 0.05
#: Fits share a Cholesky factor where their C fall into the same step of this factor.
_STEP = 10.0
#: Rows that are weighted at a time.
_PIECE = 4096


@dataclass(eq=False)
class _Block:
    """A_k of one task at one fit's predictors, in whitened coordinates."""

    weights: Tensor  # [n], p (1 - p) of the rows
    many: bool
    gram: Tensor  # [d + 1, d + 1], its lower half; or its diagonal alone, [d + 1]
    factors: dict[int, Tensor] = field(default_factory=dict)  # by step of C
    last_step: int | None = None  # from which on C is so large that one factor serves
    used: int = 0

    @property
    def diagonal(self) -> bool:
        """Whether the diagonal stands for the block."""
        return self.gram.ndim == 1

    @property
    def size(self) -> int:
        """Bytes of the matrix and its factors."""
        return sum(m.element_size() * m.numel() for m in (self.gram, *self.factors.values()))


class Served:
    """For each of P fits the blocks [K'] that serve it, or None."""

    def __init__(self, blocks: list[list[_Block] | None], device: torch.device) -> None:
        self.blocks = blocks
        self.by_blocks = torch.tensor([b is not None for b in blocks], dtype=torch.bool, device=device)

    def renew(self, which: Tensor, others: "Served") -> Tensor:
        """Have some fits served by others; whether a fit has other blocks then, bool [P]."""
        changed = torch.zeros_like(self.by_blocks)
        for p, blocks in zip(torch.nonzero(which)[:, 0].tolist(), others.blocks, strict=True):
            before = self.blocks[p]
            same = before is blocks or (before and blocks and all(map(operator.is_, before, blocks)))
            changed[p], self.blocks[p] = not same, blocks
        self.by_blocks[which] = others.by_blocks
        return changed

    def join(self, others: "Served") -> None:
        """Serve more fits."""
        self.blocks = self.blocks + others.blocks
        self.by_blocks = torch.cat([self.by_blocks, others.by_blocks])

    def take(self, which: Tensor) -> "Served":
        """Some fits."""
        kept = [b for b, wanted in zip(self.blocks, which.tolist(), strict=True) if wanted]
        return Served(kept, which.device)

    def keep(self, which: Tensor) -> None:
        """Forget the other fits."""
        some = self.take(which)
        self.blocks, self.by_blocks = some.blocks, some.by_blocks


class Blocks:
    """The blocks of all tasks, made as fits need them.

    Args:
        outputs: K', linear predictors of a fit.
        dtype: of blocks and factors; float32 or float64.
        memory: bytes they may take, whitened rows included; with too few, none is ever made.

    Attributes:
        seconds: of wall clock spent making blocks and factors.
    """

    def __init__(self, rows: Rows, spectrum: Spectrum, outputs: int, dtype: torch.dtype, memory: int) -> None:
        self._rows, self._dtype, self._outputs = rows, dtype, outputs
        self._vectors = spectrum.vectors.to(dtype)
        white = (len(rows) / spectrum.floored(dtype).clamp(min=torch.finfo(dtype).tiny)).sqrt()
        self._white = torch.cat([white, torch.ones_like(white[:1])]).to(dtype)
        narrow = dtype == torch.float32 and fast_bfloat16(rows.device)
        self._product_dtype = torch.bfloat16 if narrow else dtype
        self._pace = 0.45 if narrow else 1.0
        self._whitened: list[Tensor] | None = None
        self._copy = self._vectors[:0]
        size = torch.finfo(dtype).bits // 8 * len(rows) * rows.dim
        self._may_keep_rows = size <= memory // 2
        self._room = memory - size * self._may_keep_rows
        self._held: dict[tuple[int, int], list[_Block]] = {}
        self._clock = 0
        self.seconds = 0.0

    def possible(self, tasks: int) -> bool:
        """Whether memory holds the blocks of so many tasks."""
        # A matrix and a factor for each, and while one is made three more.
        return 8 * (2 * tasks * self._outputs + 3) * (self._rows.dim + 1) ** 2 <= self._room

    def cover(self, task: Tensor, variances: Tensor, slow: Tensor, budget: float = math.inf) -> bool:
        """Make the blocks that these fits lack, if that costs at most so much; whether it was done.

        Args:
            task: int64 [P].
            variances: weight p (1 - p) of every row, [P, K', n].
            slow: bool [P], fits that want blocks more like theirs.
            budget: floating-point operations, in those of products with X.
        """
        lacking = [
            (t, k, weights)
            for t in torch.unique(task).tolist()
            for k in range(self._outputs)
            for weights in self._centres(t, k, variances[task == t, k], slow[task == t])
        ]
        if not lacking or self._cost([weights for _, _, weights in lacking]) > budget:
            return False
        plenty = [self._plenty(weights) for _, _, weights in lacking]
        diagonals = iter(self._diagonals([w for (_, _, w), p in zip(lacking, plenty, strict=True) if p]))
        for (t, k, weights), diagonal in zip(lacking, plenty, strict=True):
            many = diagonal or self._many(weights)
            gram = next(diagonals) if diagonal else self._gram(weights, many)
            self._held.setdefault((t, k), []).append(_Block(weights, many, gram))
        return True

    def _centres(self, task: int, k: int, left: Tensor, slow: Tensor) -> Iterator[Tensor]:
        """Weights [n] whose blocks, with those there are, would serve all fits with weights [P, n]."""
        order = torch.argsort(left.sum(1))
        left, slow = left[order], slow[order]
        held, lacking = self._held.get((task, k), []), torch.ones_like(slow)
        for block, apart in zip(held, _apart(left, [block.weights for block in held]).T, strict=True):
            lacking &= apart > _alike(block.many, slow)
        left, slow = left[lacking], slow[lacking]
        while len(left):
            weights = left[len(left) // 2].clone()
            yield weights
            lacking = _apart(left, [weights])[:, 0] > _alike(self._many(weights), slow)
            left, slow = left[lacking], slow[lacking]

    def _many(self, weights: Tensor) -> bool:
        """Whether so many rows count that no small eigenvalues are to be expected."""
        return int((weights > _least(weights, _LEFT_OUT)).sum()) >= _MANY * self._rows.dim

    def _plenty(self, weights: Tensor) -> bool:
        """Whether so many rows count that in whitened coordinates the block is nearly diagonal."""
        return _effective(weights) >= _PLENTY * self._rows.dim

    def _cost(self, lacking: Sequence[Tensor]) -> float:
        """Of whitening the rows, where that is to be done, and of blocks with their factors."""
        n, size = len(self._rows), self._rows.dim + 1
        cost = 0.0 if self._whitened is not None else 2.0 * n * size**2
        for weights in lacking:
            if self._plenty(weights):
                cost += 2.0 * n * size
            else:
                pace = self._pace if self._many(weights) else 1.0
                cost += (1.2 * pace * _effective(weights) + size) * size**2
        return cost

    def serve(self, task: Tensor, variances: Tensor, besides: Served | None = None) -> Served:
        """The nearest blocks of each fit; None where one of them is not near.

        Args:
            task, variances: as for `cover`.
            besides: blocks that are in use elsewhere, and so are kept.
        """
        self._clock += 1
        for blocks in besides.blocks if besides is not None else ():
            for block in blocks or ():
                block.used = self._clock
        near: list[list[_Block]] = [[] for _ in task]
        for t in torch.unique(task).tolist():
            those = torch.nonzero(task == t)[:, 0]
            for k in range(self._outputs):
                for p, found in zip(those.tolist(), self._nearest(t, k, variances[those, k]), strict=True):
                    if found is not None:
                        found.used = self._clock
                        near[p].append(found)
        self._let_go()
        return Served([blocks if len(blocks) == self._outputs else None for blocks in near], task.device)

    def solve(self, served: Served, gradients: Tensor, C: Tensor) -> Tensor:
        """Approximate inverse Hessians times gradients [P, K', d + 1], of fits that are all served."""
        g = gradients.to(self._dtype)
        common = g.mean(1, keepdim=True) if self._outputs > 1 else torch.zeros_like(g)
        reduced = g - common
        turned = torch.cat([reduced[..., :-1] @ self._vectors, reduced[..., -1:]], dim=2) * self._white
        solved = torch.empty_like(turned)
        steps = (C.log() / torch.tensor(_STEP).log()).round().int().tolist()
        groups: dict[tuple[int, int], tuple[_Block, list[int]]] = {}
        for p, (blocks, step) in enumerate(zip(served.blocks, steps, strict=True)):
            for k, block in enumerate(blocks or ()):
                groups.setdefault((step, id(block)), (block, []))[1].append(p * self._outputs + k)
        flat, answers = turned.view(-1, turned.shape[2]), solved.view(-1, turned.shape[2])
        for (step, _), (block, members) in sorted(groups.items(), key=lambda item: item[0]):
            if block.diagonal:
                answers[members] = flat[members] / (block.gram + self._ridge(step))
                continue
            lower = self._factor(block, step)
            # Not torch.cholesky_solve: that copies the factor first.
            half = torch.linalg.solve_triangular(lower, flat[members].T, upper=False)
            answers[members] = torch.linalg.solve_triangular(lower.T, half, upper=True).T
        solved *= self._white
        found = torch.cat([solved[..., :-1] @ self._vectors.T, solved[..., -1:]], dim=2)
        if self._outputs > 1:
            found -= found.mean(1, keepdim=True)
        found /= C.to(self._dtype)[:, None, None]
        # A vector common to all classes meets the regularisation alone, whose Hessian is the identity.
        found[..., :-1] += common[..., :-1]
        return found.to(gradients.dtype)

    def _nearest(self, task: int, k: int, weights: Tensor) -> list[_Block | None]:
        """For each of the fits with weights [P, n] the block most like it, if it is like enough."""
        held = self._held.get((task, k))
        if not held:
            return [None] * len(weights)
        apart, which = _apart(weights, [block.weights for block in held]).min(1)
        near = zip(apart.tolist(), which.tolist(), strict=True)
        return [held[best] if distance <= _ALIKE else None for distance, best in near]

    def _let_go(self) -> None:
        """Of the blocks that have been idle for longest, until the others fit into memory."""
        idle = [
            (b.used, id(b), key, b)
            for key, blocks in self._held.items()
            for b in blocks
            if b.used < self._clock
        ]
        excess = sum(b.size for blocks in self._held.values() for b in blocks) - self._room
        for _, _, key, block in sorted(idle, key=lambda each: each[:2]):
            if excess <= 0:
                break
            self._held[key].remove(block)
            excess -= block.size

    def _diagonals(self, weights: Sequence[Tensor]) -> Tensor:
        """sum_i weights_i (x_i, 1)^2 in whitened coordinates: [m, d + 1] of m times weights [n]."""
        if not weights:
            return torch.zeros(0, self._rows.dim + 1)
        start = time.perf_counter()
        each = torch.stack(list(weights))
        total = torch.zeros(len(each), self._rows.dim, dtype=torch.float64, device=each.device)
        for x, part in zip(self._white_rows(), self._rows.slices(), strict=True):
            total += each[:, part].to(x.dtype) @ x.square()
        alone = each.sum(1, keepdim=True, dtype=torch.float64)
        synchronize(self._rows.device)
        self.seconds += time.perf_counter() - start
        return torch.cat([total, alone], dim=1).to(self._dtype)

    def _gram(self, weights: Tensor, many: bool) -> Tensor:
        """sum_i weights_i (x_i, 1)(x_i, 1)^T in whitened coordinates, of weights [n].

        The lower half of [d + 1, d + 1], which is all that a Cholesky decomposition reads.
        """
        start, d = time.perf_counter(), self._rows.dim
        kept = weights > _least(weights, _LEFT_OUT if many else _LEFT_OUT_OF_FEW)
        found = torch.zeros(d + 1, d + 1, dtype=self._dtype, device=weights.device)
        for x, weight in self._pieces(weights, kept):
            root = weight.to(self._dtype).sqrt()[:, None]
            scaled = x.mul_(root).to(self._product_dtype if many else self._dtype)
            found[d, :d] += (root.T.to(scaled.dtype) @ scaled)[0]
            add_gram(found[:d, :d], scaled)
        found.diagonal()[:d] += torch.where(kept, 0, weights).sum()
        found[d, d] = weights.sum()
        synchronize(self._rows.device)
        self.seconds += time.perf_counter() - start
        return found

    def _pieces(self, weights: Tensor, kept: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Copies of whitened rows that are kept, some thousand at a time, and their weights.

        Each copy lies where the one before lay: fresh memory would take as long as the product with it.
        """
        rows: list[Tensor] = []
        those: list[Tensor] = []
        last = len(self._rows)
        for x, part in zip(self._white_rows(kept), self._rows.slices(), strict=True):
            rows.append(x)
            those.append(weights[part][kept[part]])
            count = sum(map(len, rows))
            if count >= _PIECE or part.stop == last:
                if count > len(self._copy):
                    self._copy = x.new_empty(max(count, _PIECE), self._rows.dim)
                yield torch.cat(rows, out=self._copy[:count]), torch.cat(those)
                rows, those = [], []

    def _white_rows(self, kept: Tensor | None = None) -> Iterator[Tensor]:
        """Whitened rows of every block, or those of them that are kept."""
        if self._whitened is None and self._may_keep_rows:
            self._whitened = [self._whiten(block) for block in self._rows.blocks(self._dtype)]
        parts = self._rows.slices()
        if self._whitened is not None:
            for whitened, part in zip(self._whitened, parts, strict=True):
                yield whitened if kept is None else whitened[kept[part]]
        else:
            for block, part in zip(self._rows.blocks(self._dtype), parts, strict=True):
                yield self._whiten(block if kept is None else block[kept[part]])

    def _whiten(self, block: Tensor) -> Tensor:
        return (block @ self._vectors) * self._white[:-1]

    def _ridge(self, step: int) -> Tensor:
        """I / C in whitened coordinates, [d + 1]; next to nothing for the intercept."""
        ridge = (self._white.double() ** 2 / _STEP**step).to(self._dtype)
        # Not 0: a class that is certain everywhere has no curvature.
        ridge[-1] = 4 * torch.finfo(self._dtype).eps * ridge[:-1].mean()
        return ridge

    def _factor(self, block: _Block, step: int) -> Tensor:
        """Lower Cholesky factor of A_k + I / C (the intercept free), with more where rounding asks for it."""
        if block.last_step is not None:
            step = min(step, block.last_step)
        if step in block.factors:
            return block.factors[step]
        start = time.perf_counter()
        ridge, eps = self._ridge(step), 4 * torch.finfo(self._dtype).eps
        more, scale = eps * float(block.gram.diagonal().mean()), float((block.gram.diagonal() + ridge).mean())
        lower, failed = torch.linalg.cholesky_ex(_with(block.gram, ridge + more))
        while int(failed) and more < scale:
            more = 30 * max(more, eps * scale)
            lower, failed = torch.linalg.cholesky_ex(_with(block.gram, ridge + more))
        if (ridge <= _SLIGHT * lower.diagonal() ** 2).all():
            block.last_step = step
        block.factors[step] = lower
        synchronize(self._rows.device)
        self.seconds += time.perf_counter() - start
        found: Tensor = lower
        return found


def _effective(weights: Tensor) -> float:
    """Number of rows that would have the weights' spread, were they equal."""
    wide = weights.double()
    return float(wide.sum()) ** 2 / max(float(wide.square().sum()), 1e-300)


def _with(matrix: Tensor, diagonal: Tensor) -> Tensor:
    found = matrix.clone()
    found.diagonal().add_(diagonal)
    return found


def _apart(some: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Differences between weights [P, n] and B times [n], summed, as shares of the first's sums: [P, B]."""
    if not others:
        return some.new_zeros(len(some), 0)
    sums = some.sum(1, keepdim=True).clamp(min=torch.finfo(some.dtype).tiny)
    return torch.cdist(some, torch.stack([each.to(some.dtype) for each in others]), p=1) / sums


def _alike(many: bool, slow: Tensor) -> Tensor:
    """How far apart the weights of fits and a block may be."""
    return torch.where(slow & (not many), _ALIKE_OF_FEW, _ALIKE)


def _least(weights: Tensor, share: float) -> Tensor:
    """The weight up to which rows together have at most this share."""
    ordered = torch.sort(weights).values
    negligible = int((ordered.cumsum(0, dtype=torch.float64) <= share * weights.sum()).sum())
    return ordered[negligible - 1] if negligible else ordered[0] - 1
