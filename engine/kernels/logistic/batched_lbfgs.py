"""Minimise many logistic objectives at once: one iteration takes two products with X for all of them.

Problems need not start together. A problem whose starting point depends on the solutions of others joins the
active set as soon as these are solved, so that a product with X seldom has only a few columns while other
problems are still waiting.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from engine.kernels.logistic.design_matrix import DesignMatrix
from engine.kernels.logistic.lbfgs import History, KroneckerPreconditioner, Spectrum
from engine.kernels.logistic.line_search import dot, evaluate, ridge, search
from engine.kernels.logistic.loss import Targets, even_curvature
from engine.kernels.logistic.preconditioner import BlockAssignment, HessianBlocks
from engine.kernels.logistic.state import ActiveSet, Limits, Problems, Schedule

#: Pairs (step, change of the gradient) that L-BFGS stores.
MEMORY = 60
#: In float32, a problem that gains less than the tolerance over this many iterations is limited by rounding.
_PATIENCE = 25
#: A fit has converged only if its last step gained at most this multiple of the tolerance.
_MAX_LAST_GAIN = 5.0
#: Preconditioners are renewed every so many iterations (and at powers of two).
_RENEWAL_INTERVAL = 5
#: A class's curvature as a share of what it would be if all rows had the same probabilities. Below the first
#: value the estimated decrement may be too small; below the second, Hessian blocks have to confirm it.
_UNEVEN, _VERY_UNEVEN = 0.9, 0.65
#: Factors by which the decrement may be underestimated, with blocks and with the Kronecker product.
_ERROR_WITH_BLOCKS, _ERROR_WITHOUT = 10.0, 100.0
#: A fit is slow if its decrement has not fallen to this share of the previous one between two renewals.
_SLOW = 0.1
#: New blocks are computed once the products with X since the last ones have cost this share of their price.
_BLOCK_BUDGET = 0.1
#: The same patience for fits preconditioned by blocks. These progress quickly until rounding stops them, at
#: about this relative gain.
_PATIENCE_WITH_BLOCKS, _ROUNDING_GAIN = 8, 2e-7


def minimise(
    problems: Problems,
    schedule: Schedule,
    design: DesignMatrix,
    targets: Sequence[Targets],
    spectrum: Spectrum,
    blocks: HessianBlocks,
    dtype: torch.dtype,
    limits: Limits,
    tick: Callable[[int], None],
) -> None:
    """Iterate, in place, until every scheduled problem has converged or stalled.

    Args:
        targets: one for each block of rows, in `dtype`.
        blocks: Hessian blocks made by earlier calls; this call may add more.
        dtype: of predictors and residuals. Sums over rows, objectives and weights are always float64. With a
            design matrix that is not small, products are float32; with float64 predictors, however, the
            first products are float64, and float32 only multiplies the changes since then.
        tick: called once an iteration with the number of unsolved problems.
    """
    run = _BatchedMinimiser(problems, schedule, design, targets, spectrum, blocks, dtype)
    while run.left:
        tick(run.left)
        run.iterate(limits)


class _BatchedMinimiser:
    """The waiting problems and the active set.

    Attributes:
        _unsolved: bool [problems], scheduled and not yet solved.
        _flops_at_blocks: `flops` of the design matrix when Hessian blocks were last computed.
    """

    def __init__(
        self,
        problems: Problems,
        schedule: Schedule,
        design: DesignMatrix,
        targets: Sequence[Targets],
        spectrum: Spectrum,
        blocks: HessianBlocks,
        dtype: torch.dtype,
    ) -> None:
        self._all, self._design, self._targets, self._dtype = problems, design, targets, dtype
        self._product_dtype = torch.float64 if design.small else torch.float32
        self._waiting, self._weights = schedule.problems, schedule.weights
        self._unsolved = np.zeros(len(problems.C), dtype=bool)
        self._unsolved[schedule.problems] = True
        self._class_curvature = even_curvature(targets)
        self._blocks, self._flops_at_blocks = blocks, design.flops
        none = torch.zeros(0, dtype=torch.int64, device=design.device)
        start = problems.theta[none]
        outputs, size = start.shape[1:]
        predictors = [start.new_zeros(0, outputs, t.weight.shape[2], dtype=dtype) for t in targets]
        self._active = self._started(none, start, predictors, start.new_zeros(0), predictors, start)
        self._history = History(0, outputs * size, MEMORY, self._product_dtype, design.device)
        self._kronecker = KroneckerPreconditioner(
            spectrum, len(design), self._product_dtype, start.new_zeros(0, outputs, outputs)
        )
        self._assignment = BlockAssignment([], none.device)

    @property
    def left(self) -> int:
        """The number of problems that are waiting or active."""
        return len(self._waiting) + len(self._active)

    def iterate(self, limits: Limits) -> None:
        """Take one step in all active problems, and start those that are ready."""
        direction, slope = self._directions(limits)
        starting = self._take_ready(limits.batch_size)
        if not len(direction) + len(starting):
            return
        theta = self._starts(starting)
        direction_images, predictors = self._products(direction, theta)
        loss, _, starting_residuals = evaluate(self._targets, self._all.task[starting], predictors, None)
        length, residuals = search(self._active, self._targets, direction, direction_images, slope)
        sums = self._gradient_sums(residuals, starting_residuals)
        count = len(direction)
        if count:
            self._step(length[:, None, None] * direction.double(), sums[:count])
            self._renew_due(slope)
        if len(starting):
            self._join(self._started(starting, theta, predictors, loss, starting_residuals, sums[count:]))

    def _directions(self, limits: Limits) -> tuple[Tensor, Tensor]:
        """Return directions and slopes of the problems that go on, and retire the others."""
        active = self._active
        if not len(active):
            return active.theta.to(self._product_dtype), active.objective
        scaled = active.gradient.to(self._product_dtype)
        direction = self._history.direction(scaled, self._precondition)
        slope = dot(active.gradient, direction)
        lost = ~(slope < 0) & (active.gradient != 0).any(2).any(1)
        if lost.any():  # rounding has spoilt the stored pairs
            self._history.forget(lost)
            direction = self._history.direction(scaled, self._precondition)
            slope = dot(active.gradient, direction)
        decrement = self._recheck((-slope / 2 / active.objective).clamp(min=0.0), limits.tolerance)
        # Where the curvature is overestimated, the decrement is too small; the steps then still gain more.
        last_gain = torch.where(active.steps > 0, active.past_objectives[:, -1] - active.objective, 0.0)
        last_gain_small = last_gain <= _MAX_LAST_GAIN * limits.tolerance * active.objective
        flat = ~(slope < 0)  # at the minimum, to the last digit
        converged = ((decrement <= limits.tolerance) & (last_gain_small | flat)) | (active.objective == 0)
        stopped = converged | self._stalled(limits.tolerance) | flat | (active.steps >= limits.iterations)
        if stopped.any():
            self._retire(stopped, converged, decrement)
        return direction[~stopped], slope[~stopped]

    def _take_ready(self, batch_size: int) -> Tensor:
        """Remove from the waiting problems those that can start now, int64 [P]."""
        free_slots = batch_size - len(self._active)
        if self._dtype != self._product_dtype and len(self._active):
            free_slots = 0  # the first products are in float64: too expensive for a few problems
        unsolved = self._unsolved.reshape(-1, 1, len(self._weights))
        ready = ~((self._weights != 0) & unsolved).any(2).ravel()[self._waiting]
        ready &= np.cumsum(ready) <= free_slots
        index, self._waiting = self._waiting[ready], self._waiting[~ready]
        return torch.from_numpy(index).to(self._active.index.device)

    def _starts(self, index: Tensor) -> Tensor:
        """Return the starting points of problems, float64 [P, K, d + 1]."""
        solutions, values = self._all.theta, len(self._weights)
        theta = solutions[index]
        weights = torch.from_numpy(self._weights).to(solutions.device)[index % values]
        has_sources = (weights != 0).any(1)
        for task in torch.unique(index[has_sources] // values).tolist():
            dependents = has_sources & (index // values == task)
            theta[dependents] = torch.tensordot(
                weights[dependents], solutions[task * values : (task + 1) * values], 1
            )
        return theta

    def _products(self, direction: Tensor, theta: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return X times the directions and X times the starting weights, in one pass if possible."""
        if self._dtype == self._product_dtype:
            products = self._design.linear_predictors(torch.cat([direction, theta.to(self._dtype)]))
            return [b[: len(direction)] for b in products], [b[len(direction) :] for b in products]
        nothing = [z[:0] for z in self._active.predictors]
        images = (
            [i.to(self._dtype) for i in self._design.linear_predictors(direction)]
            if len(direction)
            else nothing
        )
        return images, self._design.linear_predictors(theta) if len(theta) else nothing

    def _gradient_sums(self, residuals: list[Tensor], starting: list[Tensor]) -> Tensor:
        """Return X^T times the residuals of the active set, then of the starting problems."""
        if self._dtype == self._product_dtype:
            pairs = zip(residuals, starting, strict=True)
            return self._design.transpose_products([torch.cat(pair) for pair in pairs])
        if len(starting[0]):
            return self._design.transpose_products(starting)
        pairs = zip(residuals, self._active.anchor, strict=True)
        changes = self._design.transpose_products([(r - a).to(self._product_dtype) for r, a in pairs])
        return self._active.sums + changes

    def _started(
        self,
        index: Tensor,
        theta: Tensor,
        predictors: list[Tensor],
        loss: Tensor,
        residuals: list[Tensor],
        sums: Tensor,
    ) -> ActiveSet:
        """Return the active set of problems that have been evaluated at their starting points."""
        task, C = self._all.task[index], self._all.C[index]
        unknown = torch.full_like(C, torch.inf)
        return ActiveSet(
            index=index,
            task=task,
            C=C,
            even_curvature=self._class_curvature[task],
            theta=theta,
            objective=C * loss + ridge(theta, theta) / 2,
            gradient=_gradient(C, sums, theta),
            sums=sums,
            predictors=predictors,
            anchor=[] if self._dtype == self._product_dtype else residuals,
            steps=torch.zeros_like(index),
            renewed=torch.zeros_like(index),
            past_objectives=unknown[:, None].expand(-1, _PATIENCE),
            last_decrement=unknown,
            slow=torch.zeros_like(index, dtype=torch.bool),
        )

    def _join(self, starting: ActiveSet) -> None:
        """Add starting problems to the active set."""
        variances = self._variances(starting)
        self._kronecker.join(self._curvature(starting))
        self._assignment.join(self._blocks.assign(starting.task, variances, self._assignment))
        self._history.join(len(starting))
        self._active = self._active.join(starting) if len(self._active) else starting

    def _step(self, step: Tensor, sums: Tensor) -> None:
        """Move the weights of the active set; the line search has already moved predictors and objectives."""
        active = self._active
        active.steps = active.steps + 1
        active.theta = active.theta + step
        gradient = _gradient(active.C, sums, active.theta)
        change = gradient - active.gradient
        active.gradient = gradient
        self._history.add(step.to(self._product_dtype).flatten(1), change.to(self._product_dtype).flatten(1))

    def _renew_due(self, slope: Tensor) -> None:
        """Renew the preconditioners of the problems whose turn it is."""
        active = self._active
        due = ((active.steps & (active.steps - 1)) == 0) | (active.steps % _RENEWAL_INTERVAL == 0)
        if due.any():
            decrement = -slope / active.objective
            active.slow = torch.where(due, decrement > _SLOW * active.last_decrement, active.slow)
            active.last_decrement = torch.where(due, decrement, active.last_decrement)
            self._renew(due, (self._design.flops - self._flops_at_blocks) / _BLOCK_BUDGET)

    def _renew(self, selected: Tensor, budget: float = math.inf) -> None:
        """Update the preconditioners of selected problems; compute missing blocks if the budget allows."""
        subset = self._active.take(selected)
        self._kronecker.renew(selected, self._curvature(subset))
        variances = self._variances(subset)
        if self._blocks.fit_in_memory(len(torch.unique(subset.task))) and self._blocks.extend(
            subset.task, variances, subset.slow, budget
        ):
            self._flops_at_blocks = self._design.flops
        changed = self._assignment.renew(
            selected, self._blocks.assign(subset.task, variances, self._assignment)
        )
        # Pairs recorded under another preconditioner mislead more than they help.
        self._history.forget(changed)
        self._active.renewed = torch.where(selected, self._active.steps, self._active.renewed)

    def _variances(self, active: ActiveSet) -> Tensor:
        """Return the weight p (1 - p) of every row, [P, K, n]."""
        blocks = zip(self._targets, active.predictors, strict=True)
        return torch.cat([target.of(active.task).variances(z) for target, z in blocks], dim=2)

    def _precondition(self, gradient: Tensor) -> Tensor:
        """Apply the Hessian blocks to the fits that have them, else the Kronecker product."""
        has_blocks = self._assignment.has_blocks
        if has_blocks.all():
            return self._apply_blocks(has_blocks, gradient)
        preconditioned = self._kronecker(gradient)
        if has_blocks.any():
            preconditioned[has_blocks] = self._apply_blocks(has_blocks, gradient[has_blocks])
        return preconditioned

    def _apply_blocks(self, which: Tensor, gradient: Tensor) -> Tensor:
        """Apply Hessian blocks to the gradients of the problems selected, all of which have blocks."""
        return self._blocks.solve(self._assignment.take(which), gradient, self._active.C[which])

    def _recheck(self, decrement: Tensor, tolerance: float) -> Tensor:
        """Return decrements, re-estimated with current preconditioners where they suggest convergence.

        The Kronecker product is trusted only where all rows have similar curvature; elsewhere blocks are
        computed to check it. Neither captures directions in which only a few rows vary, and these matter when
        C is large: there the estimate is multiplied by a safety factor.
        """
        candidate = decrement <= tolerance
        if not candidate.any():
            return decrement
        active, candidates = self._active, self._active.take(candidate)
        evenness = torch.ones_like(decrement)
        evenness[candidate] = (
            self._variances(candidates).sum(2, dtype=torch.float64) / candidates.even_curvature
        ).amin(1)
        doubtful = candidate & ((evenness < _VERY_UNEVEN) | self._assignment.has_blocks)
        if doubtful.any() and self._blocks.fit_in_memory(len(torch.unique(active.task[doubtful]))):
            outdated = doubtful & ((active.renewed < active.steps) | ~self._assignment.has_blocks)
            if outdated.any():
                self._renew(outdated)
            with_blocks = doubtful & self._assignment.has_blocks
            gradient = active.gradient[with_blocks]
            by_blocks = dot(gradient, self._apply_blocks(with_blocks, gradient.to(self._product_dtype)))
            decrement[with_blocks] = torch.maximum(
                decrement[with_blocks], by_blocks / 2 / active.objective[with_blocks]
            )
        if self._dtype == torch.float32:  # its rounding hides the difference
            return decrement
        factor = torch.where(self._assignment.has_blocks, _ERROR_WITH_BLOCKS, _ERROR_WITHOUT)
        return torch.where(evenness < _UNEVEN, factor * decrement, decrement)

    def _stalled(self, tolerance: float) -> Tensor:
        """Return the problems whose objective no longer falls noticeably, bool [P]."""
        active, has_blocks = self._active, self._assignment.has_blocks
        stalled = torch.zeros_like(has_blocks)
        single = self._dtype == torch.float32
        for patience, threshold, applies in (
            (_PATIENCE, tolerance, ~stalled),
            (_PATIENCE_WITH_BLOCKS, max(tolerance, _ROUNDING_GAIN), has_blocks),
        ):
            gained = active.past_objectives[:, -patience] - active.objective
            stalled |= applies & (gained <= (threshold if single else 0.0) * active.objective)
        return stalled

    def _retire(self, stopped: Tensor, converged: Tensor, decrement: Tensor) -> None:
        done = self._active.take(stopped)
        self._unsolved[done.index.cpu().numpy()] = False
        self._all.update(
            done.index,
            Problems(
                done.task,
                done.C,
                done.theta,
                done.objective,
                done.gradient.flatten(1).norm(dim=1),
                decrement[stopped],
                self._all.iterations[done.index] + done.steps,
                converged[stopped],
            ),
        )
        self._active = self._active.take(~stopped)
        for per_problem in (self._history, self._kronecker, self._assignment):
            per_problem.keep(~stopped)

    def _curvature(self, active: ActiveSet) -> Tensor:
        total: Tensor | float = 0.0
        for target, predictor in zip(self._targets, active.predictors, strict=True):
            total = total + target.of(active.task).curvature(predictor)
        return active.C[:, None, None] * total


def _gradient(C: Tensor, sums: Tensor, theta: Tensor) -> Tensor:
    gradient = C[:, None, None] * sums
    gradient[..., :-1] += theta[..., :-1]
    return gradient
