"""Minimise many logistic objectives in lockstep: an iteration is two products with X for all of them.

Problems need not begin together. One that starts where others have arrived joins as soon as these are done,
so that few columns seldom pass through X alone while others wait.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from engine.kernels.logistic.design_matrix import Rows
from engine.kernels.logistic.lbfgs import History, Preconditioner, Spectrum
from engine.kernels.logistic.loss import Targets
from engine.kernels.logistic.preconditioner import Blocks, Served
from engine.kernels.logistic.state import Active, Limits, Order, Problems

#: Pairs that L-BFGS keeps.
MEMORY = 60
#: The line search ends where the slope has fallen to this share (it is convex: the slope only grows).
_SLOPE = 0.3
_ROUNDS = 20
#: In float32 a problem that gains less than the tolerance in so many iterations has met rounding.
_PATIENCE = 25
#: The last step of a fit that has converged gained at most so many times the tolerance.
_CALM = 5.0
#: Iterations after which it is looked whether the blocks still serve.
_CHECK = 5
#: Shares of the curvature that rows would have, were they all alike: below the first they are so no longer
#: and estimates may be too small, below the second blocks must judge.
_ALIKE, _EVEN = 0.9, 0.65
#: By what factor estimates may be too small, with blocks and with a Kronecker product.
_WITH_BLOCKS, _WITHOUT = 10.0, 100.0
#: A fit whose estimate falls by less than this factor in between is slow.
_QUICK = 0.1
#: Blocks are made when the fits have spent this share of the blocks' cost on products since the last ones.
_SHARE = 0.1
#: The same patience where blocks serve: then progress is quick until rounding ends it, at about this share.
_PATIENCE_SERVED, _NOISE = 8, 2e-7


def descend(
    problems: Problems,
    order: Order,
    rows: Rows,
    targets: Sequence[Targets],
    spectrum: Spectrum,
    blocks: Blocks,
    dtype: torch.dtype,
    limits: Limits,
    tick: Callable[[int], None],
) -> None:
    """Iterate until every problem of the order has converged or stalled, in place.

    Args:
        targets: of each block of the rows, in `dtype`.
        blocks: that earlier calls have made, and to which this one may add.
        dtype: of predictors and residuals. Sums over rows, objectives and weights are float64 in any case;
            products with rows that are not small are float32, but with float64 predictors the first ones
            are float64 too, and float32 only multiplies what has changed since.
        tick: called with the number of problems that are left, once an iteration.
    """
    run = _Run(problems, order, rows, targets, spectrum, blocks, dtype)
    while run.left:
        tick(run.left)
        run.iterate(limits)


class _Run:
    """The problems that wait and those at work."""

    def __init__(
        self,
        problems: Problems,
        order: Order,
        rows: Rows,
        targets: Sequence[Targets],
        spectrum: Spectrum,
        blocks: Blocks,
        dtype: torch.dtype,
    ) -> None:
        self._all, self._rows, self._targets, self._dtype = problems, rows, targets, dtype
        self._product_dtype = torch.float64 if rows.small else torch.float32
        self._waiting, self._weights = order.problems, order.weights
        self._open = np.zeros(len(problems.C), dtype=bool)
        self._open[order.problems] = True
        self._even = _even_curvature(targets)
        self._blocks, self._began = blocks, rows.flops
        none = torch.zeros(0, dtype=torch.int64, device=rows.device)
        start = problems.theta[none]
        outputs, size = start.shape[1:]
        predictors = [start.new_zeros(0, outputs, t.weight.shape[2], dtype=dtype) for t in targets]
        self._active = self._beginning(none, start, predictors, start.new_zeros(0), predictors, start)
        self._history = History(0, outputs * size, MEMORY, self._product_dtype, rows.device)
        self._kronecker = Preconditioner(
            spectrum, len(rows), self._product_dtype, start.new_zeros(0, outputs, outputs)
        )
        self._served = Served([], none.device)

    @property
    def left(self) -> int:
        """Problems that wait or are at work."""
        return len(self._waiting) + len(self._active)

    def iterate(self, limits: Limits) -> None:
        """One direction, line search and gradient for all at work, and a start for those that may begin."""
        direction, slope = self._direct(limits)
        index = self._next(limits.together)
        if not len(direction) + len(index):
            return
        theta = self._starts(index)
        images, predictors = self._images(direction, theta)
        loss, _, theirs = self._evaluate(self._all.task[index], predictors, None)
        length, residuals = self._search(direction, images, slope)
        sums = self._sums(residuals, theirs)
        count = len(direction)
        if count:
            self._step(length[:, None, None] * direction.double(), sums[:count])
            self._look(slope)
        if len(index):
            self._join(self._beginning(index, theta, predictors, loss, theirs, sums[count:]))

    def _direct(self, limits: Limits) -> tuple[Tensor, Tensor]:
        """Directions and slopes of those that go on; the others are put away."""
        active = self._active
        if not len(active):
            return active.theta.to(self._product_dtype), active.objective
        scaled = active.gradient.to(self._product_dtype)
        direction = self._history.direction(scaled, self._precondition)
        slope = _dot(active.gradient, direction)
        lost = ~(slope < 0) & (active.gradient != 0).any(2).any(1)
        if lost.any():  # rounding has spoilt the memory
            self._history.forget(lost)
            direction = self._history.direction(scaled, self._precondition)
            slope = _dot(active.gradient, direction)
        decrement = self._doubted((-slope / 2 / active.objective).clamp(min=0.0), limits.tolerance)
        # The estimate is too small where the curvature is taken too large; then steps still gain more.
        gained = torch.where(active.steps > 0, active.past[:, -1] - active.objective, 0.0)
        calm = gained <= _CALM * limits.tolerance * active.objective
        ended = ~(slope < 0)  # at the minimum, to the last digit
        converged = ((decrement <= limits.tolerance) & (calm | ended)) | (active.objective == 0)
        stopped = converged | self._stalled(limits.tolerance) | ended | (active.steps >= limits.iterations)
        if stopped.any():
            self._put_away(stopped, converged, decrement)
        return direction[~stopped], slope[~stopped]

    def _next(self, together: int) -> Tensor:
        """Of those that wait the ones that may begin."""
        room = together - len(self._active)
        if self._dtype != self._product_dtype and len(self._active):
            room = 0  # first products are in float64: not for a few
        unknown = self._open.reshape(-1, 1, len(self._weights))
        ready = ~((self._weights != 0) & unknown).any(2).ravel()[self._waiting]
        ready &= np.cumsum(ready) <= room
        index, self._waiting = self._waiting[ready], self._waiting[~ready]
        return torch.from_numpy(index).to(self._active.index.device)

    def _starts(self, index: Tensor) -> Tensor:
        """Where problems begin, float64 [P, K, d + 1]."""
        every, values = self._all.theta, len(self._weights)
        theta = every[index]
        weights = torch.from_numpy(self._weights).to(every.device)[index % values]
        follow = (weights != 0).any(1)
        for task in torch.unique(index[follow] // values).tolist():
            those = follow & (index // values == task)
            theta[those] = torch.tensordot(weights[those], every[task * values : (task + 1) * values], 1)
        return theta

    def _images(self, direction: Tensor, theta: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Products of the rows with directions and with beginners' weights, together where they may be."""
        if self._dtype == self._product_dtype:
            both = self._rows.images(torch.cat([direction, theta.to(self._dtype)]))
            return [b[: len(direction)] for b in both], [b[len(direction) :] for b in both]
        nothing = [z[:0] for z in self._active.predictors]
        images = [i.to(self._dtype) for i in self._rows.images(direction)] if len(direction) else nothing
        return images, self._rows.images(theta) if len(theta) else nothing

    def _sums(self, residuals: list[Tensor], beginners: list[Tensor]) -> Tensor:
        """Products of the rows with the residuals of those at work and of beginners, in that order."""
        if self._dtype == self._product_dtype:
            return self._rows.gradients([torch.cat(each) for each in zip(residuals, beginners, strict=True)])
        if len(beginners[0]):
            return self._rows.gradients(beginners)
        pairs = zip(residuals, self._active.anchor, strict=True)
        changes = self._rows.gradients([(r - a).to(self._product_dtype) for r, a in pairs])
        return self._active.sums + changes

    def _beginning(
        self,
        index: Tensor,
        theta: Tensor,
        predictors: list[Tensor],
        loss: Tensor,
        residuals: list[Tensor],
        sums: Tensor,
    ) -> Active:
        """Problems that have been evaluated where they start."""
        task, C = self._all.task[index], self._all.C[index]
        unknown = torch.full_like(C, torch.inf)
        return Active(
            index=index,
            task=task,
            C=C,
            even=self._even[task],
            theta=theta,
            objective=C * loss + _ridge(theta, theta) / 2,
            gradient=_gradient(C, sums, theta),
            sums=sums,
            predictors=predictors,
            anchor=[] if self._dtype == self._product_dtype else residuals,
            steps=torch.zeros_like(index),
            renewed=torch.zeros_like(index),
            past=unknown[:, None].expand(-1, _PATIENCE),
            height=unknown,
            slow=torch.zeros_like(index, dtype=torch.bool),
        )

    def _join(self, beginners: Active) -> None:
        """Have these at work too."""
        variances = self._variances(beginners)
        self._kronecker.join(self._curvature(beginners))
        self._served.join(self._blocks.serve(beginners.task, variances, self._served))
        self._history.join(len(beginners))
        self._active = self._active.join(beginners) if len(self._active) else beginners

    def _step(self, step: Tensor, sums: Tensor) -> None:
        """Move the weights of those at work; the search has moved the rest."""
        active = self._active
        active.steps = active.steps + 1
        active.theta = active.theta + step
        gradient = _gradient(active.C, sums, active.theta)
        change = gradient - active.gradient
        active.gradient = gradient
        self._history.add(step.to(self._product_dtype).flatten(1), change.to(self._product_dtype).flatten(1))

    def _look(self, slope: Tensor) -> None:
        """Renew the preconditioners of those at work whose turn it is."""
        active = self._active
        due = ((active.steps & (active.steps - 1)) == 0) | (active.steps % _CHECK == 0)
        if due.any():
            height = -slope / active.objective
            active.slow = torch.where(due, height > _QUICK * active.height, active.slow)
            active.height = torch.where(due, height, active.height)
            self._renew(due, (self._rows.flops - self._began) / _SHARE)

    def _renew(self, those: Tensor, budget: float = math.inf) -> None:
        """Have the preconditioners follow some problems, and make the blocks that these lack."""
        some = self._active.take(those)
        self._kronecker.renew(those, self._curvature(some))
        variances = self._variances(some)
        if self._blocks.possible(len(torch.unique(some.task))) and self._blocks.cover(
            some.task, variances, some.slow, budget
        ):
            self._began = self._rows.flops
        differs = self._served.renew(those, self._blocks.serve(some.task, variances, self._served))
        # Pairs from where the curvature was another mislead more than they help.
        self._history.forget(differs)
        self._active.renewed = torch.where(those, self._active.steps, self._active.renewed)

    def _variances(self, active: Active) -> Tensor:
        """Weight p (1 - p) of every row, [P, K, n]."""
        blocks = zip(self._targets, active.predictors, strict=True)
        return torch.cat([of.of(active.task).variances(z) for of, z in blocks], dim=2)

    def _precondition(self, gradient: Tensor) -> Tensor:
        """By blocks where they serve, else by the Kronecker product."""
        which = self._served.by_blocks
        if which.all():
            return self._by_blocks(which, gradient)
        found = self._kronecker(gradient)
        if which.any():
            found[which] = self._by_blocks(which, gradient[which])
        return found

    def _by_blocks(self, which: Tensor, gradient: Tensor) -> Tensor:
        """Of problems that blocks serve, with their gradients."""
        return self._blocks.solve(self._served.take(which), gradient, self._active.C[which])

    def _doubted(self, decrement: Tensor, tolerance: float) -> Tensor:
        """The estimate of those that claim to have converged, made anew with preconditioners of today.

        A Kronecker product is believed only where the rows' curvature is much the same: where it is not,
        blocks are made for the purpose. Neither sees all of a direction in which few rows differ, which
        counts where C is large: there the estimate has to be smaller by a factor.
        """
        claims = decrement <= tolerance
        if not claims.any():
            return decrement
        active, some = self._active, self._active.take(claims)
        alike = torch.ones_like(decrement)
        alike[claims] = (self._variances(some).sum(2, dtype=torch.float64) / some.even).amin(1)
        doubtful = claims & ((alike < _EVEN) | self._served.by_blocks)
        if doubtful.any() and self._blocks.possible(len(torch.unique(active.task[doubtful]))):
            late = doubtful & ((active.renewed < active.steps) | ~self._served.by_blocks)
            if late.any():
                self._renew(late)
            served = doubtful & self._served.by_blocks
            gradient = active.gradient[served]
            other = _dot(gradient, self._by_blocks(served, gradient.to(self._product_dtype)))
            decrement[served] = torch.maximum(decrement[served], other / 2 / active.objective[served])
        if self._dtype == torch.float32:  # would not show the difference
            return decrement
        factor = torch.where(self._served.by_blocks, _WITH_BLOCKS, _WITHOUT)
        return torch.where(alike < _ALIKE, factor * decrement, decrement)

    def _stalled(self, tolerance: float) -> Tensor:
        """Problems whose objective no longer falls by what would matter."""
        active, served = self._active, self._served.by_blocks
        stalled = torch.zeros_like(served)
        single = self._dtype == torch.float32
        for patience, least, which in (
            (_PATIENCE, tolerance, ~stalled),
            (_PATIENCE_SERVED, max(tolerance, _NOISE), served),
        ):
            gained = active.past[:, -patience] - active.objective
            stalled |= which & (gained <= (least if single else 0.0) * active.objective)
        return stalled

    def _put_away(self, stopped: Tensor, converged: Tensor, decrement: Tensor) -> None:
        done = self._active.take(stopped)
        self._open[done.index.cpu().numpy()] = False
        self._all.put(
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
        for each in (self._history, self._kronecker, self._served):
            each.keep(~stopped)

    def _search(self, direction: Tensor, images: list[Tensor], slope: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Step lengths float64 [P] and the residuals there; moves predictors and objective.

        On predictors and their images under X: no product with X is needed. The objective along a line is
        convex, so its slope grows: a negative one is below the minimum, a positive one above.
        """
        active = self._active
        across = _ridge(active.theta, direction)
        square = _ridge(direction, direction)
        ridge = _ridge(active.theta, active.theta) / 2
        noise = 4 * torch.finfo(self._dtype).eps * active.objective
        length = torch.ones_like(slope)
        low, low_slope = torch.zeros_like(slope), slope
        high, high_slope = torch.full_like(slope, torch.inf), torch.full_like(slope, torch.inf)
        for turn in range(_ROUNDS + 1):
            trial = [
                torch.addcmul(z, length.to(z.dtype)[:, None, None], image)
                for z, image in zip(active.predictors, images, strict=True)
            ]
            loss, along, residuals = self._evaluate(active.task, trial, images)
            objective = active.C * loss + ridge + length * across + length**2 * square / 2
            now = active.C * along + across + length * square
            falls = objective <= active.objective + noise
            good = (now.abs() <= -_SLOPE * slope) & falls
            if bool(good.all()) or turn == _ROUNDS:
                break
            below = (now < 0) & falls
            low, low_slope = torch.where(below, length, low), torch.where(below, now, low_slope)
            high, high_slope = torch.where(below, high, length), torch.where(below, high_slope, now)
            following = _between(low, low_slope, high, high_slope)
            if turn == _ROUNDS - 1:
                following = low  # the last: a step that surely goes down, or none
            # Rounded as the predictors will see it.
            length = torch.where(good, length, following).to(self._dtype).double()
        active.past = torch.cat([active.past[:, 1:], active.objective[:, None]], dim=1)
        active.predictors, active.objective = trial, objective
        return length, residuals

    def _evaluate(
        self, task: Tensor, predictors: Sequence[Tensor], images: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Sums of losses and of derivatives along the images, float64 [P], and residuals of every block."""
        loss = torch.zeros(len(task), dtype=torch.float64, device=task.device)
        along = torch.zeros_like(loss)
        if not len(task):
            return loss, along, list(predictors)
        residuals = []
        for i, (target, predictor) in enumerate(zip(self._targets, predictors, strict=True)):
            some, residual = target.of(task).evaluate(predictor)
            loss += some
            if images is not None:
                along += (residual * images[i]).sum((1, 2), dtype=torch.float64)
            residuals.append(residual)
        return loss, along, residuals

    def _curvature(self, active: Active) -> Tensor:
        total: Tensor | float = 0.0
        for target, predictor in zip(self._targets, active.predictors, strict=True):
            total = total + target.of(active.task).curvature(predictor)
        return active.C[:, None, None] * total


def _gradient(C: Tensor, sums: Tensor, theta: Tensor) -> Tensor:
    gradient = C[:, None, None] * sums
    gradient[..., :-1] += theta[..., :-1]
    return gradient


def _even_curvature(targets: Sequence[Targets]) -> Tensor:
    """Sums of p (1 - p), float64 [T, K], were every row's p the share of the class."""
    sums = torch.stack([target.shares() for target in targets]).sum(0)
    own, all_rows = sums[:, :-1], sums[:, -1:]
    return own * (1 - own / all_rows)


def _between(low: Tensor, low_slope: Tensor, high: Tensor, high_slope: Tensor) -> Tensor:
    """The next step length to try: where the slope's secant vanishes, kept well inside; double at first."""
    width = high - low
    share = (low_slope / (low_slope - high_slope)).nan_to_num(0.5).clamp(0.1, 0.9)
    return torch.where(torch.isinf(high), 2.5 * low, low + share * torch.where(torch.isinf(high), 0.0, width))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2), dtype=torch.float64)


def _ridge(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of the weights, without the intercepts."""
    return _dot(a[..., :-1], b[..., :-1])
