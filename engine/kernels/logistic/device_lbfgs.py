"""Minimise many logistic objectives at once on a CUDA device that the host seldom waits for.

Problems, directions and convergence are those of `batched_lbfgs`, whose driver looks at its numbers in every
iteration. On a device each look empties the queue of work. Here decisions are masks on the device, and the
host reads every `INTERVAL` iterations, in one small copy, which problems have stopped. It retires these,
starts those that are ready, and names rows by positions that it knows, so that nothing else makes it wait but
one eigendecomposition of the small matrices of curvature after each reading (`device_state`), and a choice of
blocks.

A problem is judged at readings alone, and carried with a step of 0 from then on until it is retired; between
readings it may therefore be iterated further than it would have to be. Hessian blocks are chosen after a
reading, from a second one (`device_blocks`), and a new problem takes those of its neighbour on the path. As
they may be older than on the CPU, a problem whose rows have uneven curvature must reach a hundredth of the
tolerance, with blocks or without.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
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
from engine.kernels.logistic.device_blocks import DeviceBlocks, Plan
from engine.kernels.logistic.device_state import DeviceHistory, DeviceKronecker
from engine.kernels.logistic.lbfgs import Spectrum
from engine.kernels.logistic.line_search import dot, evaluate, search_unread
from engine.kernels.logistic.loss import Targets
from engine.kernels.logistic.preconditioner import HessianBlock
from engine.kernels.logistic.state import ActiveSet, Limits, Problems, Schedule
from engine.runtime import HostCopy, placed

#: Iterations from one reading to the next.
INTERVAL = 8
#: Iterations after a start or reading at which the preconditioner takes the present curvature.
_RENEWALS = (1, 2, 4)


def minimise_on_device(
    problems: Problems,
    schedule: Schedule,
    design: DesignMatrix,
    targets: Sequence[Targets],
    spectrum: Spectrum,
    blocks: DeviceBlocks,
    dtype: torch.dtype,
    limits: Limits,
    tick: Callable[[int], None],
) -> None:
    """Iterate, in place, until every scheduled problem has converged or stalled.

    Args:
        Those of `batched_lbfgs.minimise`.
    """
    run = _DeviceMinimiser(problems, schedule, design, targets, spectrum, blocks, dtype, limits)
    while run.left:
        tick(run.left)
        run.iterate()


class _DeviceMinimiser(ActiveProblems):
    """The driver of a CUDA device.

    Attributes:
        _history: pairs of the active set, whose greatest number the host knows.
        _starting: intp, problems that start in the next iteration.
        _turn: iterations since the first problems started.
        _since: iterations since the preconditioners were last made anew.
        _first: float64 [P], first trial step lengths of the next line search.
        _assigned: of each problem that has started, its blocks or None; retired ones lend theirs.
        _plan: how the blocks of the active set are applied.
        _last_decrement: float64 [problems], at the last reading.
        _flops_at_blocks: `flops` of the design matrix when Hessian blocks were last computed.
    """

    _history: DeviceHistory

    def __init__(
        self,
        problems: Problems,
        schedule: Schedule,
        design: DesignMatrix,
        targets: Sequence[Targets],
        spectrum: Spectrum,
        blocks: DeviceBlocks,
        dtype: torch.dtype,
        limits: Limits,
    ) -> None:
        super().__init__(problems, schedule, design, targets, dtype)
        self._limits, self._blocks, self._flops_at_blocks = limits, blocks, design.flops
        self._C = HostCopy(problems.C).wait().numpy()
        self._assigned: dict[int, list[HessianBlock] | None] = {}
        self._plan: Plan | None = None
        self._last_decrement = np.full(len(problems.C), np.inf)
        self._history, self._kronecker = self._empty(spectrum, DeviceHistory, DeviceKronecker)
        self._first = problems.theta.new_zeros(0)
        self._index: NDArray[np.intp] = np.zeros(0, np.intp)  # of the active set, as `ActiveSet.index`
        self._turn = self._since = 0
        self._starting = self._take_waiting(limits.batch_size)

    @property
    def left(self) -> int:
        """The number of problems that are waiting, starting or active, as far as the host has read."""
        return len(self._waiting) + len(self._starting) + len(self._active)

    def iterate(self) -> None:
        """Take one step in all active problems, and start those that are ready."""
        reading, moving, direction, slope = self._directions()
        theta, index = self._starts()
        direction_images, predictors = self._products(direction, theta)
        loss, _, starting_residuals = evaluate(self._targets, self._all.task[index], predictors, None)
        length, residuals, self._first = search_unread(
            self._active, self._targets, direction, direction_images, slope, self._first
        )
        sums = self._gradient_sums(residuals, starting_residuals)
        count = len(direction)
        if count:
            steps = self._active.steps
            self._step(length[:, None, None] * direction.double(), sums[:count])
            self._active.steps = steps + moving
            self._turn, self._since = self._turn + 1, self._since + 1
        elif self._dtype != self._product_dtype:
            self._turn = 0  # most problems of a check in float64 are done when they are first judged
        if len(index):
            self._join(self._started(index, theta, predictors, loss, starting_residuals, sums[count:]))
        self._starting = self._starting[:0]
        if reading is not None:
            self._act(*reading)
            if len(self._active) and not len(self._starting):
                self._renew()

    def _directions(self) -> tuple["tuple[HostCopy, Tensor, Tensor] | None", Tensor, Tensor, Tensor]:
        """Return a reading if it is due, who moves, bool [P], and their directions and slopes."""
        active = self._active
        if not len(active):
            none = active.objective
            return None, none.bool(), active.theta.to(self._product_dtype), none
        due = self._turn % INTERVAL == 0
        if due or self._since in _RENEWALS:
            curvature = self._curvature(active)
            self._kronecker.follow(curvature)
        direction = self._history.direction(active.gradient.to(self._product_dtype), self._precondition)
        slope = dot(active.gradient, direction)
        descends = slope < 0
        # Where rounding has spoilt the stored pairs, the next direction does without.
        lost = ~descends & self._history.has_pairs & (active.gradient != 0).any(2).any(1)
        self._history.forget(lost)
        moving = descends & (active.steps < self._limits.iterations)
        reading = None
        if due:
            stopped, converged, decrement, evenness = self._verdict(slope, lost, curvature)
            numbers = torch.stack([stopped.double(), decrement, evenness])
            reading = HostCopy(numbers), converged, decrement
            moving = moving & ~stopped
        direction = torch.where(moving[:, None, None], direction, 0)
        return reading, moving, direction, torch.where(moving, slope, 0.0)

    def _precondition(self, gradient: Tensor) -> Tensor:
        """Apply the Hessian blocks to the fits that have them, else the Kronecker product."""
        preconditioned = self._kronecker(gradient)
        if self._plan is None:
            return preconditioned
        by_blocks = self._blocks.apply(self._plan, gradient, self._active.C)
        return torch.where(self._plan.has_blocks[:, None, None], by_blocks, preconditioned)

    def _verdict(
        self, slope: Tensor, lost: Tensor, curvature: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return who has stopped and who has converged, bool [P]; decrements; evenness of curvature."""
        active, tolerance = self._active, self._limits.tolerance
        decrement = -slope / 2 / active.objective
        if self._plan is not None:
            gradient = active.gradient.to(self._product_dtype)
            alone = dot(active.gradient, self._precondition(gradient)) / 2 / active.objective
            decrement = torch.where(self._plan.has_blocks, torch.maximum(decrement, alone), decrement)
        decrement = decrement.clamp(min=0.0)
        sums = torch.diagonal(curvature, dim1=1, dim2=2) / active.C[:, None]
        evenness = (sums / active.even_curvature).amin(1)
        if self._dtype != torch.float32:  # its rounding hides the difference
            decrement = torch.where(evenness < UNEVEN, ERROR_WITHOUT * decrement, decrement)
        last_gain = torch.where(active.steps > 0, active.past_objectives[:, -1] - active.objective, 0.0)
        flat = ~(slope < 0)
        small = (last_gain <= MAX_LAST_GAIN * tolerance * active.objective) | flat
        converged = ((decrement <= tolerance) & small & ~lost) | (active.objective == 0)
        gained = active.past_objectives[:, -PATIENCE] - active.objective
        stalled = gained <= (tolerance if self._dtype == torch.float32 else 0.0) * active.objective
        stopped = converged | (stalled | flat) & ~lost | (active.steps >= self._limits.iterations)
        return stopped, converged, decrement, evenness

    def _starts(self) -> tuple[Tensor, Tensor]:
        """Return starting points, float64 [P, K, d + 1], of the problems that start, and these, int64 [P]."""
        index, solutions = self._starting, self._all.theta
        device = self._design.device
        if not len(index):
            return solutions[:0], self._active.index[:0]
        positions = placed(index, device)
        values = len(self._weights)
        weights = self._weights[index % values]
        # A start depends on few solutions. Where it is cold, it is the problem's own theta.
        most = max(1, int((weights != 0).sum(1).max()))
        sources = np.argsort(weights == 0, axis=1, kind="stable")[:, :most]
        shares = np.take_along_axis(weights, sources, 1)
        sources = sources + (index // values * values)[:, None]
        cold = ~shares.any(1)
        sources[cold], shares[cold, 0] = index[cold, None], 1.0
        columns = zip(placed(sources.T, device), placed(shares.T, device), strict=True)
        theta = torch.zeros_like(solutions[positions])
        for source, share in columns:
            theta = theta + share[:, None, None] * solutions[source]
        return theta, positions

    def _join(self, starting: ActiveSet) -> None:
        """Add starting problems to the active set, and make all preconditioners anew."""
        self._index = np.concatenate([self._index, self._starting])
        self._active = self._active.join(starting) if len(self._active) else starting
        self._history.join(len(starting))
        self._first = torch.cat([self._first, torch.ones_like(starting.objective)])
        for problem in self._starting.tolist():
            self._assigned[problem] = self._neighbours_blocks(problem)
        self._plan_blocks()
        self._renew()

    def _neighbours_blocks(self, problem: int) -> list[HessianBlock] | None:
        """Return the blocks of the problem of the same task and the nearest C that has any."""
        values = len(self._weights)
        known = [p for p, own in self._assigned.items() if own and p // values == problem // values]
        nearest = min(known, key=lambda p: abs(p - problem), default=None)
        return None if nearest is None else self._assigned[nearest]

    def _plan_blocks(self) -> None:
        blocks = [self._assigned[problem] for problem in self._index.tolist()]
        self._plan = self._blocks.plan(blocks, self._C[self._index])

    def _choose_blocks(self, decrement: NDArray[np.float64], evenness: NDArray[np.float64]) -> None:
        """Renew the blocks of problems of uneven curvature, given a reading of the active set, [P] each."""
        index = self._index
        slow = decrement > SLOW * self._last_decrement[index]
        self._last_decrement[index] = decrement
        due = np.flatnonzero(evenness < VERY_UNEVEN)
        task = index[due] // len(self._weights)
        if len(due) and self._blocks.fit_in_memory(len(np.unique(task))):
            rows = placed(due, self._design.device)
            budget = (self._design.flops - self._flops_at_blocks) / BLOCK_BUDGET
            chosen, computed = self._blocks.choose(
                task, self._variances(self._active.take(rows)), slow[due], budget
            )
            if computed:
                self._flops_at_blocks = self._design.flops
            changed = np.zeros(len(index), np.bool_)
            for place, blocks in zip(due.tolist(), chosen, strict=True):
                before = self._assigned[int(index[place])]
                changed[place] = [id(b) for b in before or ()] != [id(b) for b in blocks or ()]
                self._assigned[int(index[place])] = blocks
            if changed.any():  # pairs recorded under another preconditioner mislead
                self._history.forget(placed(changed, self._design.device))
        self._plan_blocks()

    def _renew(self) -> None:
        """Make the preconditioners of all active problems anew; the host waits."""
        self._kronecker.reset(self._curvature(self._active))
        self._since = 0

    def _act(self, numbers: HostCopy, converged: Tensor, decrement: Tensor) -> None:
        """Retire problems that have stopped, and choose those that start in the next iteration."""
        halted, decrements, evenness = numbers.wait().numpy()
        done, left = np.flatnonzero(halted), np.flatnonzero(halted == 0)
        if len(done):
            self._retire(done, left, converged, decrement)
        if len(left):
            self._choose_blocks(decrements[left], evenness[left])
        free_slots = self._limits.batch_size - len(self._index)
        if self._dtype != self._product_dtype and len(self._index):
            free_slots = 0  # the first products are in float64: too expensive for a few problems
        self._starting = self._take_waiting(free_slots)

    def _retire(
        self, done: NDArray[np.intp], left: NDArray[np.intp], converged: Tensor, decrement: Tensor
    ) -> None:
        self._unsolved[self._index[done]] = False
        rows, others = placed(done, self._design.device), placed(left, self._design.device)
        solved = self._active.take(rows)
        self._all.update(
            solved.index,
            Problems(
                solved.task,
                solved.C,
                solved.theta,
                solved.objective,
                solved.gradient.flatten(1).norm(dim=1),
                decrement[rows],
                self._all.iterations[solved.index] + solved.steps,
                converged[rows],
            ),
        )
        self._index = self._index[left]
        self._active, self._first = self._active.take(others), self._first[others]
        self._history.keep_rows(left, others)
        self._kronecker.keep(others)
