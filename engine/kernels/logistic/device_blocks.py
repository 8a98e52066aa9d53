"""Hessian blocks (`preconditioner`) on a CUDA device: the host chooses them from one reading.

On the CPU each block is chosen by looking at the weights of the fits. Here the weights stay on the device; it
measures all of them at once, and one small copy tells the host how far each is from each other and from the
blocks there are. A block sums up all rows, those that are left out with weight 0. Factors are inverted,
because triangular solves with few columns are slow on a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels.logistic.design_matrix import add_gram
from engine.kernels.logistic.preconditioner import (
    C_STEP,
    MAX_DISTANCE,
    MAX_DISTANCE_OF_FEW,
    OMITTED_SHARE,
    OMITTED_SHARE_OF_FEW,
    ROWS_FOR_CONDITION,
    ROWS_FOR_DIAGONAL,
    HessianBlock,
    HessianBlocks,
)
from engine.runtime import HostCopy, placed


@dataclass(frozen=True)
class Plan:
    """How the blocks of P fits are applied to their gradients.

    Attributes:
        has_blocks: bool [P].
        diagonal: int64 [m], outputs p K' + k with a diagonal block, and its numbers [m, d + 1].
        full: for each group of outputs with one block and one factor, these and the inverse.
    """

    has_blocks: Tensor
    diagonal: tuple[Tensor, Tensor] | None
    full: list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class _Weights:
    """What the host reads of the weights p (1 - p) of P fits, [P, K', n].

    Attributes:
        sums, effective: float64 [P, K'], the sum, and the effective number of rows.
        many, few: float64 [P, K'], rows that hold all but a thousandth or a millionth of the sum.
        apart: for each output [P, P], L1 distances from the fits' weights, as shares of their sums.
        from_blocks: for each output [P, B], the same distances from B blocks.
    """

    sums: NDArray[np.float64]
    effective: NDArray[np.float64]
    many: NDArray[np.float64]
    few: NDArray[np.float64]
    apart: list[NDArray[np.float64]]
    from_blocks: list[NDArray[np.float64]]


class DeviceBlocks(HessianBlocks):
    """The blocks of all tasks; arguments as of `HessianBlocks`."""

    def choose(
        self, task: NDArray[np.intp], variances: Tensor, slow: NDArray[np.bool_], budget: float
    ) -> tuple[list[list[HessianBlock] | None], bool]:
        """Return the nearest blocks of each fit, or None; compute those that are lacking if affordable.

        The host waits once.

        Args:
            task: [P].
            variances: weight p (1 - p) of every row, [P, K', n].
            slow: [P], fits that need blocks closer to their weights.
            budget: floating-point operations, at the speed of products with X.

        Returns:
            For each fit its K' blocks or None, and whether blocks have been computed.
        """
        self._turn += 1
        existing = [
            [(t, block) for (t, own), blocks in self._blocks.items() if own == k for block in blocks]
            for k in range(self._outputs)
        ]
        read = self._read(variances, [[block.weights for _, block in own] for own in existing])
        lacking = [
            (t, k, centre)
            for t in np.unique(task).tolist()
            for k in range(self._outputs)
            for centre in self._lacking(k, np.flatnonzero(task == t), t, read, existing[k], slow)
        ]
        made: dict[tuple[int, int], HessianBlock] = {}
        if lacking and self._price(lacking, read) <= budget:
            for t, k, p in lacking:
                made[k, p] = self._made(variances[p, k].clone(), p, k, read)
                self._blocks.setdefault((t, k), []).append(made[k, p])
        chosen = [
            self._all_near([self._near(p, k, task, read, existing[k], made) for k in range(self._outputs)])
            for p in range(len(task))
        ]
        return chosen, bool(made)

    def _read(self, variances: Tensor, existing: Sequence[Sequence[Tensor]]) -> _Weights:
        rows = variances.shape[2]
        sums = variances.sum(2, dtype=torch.float64)
        effective = sums.square() / variances.square().sum(2, dtype=torch.float64).clamp(min=1e-300)
        growing = torch.sort(variances, 2).values.cumsum(2, dtype=torch.float64)
        held = [
            rows - (growing <= share * sums[..., None]).sum(2)
            for share in (OMITTED_SHARE, OMITTED_SHARE_OF_FEW)
        ]
        scale = sums.clamp(min=torch.finfo(variances.dtype).tiny)
        distances = []
        for k, blocks in enumerate(existing):
            own = variances[:, k]
            distances.append(torch.cdist(own, own, p=1) / scale[:, k, None])
            others = torch.stack([b.to(own.dtype) for b in blocks]) if blocks else own[:0]
            distances.append(torch.cdist(own, others, p=1) / scale[:, k, None])
        parts = [sums, effective, *held, *distances]
        flat = HostCopy(torch.cat([part.double().flatten() for part in parts])).wait().numpy()
        ends = np.cumsum([part.numel() for part in parts])
        read: list[NDArray[np.float64]] = [
            block.reshape(tuple(part.shape))
            for block, part in zip(np.split(flat, ends[:-1]), parts, strict=True)
        ]
        return _Weights(read[0], read[1], read[2], read[3], read[4::2], read[5::2])

    def _lacking(
        self,
        k: int,
        fits: NDArray[np.intp],
        task: int,
        read: _Weights,
        existing: Sequence[tuple[int, HessianBlock]],
        slow: NDArray[np.bool_],
    ) -> list[int]:
        """Return fits at whose weights blocks of an output are lacking; as `HessianBlocks._centres`."""
        left = fits[np.argsort(read.sums[fits, k], kind="stable")]
        for column, (t, block) in enumerate(existing):
            if t == task:
                limit = _limit(block.well_conditioned, slow[left])
                left = left[read.from_blocks[k][left, column] > limit]
        centres = []
        while len(left):
            centre = int(left[len(left) // 2])
            centres.append(centre)
            limit = _limit(self._many_rows(read, centre, k), slow[left])
            left = left[(read.apart[k][left, centre] > limit) & (left != centre)]
        return centres

    def _many_rows(self, read: _Weights, p: int, k: int) -> bool:
        return bool(read.many[p, k] >= ROWS_FOR_CONDITION * self._design.dim)

    def _near_diagonal(self, read: _Weights, p: int, k: int) -> bool:
        return bool(read.effective[p, k] >= ROWS_FOR_DIAGONAL * self._design.dim)

    def _price(self, lacking: Sequence[tuple[int, int, int]], read: _Weights) -> float:
        """Return the cost of blocks with their factors, and of whitening the rows if not yet done."""
        n, size = len(self._design), self._design.dim + 1
        cost = 0.0 if self._whitened is not None else 2.0 * n * size**2
        for _, k, p in lacking:
            if self._near_diagonal(read, p, k):
                cost += 2.0 * n * size
            else:
                relative = self._relative_cost if self._many_rows(read, p, k) else 1.0
                cost += (1.2 * relative * read.effective[p, k] + size) * size**2
        return cost

    def _made(self, weights: Tensor, p: int, k: int, read: _Weights) -> HessianBlock:
        """Compute a block at weights [n]."""
        if self._near_diagonal(read, p, k):
            return HessianBlock(weights, True, self._diagonals([weights])[0])
        well_conditioned, d = self._many_rows(read, p, k), self._design.dim
        count = max(1, int((read.many if well_conditioned else read.few)[p, k]))
        rows = torch.argsort(weights, descending=True)[:count]
        kind = self._product_dtype if well_conditioned else self._dtype
        gram = torch.zeros(d + 1, d + 1, dtype=self._dtype, device=weights.device)
        roots = torch.zeros_like(weights, dtype=self._dtype)
        roots[rows] = weights[rows].to(self._dtype).sqrt()
        for x, part in zip(self._white_rows(), self._design.block_slices(), strict=True):
            scaled = (x * roots[part, None]).to(kind)
            gram[d, :d] += (roots[None, part].to(kind) @ scaled)[0]
            add_gram(gram[:d, :d], scaled)
        gram.diagonal()[:d] += weights.sum() - weights[rows].sum()
        gram[d, d] = weights.sum()
        return HessianBlock(weights, well_conditioned, gram)

    def _near(
        self,
        p: int,
        k: int,
        task: NDArray[np.intp],
        read: _Weights,
        existing: Sequence[tuple[int, HessianBlock]],
        made: dict[tuple[int, int], HessianBlock],
    ) -> HessianBlock | None:
        """Return the block nearest to a fit's weights, or None if it is too far."""
        candidates = [
            (read.from_blocks[k][p, column], block)
            for column, (t, block) in enumerate(existing)
            if t == task[p]
        ]
        candidates += [
            (read.apart[k][p, centre], block)
            for (own, centre), block in made.items()
            if own == k and task[centre] == task[p]
        ]
        distance, block = min(candidates, key=lambda pair: pair[0], default=(np.inf, None))
        return block if distance <= MAX_DISTANCE else None

    @staticmethod
    def _all_near(blocks: list[HessianBlock | None]) -> list[HessianBlock] | None:
        near = [block for block in blocks if block is not None]
        return near if len(near) == len(blocks) else None

    def plan(self, blocks: Sequence[list[HessianBlock] | None], C: NDArray[np.float64]) -> Plan | None:
        """Return how to apply the blocks of P fits with values C [P]; None if no fit has any.

        Blocks that none of them uses may be dropped.
        """
        if not any(blocks):
            return None
        steps = np.rint(np.log(C) / np.log(C_STEP)).astype(int)
        outputs: list[tuple[bool, int, int, HessianBlock, int]] = []
        self._turn += 1
        for p, own in enumerate(blocks):
            for k, block in enumerate(own or ()):
                block.last_used = self._turn
                outputs.append((block.is_diagonal, int(steps[p]), id(block), block, p * self._outputs + k))
        self._evict()
        outputs.sort(key=lambda entry: entry[:3])
        positions = placed(np.array([entry[4] for entry in outputs]), self._design.device)
        diagonal: tuple[Tensor, Tensor] | None = None
        full, at = [], 0
        for is_diagonal, group in groupby(outputs, key=lambda entry: entry[0]):
            members = list(group)
            if is_diagonal:
                numbers = torch.stack([entry[3].gram + self._ridge(entry[1]) for entry in members])
                diagonal = positions[at : at + len(members)], numbers
                at += len(members)
                continue
            for _, same in groupby(members, key=lambda entry: entry[1:3]):
                group_members = list(same)
                _, step, _, block, _ = group_members[0]
                full.append((positions[at : at + len(group_members)], self._inverse(block, step)))
                at += len(group_members)
        has_blocks = placed(np.array([own is not None for own in blocks]), self._design.device)
        return Plan(has_blocks, diagonal, full)

    def _inverse(self, block: HessianBlock, step: int) -> Tensor:
        """Return the inverse of A_k + I / C; that of its diagonal where rounding makes it indefinite."""
        if step not in block.factors:
            ridge, eps = self._ridge(step), 4 * torch.finfo(self._dtype).eps
            matrix = block.gram.clone()
            diagonal = matrix.diagonal()
            diagonal += ridge + 30 * eps * diagonal.mean()
            lower, failed = torch.linalg.cholesky_ex(matrix)
            sound = failed == 0
            inverse = torch.cholesky_inverse(torch.where(sound, lower, torch.diag(diagonal.sqrt())))
            block.factors[step] = inverse
        return block.factors[step]

    def apply(self, plan: Plan, gradients: Tensor, C: Tensor) -> Tensor:
        """Return approximate inverse Hessians times gradients [P, K', d + 1]; arbitrary without blocks."""
        common, rotated = self._rotated(gradients)
        flat = rotated.reshape(-1, rotated.shape[2])
        solved = torch.zeros_like(flat)
        if plan.diagonal is not None:
            positions, numbers = plan.diagonal
            solved[positions] = flat[positions] / numbers
        for positions, inverse in plan.full:
            solved[positions] = flat[positions] @ inverse
        return self._unrotated(solved.view(rotated.shape), common, C, gradients.dtype)


def _limit(well_conditioned: bool, slow: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return how far the weights of fits may be from those of a block they use."""
    return np.where(slow & (not well_conditioned), MAX_DISTANCE_OF_FEW, MAX_DISTANCE)
