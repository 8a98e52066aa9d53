"""The Hessian's diagonal blocks, a preconditioner for fits where the Kronecker product is a poor one.

When C is large, a rare class is separated from the others almost everywhere: rows far from its boundary have
no curvature left, and the mean Hessian behind the Kronecker product (`lbfgs`) is wrong by orders of magnitude
in the directions in which only such rows vary. The fit then takes hundreds of iterations, and the estimated
decrement is equally wrong. Therefore each class k gets the block of the Hessian for its own weights,

    A_k = sum_i weight_i p_ik (1 - p_ik) (x_i, 1)(x_i, 1)^T,

and the inverse Hessian is approximated by Z diag((C A_k + I)^-1) Z, where Z subtracts the mean over classes
(adding one vector to the weights of all classes changes no probability). If p were the same for every row,
the spectrum of the preconditioned Hessian would lie between 1 and 2 for any number of classes.

Rows are first whitened by the spectrum of X. In these coordinates the block of a class whose curvature comes
from many rows is nearly a multiple of the identity, and its diagonal, which costs next to nothing, replaces
it. Only classes whose curvature comes from few rows need full blocks. Rows whose weights together are
negligible are left out of these: the rarer and better separated a class, the fewer rows form its block, so
the blocks that change most are the cheapest. Where many rows remain, products in bfloat16 are accurate enough
(on processors that support it).

Blocks are shared. Along the path the curvature of most classes' rows hardly changes; a block is used for
every fit of its task with similar p (1 - p), and only the blocks of fits that have drifted are recomputed.
"""

import math
import operator
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.kernels.logistic.design_matrix import DesignMatrix, add_gram
from engine.kernels.logistic.lbfgs import Spectrum
from engine.runtime import fast_bfloat16

#: A block is used for fits whose weights differ from its own by at most this share of their sum.
MAX_DISTANCE = 0.3
#: Share of a class's curvature left out: its rows are replaced by the average row.
OMITTED_SHARE = 1e-3
#: With an effective number of rows of at least this times d, the diagonal replaces the block.
ROWS_FOR_DIAGONAL = 2
#: With fewer rows than this times d, a block has small eigenvalues that matter: less curvature is left out,
#: and fits whose progress is slow need blocks at most so far from their weights.
ROWS_FOR_CONDITION, OMITTED_SHARE_OF_FEW, MAX_DISTANCE_OF_FEW = 2, 1e-6, 0.02
#: A regularisation term of at most this share of a factor's squared pivots makes no difference to the factor.
_NEGLIGIBLE_RIDGE = 0.05
#: Fits share a Cholesky factor if their values of C round to the same power of this number.
C_STEP = 10.0
#: Rows weighted at a time.
_CHUNK_ROWS = 4096


@dataclass(eq=False)
class HessianBlock:
    """A_k of one task at the predictors of one fit, in whitened coordinates."""

    weights: Tensor  # [n], p (1 - p) of the rows
    well_conditioned: bool  # enough rows contribute that there are no small eigenvalues
    gram: Tensor  # lower half of [d + 1, d + 1]; or only the diagonal, [d + 1]
    factors: dict[int, Tensor] = field(default_factory=dict)  # by step of C
    last_step: int | None = None  # from this step on, C is so large that the factor no longer depends on it
    last_used: int = 0

    @property
    def is_diagonal(self) -> bool:
        """True if the block is represented by its diagonal."""
        return self.gram.ndim == 1

    @property
    def size(self) -> int:
        """Size of the matrix and its factors in bytes."""
        return sum(m.element_size() * m.numel() for m in (self.gram, *self.factors.values()))


class BlockAssignment:
    """The blocks [K'] used by each of P fits, or None for fits without blocks.

    Attributes:
        has_blocks: bool [P].
    """

    def __init__(self, blocks: list[list[HessianBlock] | None], device: torch.device) -> None:
        self.blocks = blocks
        self.has_blocks = torch.tensor([b is not None for b in blocks], dtype=torch.bool, device=device)

    def renew(self, which: Tensor, others: "BlockAssignment") -> Tensor:
        """Reassign the fits `which`; return the fits whose blocks have changed, bool [P]."""
        changed = torch.zeros_like(self.has_blocks)
        for p, blocks in zip(torch.nonzero(which)[:, 0].tolist(), others.blocks, strict=True):
            old_blocks = self.blocks[p]
            same = old_blocks is blocks or (
                old_blocks and blocks and all(map(operator.is_, old_blocks, blocks))
            )
            changed[p], self.blocks[p] = not same, blocks
        self.has_blocks[which] = others.has_blocks
        return changed

    def join(self, others: "BlockAssignment") -> None:
        """Add fits."""
        self.blocks = self.blocks + others.blocks
        self.has_blocks = torch.cat([self.has_blocks, others.has_blocks])

    def take(self, which: Tensor) -> "BlockAssignment":
        """Return the assignment of the fits selected by a mask."""
        blocks = [b for b, selected in zip(self.blocks, which.tolist(), strict=True) if selected]
        return BlockAssignment(blocks, which.device)

    def keep(self, which: Tensor) -> None:
        """Drop all fits but these."""
        subset = self.take(which)
        self.blocks, self.has_blocks = subset.blocks, subset.has_blocks


class HessianBlocks:
    """The blocks of all tasks, computed as fits need them.

    Args:
        outputs: K', the number of linear predictors of a fit.
        dtype: of blocks and factors; float32 or float64.
        memory: bytes for blocks, factors and whitened rows; if too few, no block is ever computed.

    Attributes:
        seconds: wall clock spent computing blocks and factors; on a device, until they are queued.
    """

    def __init__(
        self, design: DesignMatrix, spectrum: Spectrum, outputs: int, dtype: torch.dtype, memory: int
    ) -> None:
        self._design, self._dtype, self._outputs = design, dtype, outputs
        self._vectors = spectrum.vectors.to(dtype)
        whitening = (len(design) / spectrum.floored(dtype).clamp(min=torch.finfo(dtype).tiny)).sqrt()
        self._whitening = torch.cat([whitening, torch.ones_like(whitening[:1])]).to(dtype)
        use_bfloat16 = dtype == torch.float32 and fast_bfloat16(design.device)
        self._product_dtype = torch.bfloat16 if use_bfloat16 else dtype
        self._relative_cost = 0.45 if use_bfloat16 else 1.0
        self._whitened: list[Tensor] | None = None
        self._buffer = self._vectors[:0]
        size = torch.finfo(dtype).bits // 8 * len(design) * design.dim
        self._may_cache_rows = size <= memory // 2
        self._room = memory - size * self._may_cache_rows
        self._blocks: dict[tuple[int, int], list[HessianBlock]] = {}
        self._turn = 0
        self.seconds = 0.0

    def fit_in_memory(self, tasks: int) -> bool:
        """Return True if the blocks of this many tasks fit in memory."""
        # A matrix and a factor for each block, and three more matrices while one is computed.
        return 8 * (2 * tasks * self._outputs + 3) * (self._design.dim + 1) ** 2 <= self._room

    def extend(self, task: Tensor, variances: Tensor, slow: Tensor, budget: float = math.inf) -> bool:
        """Compute the blocks that these fits lack, unless that exceeds the budget; return True if computed.

        Args:
            task: int64 [P].
            variances: weight p (1 - p) of every row, [P, K', n].
            slow: bool [P], fits that need blocks closer to their weights.
            budget: floating-point operations, at the speed of products with X.
        """
        lacking = [
            (t, k, weights)
            for t in torch.unique(task).tolist()
            for k in range(self._outputs)
            for weights in self._centres(t, k, variances[task == t, k], slow[task == t])
        ]
        if not lacking or self._cost([weights for _, _, weights in lacking]) > budget:
            return False
        nearly_diagonal = [self._nearly_diagonal(weights) for _, _, weights in lacking]
        diagonals = iter(
            self._diagonals([w for (_, _, w), p in zip(lacking, nearly_diagonal, strict=True) if p])
        )
        for (t, k, weights), is_diagonal in zip(lacking, nearly_diagonal, strict=True):
            well_conditioned = is_diagonal or self._well_conditioned(weights)
            gram = next(diagonals) if is_diagonal else self._gram(weights, well_conditioned)
            self._blocks.setdefault((t, k), []).append(HessianBlock(weights, well_conditioned, gram))
        return True

    def _centres(self, task: int, k: int, weights_left: Tensor, slow: Tensor) -> Iterator[Tensor]:
        """Yield weights [n] of blocks that, with the existing ones, suffice for fits with weights [P, n]."""
        order = torch.argsort(weights_left.sum(1))
        weights_left, slow = weights_left[order], slow[order]
        existing, lacking = self._blocks.get((task, k), []), torch.ones_like(slow)
        for block, distance in zip(
            existing, _distances(weights_left, [block.weights for block in existing]).T, strict=True
        ):
            lacking &= distance > _max_distance(block.well_conditioned, slow)
        weights_left, slow = weights_left[lacking], slow[lacking]
        while len(weights_left):
            centre = weights_left[len(weights_left) // 2].clone()
            yield centre
            lacking = _distances(weights_left, [centre])[:, 0] > _max_distance(
                self._well_conditioned(centre), slow
            )
            weights_left, slow = weights_left[lacking], slow[lacking]

    def _well_conditioned(self, weights: Tensor) -> bool:
        """Return True if enough rows contribute that no small eigenvalues are to be expected."""
        return (
            int((weights > _negligible_weight(weights, OMITTED_SHARE)).sum())
            >= ROWS_FOR_CONDITION * self._design.dim
        )

    def _nearly_diagonal(self, weights: Tensor) -> bool:
        """Return True if enough rows contribute that the block is nearly diagonal in whitened coordinates."""
        return _effective(weights) >= ROWS_FOR_DIAGONAL * self._design.dim

    def _cost(self, lacking: Sequence[Tensor]) -> float:
        """Return the cost of blocks [n] with their factors, and of whitening the rows if not yet done."""
        n, size = len(self._design), self._design.dim + 1
        cost = 0.0 if self._whitened is not None else 2.0 * n * size**2
        for weights in lacking:
            if self._nearly_diagonal(weights):
                cost += 2.0 * n * size
            else:
                relative_cost = self._relative_cost if self._well_conditioned(weights) else 1.0
                cost += (1.2 * relative_cost * _effective(weights) + size) * size**2
        return cost

    def assign(
        self, task: Tensor, variances: Tensor, in_use: BlockAssignment | None = None
    ) -> BlockAssignment:
        """Assign to each fit its nearest blocks, or None if one of them is not near enough.

        Args:
            task, variances: as for `extend`.
            in_use: assignment of other fits, whose blocks must not be evicted.
        """
        self._turn += 1
        for blocks in in_use.blocks if in_use is not None else ():
            for block in blocks or ():
                block.last_used = self._turn
        near: list[list[HessianBlock]] = [[] for _ in task]
        for t in torch.unique(task).tolist():
            fits = torch.nonzero(task == t)[:, 0]
            for k in range(self._outputs):
                for p, nearest in zip(fits.tolist(), self._nearest(t, k, variances[fits, k]), strict=True):
                    if nearest is not None:
                        nearest.last_used = self._turn
                        near[p].append(nearest)
        self._evict()
        return BlockAssignment(
            [blocks if len(blocks) == self._outputs else None for blocks in near], task.device
        )

    def solve(self, assignment: BlockAssignment, gradients: Tensor, C: Tensor) -> Tensor:
        """Return approximate inverse Hessians times gradients [P, K', d + 1]; every fit must have blocks."""
        common, rotated = self._rotated(gradients)
        solved = torch.empty_like(rotated)
        steps = (C.log() / torch.tensor(C_STEP).log()).round().int().tolist()
        groups: dict[tuple[int, int], tuple[HessianBlock, list[int]]] = {}
        for p, (blocks, step) in enumerate(zip(assignment.blocks, steps, strict=True)):
            for k, block in enumerate(blocks or ()):
                groups.setdefault((step, id(block)), (block, []))[1].append(p * self._outputs + k)
        flat, solutions = rotated.view(-1, rotated.shape[2]), solved.view(-1, rotated.shape[2])
        for (step, _), (block, members) in sorted(groups.items(), key=lambda item: item[0]):
            if block.is_diagonal:
                solutions[members] = flat[members] / (block.gram + self._ridge(step))
                continue
            lower = self._factor(block, step)
            # torch.cholesky_solve would copy the factor first.
            intermediate = torch.linalg.solve_triangular(lower, flat[members].T, upper=False)
            solutions[members] = torch.linalg.solve_triangular(lower.T, intermediate, upper=True).T
        return self._unrotated(solved, common, C, gradients.dtype)

    def _rotated(self, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean of gradients [P, K', d + 1] over classes, and the rest in whitened coordinates."""
        g = gradients.to(self._dtype)
        common = g.mean(1, keepdim=True) if self._outputs > 1 else torch.zeros_like(g)
        reduced = g - common
        return common, torch.cat([reduced[..., :-1] @ self._vectors, reduced[..., -1:]], dim=2) * (
            self._whitening
        )

    def _unrotated(self, solved: Tensor, common: Tensor, C: Tensor, dtype: torch.dtype) -> Tensor:
        """Return solutions [P, K', d + 1] in the coordinates of the gradients."""
        solved *= self._whitening
        result = torch.cat([solved[..., :-1] @ self._vectors.T, solved[..., -1:]], dim=2)
        if self._outputs > 1:
            result -= result.mean(1, keepdim=True)
        result /= C.to(self._dtype)[:, None, None]
        # Only the regularisation acts on a vector common to all classes, and its Hessian is the identity.
        result[..., :-1] += common[..., :-1]
        return result.to(dtype)

    def _nearest(self, task: int, k: int, weights: Tensor) -> list[HessianBlock | None]:
        """Return the nearest block of each fit with weights [P, n], or None if it is too far."""
        existing = self._blocks.get((task, k))
        if not existing:
            return [None] * len(weights)
        distances, nearest = _distances(weights, [block.weights for block in existing]).min(1)
        near = zip(distances.tolist(), nearest.tolist(), strict=True)
        return [existing[position] if distance <= MAX_DISTANCE else None for distance, position in near]

    def _evict(self) -> None:
        """Drop unused blocks, least recently used first, until the others fit in memory."""
        unused = [
            (b.last_used, id(b), key, b)
            for key, blocks in self._blocks.items()
            for b in blocks
            if b.last_used < self._turn
        ]
        excess = sum(b.size for blocks in self._blocks.values() for b in blocks) - self._room
        for _, _, key, block in sorted(unused, key=lambda entry: entry[:2]):
            if excess <= 0:
                break
            self._blocks[key].remove(block)
            excess -= block.size

    def _diagonals(self, weights: Sequence[Tensor]) -> Tensor:
        """Return sum_i weights_i (x_i, 1)^2 in whitened coordinates, [m, d + 1], for m weights [n]."""
        if not weights:
            return torch.zeros(0, self._design.dim + 1)
        start = time.perf_counter()
        stacked = torch.stack(list(weights))
        total = torch.zeros(len(stacked), self._design.dim, dtype=torch.float64, device=stacked.device)
        for x, rows in zip(self._white_rows(), self._design.block_slices(), strict=True):
            total += stacked[:, rows].to(x.dtype) @ x.square()
        intercepts = stacked.sum(1, keepdim=True, dtype=torch.float64)
        self.seconds += time.perf_counter() - start
        return torch.cat([total, intercepts], dim=1).to(self._dtype)

    def _gram(self, weights: Tensor, well_conditioned: bool) -> Tensor:
        """Return sum_i weights_i (x_i, 1)(x_i, 1)^T in whitened coordinates, for weights [n].

        Only the lower half of [d + 1, d + 1] is computed: the Cholesky decomposition reads no more.
        """
        start, d = time.perf_counter(), self._design.dim
        selected = weights > _negligible_weight(
            weights, OMITTED_SHARE if well_conditioned else OMITTED_SHARE_OF_FEW
        )
        gram = torch.zeros(d + 1, d + 1, dtype=self._dtype, device=weights.device)
        for x, weight in self._chunks(weights, selected):
            root = weight.to(self._dtype).sqrt()[:, None]
            scaled = x.mul_(root).to(self._product_dtype if well_conditioned else self._dtype)
            gram[d, :d] += (root.T.to(scaled.dtype) @ scaled)[0]
            add_gram(gram[:d, :d], scaled)
        gram.diagonal()[:d] += torch.where(selected, 0, weights).sum()
        gram[d, d] = weights.sum()
        self.seconds += time.perf_counter() - start
        return gram

    def _chunks(self, weights: Tensor, selected: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield copies of the selected whitened rows, some thousand at a time, and their weights.

        Every copy reuses the same memory: touching fresh memory would take as long as the product.
        """
        rows: list[Tensor] = []
        row_weights: list[Tensor] = []
        last = len(self._design)
        for x, part in zip(self._white_rows(selected), self._design.block_slices(), strict=True):
            rows.append(x)
            row_weights.append(weights[part][selected[part]])
            count = sum(map(len, rows))
            if count >= _CHUNK_ROWS or part.stop == last:
                if count > len(self._buffer):
                    self._buffer = x.new_empty(max(count, _CHUNK_ROWS), self._design.dim)
                yield torch.cat(rows, out=self._buffer[:count]), torch.cat(row_weights)
                rows, row_weights = [], []

    def _white_rows(self, selected: Tensor | None = None) -> Iterator[Tensor]:
        """Yield the whitened rows of every block, or only the selected ones."""
        if self._whitened is None and self._may_cache_rows:
            self._whitened = [self._whiten(block) for block in self._design.blocks(self._dtype)]
        parts = self._design.block_slices()
        if self._whitened is not None:
            for whitened, part in zip(self._whitened, parts, strict=True):
                yield whitened if selected is None else whitened[selected[part]]
        else:
            for block, part in zip(self._design.blocks(self._dtype), parts, strict=True):
                yield self._whiten(block if selected is None else block[selected[part]])

    def _whiten(self, block: Tensor) -> Tensor:
        return (block @ self._vectors) * self._whitening[:-1]

    def _ridge(self, step: int) -> Tensor:
        """Return the diagonal of I / C in whitened coordinates, [d + 1]; nearly 0 for the intercept."""
        ridge = (self._whitening.double() ** 2 / C_STEP**step).to(self._dtype)
        # Not exactly 0, because a class that is certain everywhere has no curvature.
        ridge[-1] = 4 * torch.finfo(self._dtype).eps * ridge[:-1].mean()
        return ridge

    def _factor(self, block: HessianBlock, step: int) -> Tensor:
        """Return the lower Cholesky factor of A_k + I / C, the intercept not penalised.

        The diagonal is increased where rounding makes the matrix indefinite.
        """
        if block.last_step is not None:
            step = min(step, block.last_step)
        if step in block.factors:
            return block.factors[step]
        start = time.perf_counter()
        ridge, eps = self._ridge(step), 4 * torch.finfo(self._dtype).eps
        jitter, scale = (
            eps * float(block.gram.diagonal().mean()),
            float((block.gram.diagonal() + ridge).mean()),
        )
        lower, failed = torch.linalg.cholesky_ex(_add_to_diagonal(block.gram, ridge + jitter))
        while int(failed) and jitter < scale:
            jitter = 30 * max(jitter, eps * scale)
            lower, failed = torch.linalg.cholesky_ex(_add_to_diagonal(block.gram, ridge + jitter))
        if (ridge <= _NEGLIGIBLE_RIDGE * lower.diagonal() ** 2).all():
            block.last_step = step
        block.factors[step] = lower
        self.seconds += time.perf_counter() - start
        factor: Tensor = lower
        return factor


def _effective(weights: Tensor) -> float:
    """Return the effective number of rows, (sum of weights)^2 / sum of squared weights."""
    weights64 = weights.double()
    return float(weights64.sum()) ** 2 / max(float(weights64.square().sum()), 1e-300)


def _add_to_diagonal(matrix: Tensor, diagonal: Tensor) -> Tensor:
    result = matrix.clone()
    result.diagonal().add_(diagonal)
    return result


def _distances(weights: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Return L1 distances [P, B] between weights [P, n] and B other weights [n].

    Distances are shares of the sums of the former.
    """
    if not others:
        return weights.new_zeros(len(weights), 0)
    sums = weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return torch.cdist(weights, torch.stack([other.to(weights.dtype) for other in others]), p=1) / sums


def _max_distance(well_conditioned: bool, slow: Tensor) -> Tensor:
    """Return how far the weights of a fit may be from those of a block it uses, [P]."""
    return torch.where(slow & (not well_conditioned), MAX_DISTANCE_OF_FEW, MAX_DISTANCE)


def _negligible_weight(weights: Tensor, share: float) -> Tensor:
    """Return the largest weight such that all rows up to it have at most this share of the total."""
    ascending = torch.sort(weights).values
    negligible = int((ascending.cumsum(0, dtype=torch.float64) <= share * weights.sum()).sum())
    return ascending[negligible - 1] if negligible else ascending[0] - 1
