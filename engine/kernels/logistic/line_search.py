"""Line search of the batched solver, on cached linear predictors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.logistic.loss import Targets
from engine.kernels.logistic.state import ActiveSet

#: The line search ends once the slope is at most this share of the initial one, in magnitude.
_SLOPE = 0.3
#: Trial step lengths after the first, at most.
_ROUNDS = 20
#: Trial step lengths where the host must not look whether one is accepted.
_UNREAD_TRIALS = 2


def search(
    active: ActiveSet, targets: Sequence[Targets], direction: Tensor, images: list[Tensor], slope: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Return step lengths float64 [P] and the residuals there; move predictors and objectives.

    Works on predictors and on X times the directions, so that no further product with X is needed. Along
    a line the objective is convex and its slope increases: a trial with a negative slope lies short of
    the minimum, one with a positive slope beyond it.

    Args:
        targets: one for each block of rows.
        direction: [P, K, d + 1].
        images: X times the directions, [P, K, rows] for each block of rows.
        slope: float64 [P], derivative of the objective along the direction; negative.
    """
    line, bracket = _Line(active, targets, direction, images, slope), _Bracket(slope)
    length = torch.ones_like(slope)
    for turn in range(_ROUNDS + 1):
        point = line.at(length)
        if bool(point.accepted.all()) or turn == _ROUNDS:
            break
        next_length = bracket.narrowed(length, point)
        if turn == _ROUNDS - 1:
            next_length = bracket.low  # out of trials: a step that certainly descends, or none
        length = line.rounded(torch.where(point.accepted, length, next_length))
    line.move_to(point)
    return length, point.residuals


def search_unread(
    active: ActiveSet,
    targets: Sequence[Targets],
    direction: Tensor,
    images: list[Tensor],
    slope: Tensor,
    first: Tensor,
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Search like `search`, without the host's reading a number: every problem gets the same few trials.

    A problem that has accepted none of them takes a shorter step that descends; if it knows none, it stays,
    and its next search begins where this one has ended.

    Args:
        first: float64 [P], first trial step lengths. A slope of 0 accepts any: its direction is to be 0.

        Other arguments are those of `search`.

    Returns:
        Step lengths and residuals as of `search`, and the first step lengths of the next search.
    """
    line, bracket = _Line(active, targets, direction, images, slope), _Bracket(slope)
    length = proposed = first
    for _ in range(_UNREAD_TRIALS):
        point = line.at(length)
        proposed = torch.where(point.accepted, length, bracket.narrowed(length, point))
        taken = torch.where(point.accepted, length, bracket.low)
        length = line.rounded(proposed)
    taken = line.rounded(taken)
    point = line.at(taken)
    line.move_to(point)
    return taken, point.residuals, torch.where(taken > 0, 1.0, proposed)


@dataclass(frozen=True)
class _Point:
    """P objectives at step lengths.

    Attributes:
        predictors, residuals: [P, K, rows] for each block of rows.
        objective, slope: float64 [P].
        decreases: bool [P], whether the objective is at most that at the start, but for rounding.
        accepted: bool [P], whether the search may end here.
    """

    predictors: list[Tensor]
    residuals: list[Tensor]
    objective: Tensor
    slope: Tensor
    decreases: Tensor
    accepted: Tensor


class _Line:
    """The objectives of an active set along directions; arguments as of `search`."""

    def __init__(
        self,
        active: ActiveSet,
        targets: Sequence[Targets],
        direction: Tensor,
        images: list[Tensor],
        slope: Tensor,
    ) -> None:
        self._active, self._targets, self._images, self._slope = active, targets, images, slope
        self._dtype = active.predictors[0].dtype
        self._ridge_slope = ridge(active.theta, direction)
        self._ridge_curvature = ridge(direction, direction)
        self._penalty = ridge(active.theta, active.theta) / 2
        self._noise = 4 * torch.finfo(self._dtype).eps * active.objective

    def at(self, length: Tensor) -> _Point:
        """Evaluate at step lengths, float64 [P]."""
        active = self._active
        trial = [
            torch.addcmul(z, length.to(z.dtype)[:, None, None], image)
            for z, image in zip(active.predictors, self._images, strict=True)
        ]
        loss, along, residuals = evaluate(self._targets, active.task, trial, self._images)
        ridge_change = length * self._ridge_slope
        objective = active.C * loss + self._penalty + ridge_change + length**2 * self._ridge_curvature / 2
        slope = active.C * along + self._ridge_slope + length * self._ridge_curvature
        decreases = objective <= active.objective + self._noise
        accepted = (slope.abs() <= -_SLOPE * self._slope) & decreases
        return _Point(trial, residuals, objective, slope, decreases, accepted)

    def rounded(self, length: Tensor) -> Tensor:
        """Return lengths in the precision in which they move the predictors."""
        return length.to(self._dtype).double()

    def move_to(self, point: _Point) -> None:
        """Give the active set the predictors and objectives of a point."""
        active = self._active
        active.past_objectives = torch.cat([active.past_objectives[:, 1:], active.objective[:, None]], dim=1)
        active.predictors, active.objective = point.predictors, point.objective


class _Bracket:
    """Step lengths, float64 [P], between which the slope changes its sign.

    Attributes:
        low: the longest ones known to descend, at first 0.
    """

    def __init__(self, slope: Tensor) -> None:
        self.low, self._low_slope = torch.zeros_like(slope), slope
        self._high, self._high_slope = torch.full_like(slope, torch.inf), torch.full_like(slope, torch.inf)

    def narrowed(self, length: Tensor, point: _Point) -> Tensor:
        """Take a trial into account; return the next trial lengths."""
        below = (point.slope < 0) & point.decreases
        low, low_slope, high, high_slope = self.low, self._low_slope, self._high, self._high_slope
        self.low = torch.where(below, length, low)
        self._low_slope = torch.where(below, point.slope, low_slope)
        self._high = torch.where(below, high, length)
        self._high_slope = torch.where(below, high_slope, point.slope)
        return _between(self.low, self._low_slope, self._high, self._high_slope)


def evaluate(
    targets: Sequence[Targets], task: Tensor, predictors: Sequence[Tensor], images: Sequence[Tensor] | None
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return sums of losses and of slopes along the images, float64 [P], and residuals by block.

    Args:
        targets: one for each block of rows.
        task: int64 [P], whose targets are fitted.
        predictors: linear predictors, [P, K, rows] for each block of rows.
        images: X times directions, of the same shapes; None if no slopes are needed.
    """
    loss = torch.zeros(len(task), dtype=torch.float64, device=task.device)
    along = torch.zeros_like(loss)
    if not len(task):
        return loss, along, list(predictors)
    residuals = []
    for i, (target, predictor) in enumerate(zip(targets, predictors, strict=True)):
        block_loss, residual = target.of(task).evaluate(predictor)
        loss += block_loss
        if images is not None:
            along += (residual * images[i]).sum((1, 2), dtype=torch.float64)
        residuals.append(residual)
    return loss, along, residuals


def _between(low: Tensor, low_slope: Tensor, high: Tensor, high_slope: Tensor) -> Tensor:
    """Return the next trial step length.

    The zero of the slope's secant, kept well inside the bracket; 2.5 times the length while there is no upper
    end yet.
    """
    width = high - low
    share = (low_slope / (low_slope - high_slope)).nan_to_num(0.5).clamp(0.1, 0.9)
    return torch.where(torch.isinf(high), 2.5 * low, low + share * torch.where(torch.isinf(high), 0.0, width))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return inner products, float64 [P], of tensors [P, K, d]."""
    return (a * b).sum((1, 2), dtype=torch.float64)


def ridge(a: Tensor, b: Tensor) -> Tensor:
    """Return inner products of the weights, without the intercepts."""
    return dot(a[..., :-1], b[..., :-1])
