"""Minimise many logistic objectives in lockstep: an iteration is two products with X for all of them."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.logistic_lbfgs import History, Preconditioner, Spectrum
from engine.kernels.logistic_loss import Targets
from engine.kernels.logistic_newton import Newton, mean_curvature
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
    newton: Newton,
    dtype: torch.dtype,
    limits: Limits,
    tick: Callable[[int], None],
) -> None:
    """Iterate until every problem has converged or stalled, in place.

    Args:
        targets: of each block of the rows, in `dtype`.
        newton: factors that earlier calls have made, and to which this one may add.
        dtype: of products and predictors; sums over rows, objectives and weights are float64 in any case.
        tick: called with the number of problems that are left, once an iteration.
    """
    run = _Run(problems, rows, targets, spectrum, newton, dtype)
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
        newton: Newton,
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
        curvature = self._curvature()
        self._kronecker = Preconditioner(spectrum, len(rows), dtype, curvature)
        self._newton = newton
        newton.begin()
        self._served = newton.serves(self._task, self._C, mean_curvature(curvature) / self._C)
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
        due = self._newton.due(self._task, self._C)
        if due:
            self._newton.build(self._task, self._C, self._targets, self._predictors)
        if due or self._count & (self._count - 1) == 0:  # after 1, 2, 4, 8, ... steps
            self._refresh()

    def _refresh(self) -> None:
        curvature = self._curvature()
        self._kronecker.update(curvature)
        self._served = self._newton.serves(self._task, self._C, mean_curvature(curvature) / self._C)

    def _doubted(self, decrement: Tensor, tolerance: float) -> Tensor:
        """The estimate, or the one by today's Kronecker product where it is larger and a factor was used.

        A factor may be older than the problem's last turn, and then take as curved what has become flat.
        """
        used = self._served >= 0
        if not (used & (decrement <= tolerance)).any():
            return decrement
        self._refresh()
        other = _dot(self._gradient, self._kronecker(self._gradient.to(self._dtype))) / 2 / self._objective
        return torch.where(used, torch.maximum(decrement, other), decrement)

    def _precondition(self, gradient: Tensor) -> Tensor:
        """By Newton's factors where they serve, else by the Kronecker product."""
        found = self._kronecker(gradient)
        for factor in torch.unique(self._served[self._served >= 0]).tolist():
            which = self._served == factor
            found[which] = self._newton.solve(factor, gradient[which], self._C[which])
        return found

    def _stalled(self, tolerance: float) -> Tensor:
        """Problems whose objective no longer falls by what would matter."""
        none = torch.zeros_like(self.active, dtype=torch.bool)
        if len(self._past) < _PATIENCE:
            return none
        gained = self._past[0] - self._objective
        return gained <= (tolerance if self._dtype == torch.float32 else 0.0) * self._objective

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
        self._served = self._served[left]

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
