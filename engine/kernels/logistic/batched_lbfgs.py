"""Minimise many logistic objectives at once: one iteration takes two products with X for all of them.

Problems need not start together. A problem whose starting point depends on the solutions of others joins the
active set as soon as these are solved, so that a product with X seldom has only a few columns while other
problems are still waiting.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.kernels.logistic.active_problems import (
    BLOCK_BUDGET,
    ERROR_WITHOUT,
    MAX_LAST_GAIN,
    PATIENCE,
    SLOW,
    UNEVEN,
    VERY_UNEVEN,
    ActiveProblems,
)
from engine.kernels.logistic.design_matrix import DesignMatrix
from engine.kernels.logistic.lbfgs import History, KroneckerPreconditioner, Spectrum
from engine.kernels.logistic.line_search import dot, evaluate, search
from engine.kernels.logistic.loss import Targets
from engine.kernels.logistic.preconditioner import BlockAssignment, HessianBlocks
from engine.kernels.logistic.state import ActiveSet, Limits, Problems, Schedule

#: Preconditioners are renewed every so many iterations (and at powers of two).
_RENEWAL_INTERVAL = 5
#: Factor by which the decrement may be underestimated with blocks.
_ERROR_WITH_BLOCKS = 10.0
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


class _BatchedMinimiser(ActiveProblems):
    """The driver of the CPU: it looks at its problems in every iteration.

    Attributes:
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
        super().__init__(problems, schedule, design, targets, dtype)
        self._blocks, self._flops_at_blocks = blocks, design.flops
        self._history, self._kronecker = self._empty(spectrum, History, KroneckerPreconditioner)
        self._assignment = BlockAssignment([], problems.theta.device)

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
        last_gain_small = last_gain <= MAX_LAST_GAIN * limits.tolerance * active.objective
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
        return torch.from_numpy(self._take_waiting(free_slots)).to(self._active.index.device)

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

    def _join(self, starting: ActiveSet) -> None:
        """Add starting problems to the active set."""
        variances = self._variances(starting)
        self._kronecker.join(self._curvature(starting))
        self._assignment.join(self._blocks.assign(starting.task, variances, self._assignment))
        self._history.join(len(starting))
        self._active = self._active.join(starting) if len(self._active) else starting

    def _renew_due(self, slope: Tensor) -> None:
        """Renew the preconditioners of the problems whose turn it is."""
        active = self._active
        due = ((active.steps & (active.steps - 1)) == 0) | (active.steps % _RENEWAL_INTERVAL == 0)
        if due.any():
            decrement = -slope / active.objective
            active.slow = torch.where(due, decrement > SLOW * active.last_decrement, active.slow)
            active.last_decrement = torch.where(due, decrement, active.last_decrement)
            self._renew(due, (self._design.flops - self._flops_at_blocks) / BLOCK_BUDGET)

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
        doubtful = candidate & ((evenness < VERY_UNEVEN) | self._assignment.has_blocks)
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
        factor = torch.where(self._assignment.has_blocks, _ERROR_WITH_BLOCKS, ERROR_WITHOUT)
        return torch.where(evenness < UNEVEN, factor * decrement, decrement)

    def _stalled(self, tolerance: float) -> Tensor:
        """Return the problems whose objective no longer falls noticeably, bool [P]."""
        active, has_blocks = self._active, self._assignment.has_blocks
        stalled = torch.zeros_like(has_blocks)
        single = self._dtype == torch.float32
        for patience, threshold, applies in (
            (PATIENCE, tolerance, ~stalled),
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
