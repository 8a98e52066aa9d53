"""Minimise many logistic objectives in lockstep: an iteration is two products with X for all of them."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.logistic_blocks import Blocks, Served
from engine.kernels.logistic_lbfgs import History, Preconditioner, Spectrum
from engine.kernels.logistic_loss import Targets
from engine.kernels.logistic_rows import Rows

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


@dataclass
class Problems:
    """P problems of K linear predictors each (one for two classes).

    Attributes:
        task: int64 [P], which targets.
        C: float64 [P], inverse regularisation.
        theta: float64 [P, K, d + 1], weights and intercept: start, then solution.
        objective, gradient_norm, decrement: float64 [P]; the decrement is the estimated height of the
            objective above its minimum, as a share of the objective.
        iterations: int64 [P].
        converged: bool [P], decrement at most the tolerance.
    """

    task: Tensor
    C: Tensor
    theta: Tensor
    objective: Tensor
    gradient_norm: Tensor
    decrement: Tensor
    iterations: Tensor
    converged: Tensor

    @classmethod
    def start(cls, task: Tensor, C: Tensor, theta: Tensor) -> "Problems":
        """Not yet iterated."""
        unknown = torch.full_like(C, torch.inf)
        done = torch.zeros_like(task)
        return cls(task, C, theta, unknown, unknown.clone(), unknown.clone(), done, done.bool())

    def take(self, which: Tensor) -> "Problems":
        """A copy of some problems."""
        return Problems(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def put(self, which: Tensor, others: "Problems") -> None:
        """Have some problems replaced."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[which] = getattr(others, name)


@dataclass(frozen=True)
class Limits:
    """When to stop: at an estimated relative distance from the minimum, or after so many iterations."""

    tolerance: float
    iterations: int


def descend(
    problems: Problems,
    rows: Rows,
    targets: Sequence[Targets],
    spectrum: Spectrum,
    blocks: Blocks,
    dtype: torch.dtype,
    limits: Limits,
    tick: Callable[[int], None],
) -> None:
    """Iterate until every problem has converged or stalled, in place.

    Args:
        targets: of each block of the rows, in `dtype`.
        blocks: that earlier calls have made, and to which this one may add.
        dtype: of products and predictors; sums over rows, objectives and weights are float64 in any case.
        tick: called with the number of problems that are left, once an iteration.
    """
    run = _Run(problems, rows, targets, spectrum, blocks, dtype)
    while len(run.active):
        tick(len(run.active))
        run.iterate(limits)


class _Run:
    """The active problems, aligned: row p of every tensor belongs to problem `active[p]`."""

    def __init__(
        self,
        problems: Problems,
        rows: Rows,
        targets: Sequence[Targets],
        spectrum: Spectrum,
        blocks: Blocks,
        dtype: torch.dtype,
    ) -> None:
        self._all, self._rows, self._targets, self._dtype = problems, rows, targets, dtype
        self.active = torch.arange(len(problems.C), device=problems.C.device)
        self._task, self._C = problems.task, problems.C
        self._theta = problems.theta.clone()
        self._predictors = rows.images(self._theta.to(dtype))
        loss, _, residuals = self._evaluate(self._predictors, None)
        self._objective = self._C * loss + _ridge(self._theta, self._theta) / 2
        self._gradient = self._full_gradient(residuals)
        size = self._theta[0].numel()
        self._history = History(len(self._C), size, MEMORY, dtype, rows.device)
        self._even = _even_curvature(targets)[self._task]
        self._blocks, self._began = blocks, rows.flops
        self._kronecker = Preconditioner(spectrum, len(rows), dtype, self._curvature())
        self._served = blocks.serve(self._task, self._variances())
        self._fresh = 0
        self._height = torch.full_like(self._C, torch.inf)  # the estimate when last looked at
        self._slow = torch.zeros_like(self._task, dtype=torch.bool)
        self._past: deque[Tensor] = deque(maxlen=_PATIENCE)
        self._count = 0

    def iterate(self, limits: Limits) -> None:
        """One direction, one line search, one gradient; those that need no more are put away first."""
        scaled = self._gradient.to(self._dtype)
        direction = self._history.direction(scaled, self._precondition)
        slope = _dot(self._gradient, direction)
        lost = ~(slope < 0) & (self._gradient != 0).any(2).any(1)
        if lost.any():  # rounding has spoilt the memory
            self._history.forget(lost)
            direction = self._history.direction(scaled, self._precondition)
            slope = _dot(self._gradient, direction)
        decrement = self._doubted((-slope / 2 / self._objective).clamp(min=0.0), limits.tolerance)
        # The estimate is too small where the curvature is taken too large; then steps still gain more.
        gained = self._past[-1] - self._objective if self._past else torch.zeros_like(decrement)
        calm = gained <= _CALM * limits.tolerance * self._objective
        ended = ~(slope < 0)  # at the minimum, to the last digit
        converged = ((decrement <= limits.tolerance) & (calm | ended)) | (self._objective == 0)
        stopped = converged | self._stalled(limits.tolerance) | ended
        if self._count >= limits.iterations:
            stopped[:] = True
        if stopped.any():
            self._put_away(stopped, converged, decrement)
            if not len(self.active):
                return
            direction, slope = direction[~stopped], slope[~stopped]
        self._step(direction, slope)

    def _step(self, direction: Tensor, slope: Tensor) -> None:
        self._count += 1
        self._past.append(self._objective)
        images = self._rows.images(direction)
        length, residuals = self._search(direction, images, slope)
        step = length[:, None, None] * direction.double()
        self._theta = self._theta + step
        gradient = self._full_gradient(residuals)
        change = gradient - self._gradient
        self._history.add(step.to(self._dtype).flatten(1), change.to(self._dtype).flatten(1))
        self._gradient = gradient
        if self._count & (self._count - 1) == 0 or self._count % _CHECK == 0:
            height = -slope / self._objective
            self._slow = height > _QUICK * self._height
            self._height = height
            self._refresh(torch.ones_like(self._slow), (self._rows.flops - self._began) / _SHARE)

    def _refresh(self, those: Tensor, budget: float = math.inf) -> None:
        """Have the preconditioners follow the problems, and make the blocks that some of them lack."""
        self._kronecker.update(self._curvature())
        variances = self._variances()
        some, slow = self._task[those], self._slow[those]
        if self._blocks.possible(len(torch.unique(some))) and self._blocks.cover(
            some, variances[those], slow, budget
        ):
            self._began = self._rows.flops
        before, self._served = self._served, self._blocks.serve(self._task, variances)
        # Pairs from where the curvature was another mislead more than they help.
        self._history.forget(before.differs(self._served))
        self._fresh = self._count

    def _variances(self) -> Tensor:
        """Weight p (1 - p) of every row, [P, K, n]."""
        blocks = zip(self._targets, self._predictors, strict=True)
        return torch.cat([of.of(self._task).variances(z) for of, z in blocks], dim=2)

    def _precondition(self, gradient: Tensor) -> Tensor:
        """By blocks where they serve, else by the Kronecker product."""
        which = self._served.by_blocks
        if not which.any():
            return self._kronecker(gradient)
        if which.all():
            return self._blocks.solve(self._served, gradient, self._C)
        found = self._kronecker(gradient)
        served = Served([b for b in self._served.blocks if b is not None], which.device)
        found[which] = self._blocks.solve(served, gradient[which], self._C[which])
        return found

    def _doubted(self, decrement: Tensor, tolerance: float) -> Tensor:
        """The estimate of those that claim to have converged, made anew with preconditioners of today.

        A Kronecker product is believed only where the rows' curvature is much the same: where it is not,
        blocks are made for the purpose. Neither sees all of a direction in which few rows differ, which
        counts where C is large: there the estimate has to be smaller by a factor.
        """
        claims = decrement <= tolerance
        if not claims.any():
            return decrement
        alike = (self._variances().sum(2, dtype=torch.float64) / self._even).amin(1)
        doubtful = claims & ((alike < _EVEN) | self._served.by_blocks)
        if doubtful.any() and self._blocks.possible(len(torch.unique(self._task[doubtful]))):
            if self._fresh < self._count or not self._served.by_blocks[doubtful].all():
                self._refresh(doubtful)
            other = _dot(self._gradient, self._precondition(self._gradient.to(self._dtype)))
            decrement = torch.where(
                doubtful, torch.maximum(decrement, other / 2 / self._objective), decrement
            )
        if self._dtype == torch.float32:  # would not show the difference
            return decrement
        factor = torch.where(self._served.by_blocks, _WITH_BLOCKS, _WITHOUT)
        return torch.where(alike < _ALIKE, factor * decrement, decrement)

    def _stalled(self, tolerance: float) -> Tensor:
        """Problems whose objective no longer falls by what would matter."""
        stalled = torch.zeros_like(self.active, dtype=torch.bool)
        single = self._dtype == torch.float32
        served = self._served.by_blocks
        for patience, least, which in (
            (_PATIENCE, tolerance, ~stalled),
            (_PATIENCE_SERVED, max(tolerance, _NOISE), served),
        ):
            if len(self._past) >= patience:
                gained = self._past[-patience] - self._objective
                stalled |= which & (gained <= (least if single else 0.0) * self._objective)
        return stalled

    def _put_away(self, stopped: Tensor, converged: Tensor, decrement: Tensor) -> None:
        which = self.active[stopped]
        before = self._all.iterations[which]
        self._all.put(
            which,
            Problems(
                self._task[stopped],
                self._C[stopped],
                self._theta[stopped],
                self._objective[stopped],
                self._gradient[stopped].flatten(1).norm(dim=1),
                decrement[stopped],
                before + self._count,
                converged[stopped],
            ),
        )
        left = ~stopped
        self.active, self._task, self._C = self.active[left], self._task[left], self._C[left]
        if not len(self.active):
            return
        self._theta, self._gradient = self._theta[left], self._gradient[left]
        self._objective = self._objective[left]
        self._predictors = [block[left] for block in self._predictors]
        self._past = deque((each[left] for each in self._past), maxlen=_PATIENCE)
        self._history.keep(left)
        self._kronecker.keep(left)
        self._served.keep(left)
        self._height, self._slow = self._height[left], self._slow[left]
        self._even = self._even[left]

    def _search(self, direction: Tensor, images: list[Tensor], slope: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Step lengths float64 [P] and the residuals there; moves predictors and objective.

        On predictors and their images under X: no product with X is needed. The objective along a line is
        convex, so its slope grows: a negative one is below the minimum, a positive one above.
        """
        across = _ridge(self._theta, direction)
        square = _ridge(direction, direction)
        ridge = _ridge(self._theta, self._theta) / 2
        noise = 4 * torch.finfo(self._dtype).eps * self._objective
        length = torch.ones_like(slope)
        low, low_slope = torch.zeros_like(slope), slope
        high, high_slope = torch.full_like(slope, torch.inf), torch.full_like(slope, torch.inf)
        for turn in range(_ROUNDS + 1):
            trial = [
                torch.addcmul(z, length.to(z.dtype)[:, None, None], image)
                for z, image in zip(self._predictors, images, strict=True)
            ]
            loss, along, residuals = self._evaluate(trial, images)
            objective = self._C * loss + ridge + length * across + length**2 * square / 2
            now = self._C * along + across + length * square
            falls = objective <= self._objective + noise
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
        self._predictors, self._objective = trial, objective
        return length, residuals

    def _evaluate(
        self, predictors: Sequence[Tensor], images: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Sums of losses and of derivatives along the images, float64 [P], and residuals of every block."""
        loss, along = torch.zeros_like(self._C), torch.zeros_like(self._C)
        residuals = []
        for i, (target, predictor) in enumerate(zip(self._targets, predictors, strict=True)):
            some, residual = target.of(self._task).evaluate(predictor)
            loss += some
            if images is not None:
                along += (residual * images[i]).sum((1, 2), dtype=torch.float64)
            residuals.append(residual)
        return loss, along, residuals

    def _full_gradient(self, residuals: Sequence[Tensor]) -> Tensor:
        gradient = self._C[:, None, None] * self._rows.gradients(residuals)
        gradient[..., :-1] += self._theta[..., :-1]
        return gradient

    def _curvature(self) -> Tensor:
        total: Tensor | float = 0.0
        for target, predictor in zip(self._targets, self._predictors, strict=True):
            total = total + target.of(self._task).curvature(predictor)
        return self._C[:, None, None] * total


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
