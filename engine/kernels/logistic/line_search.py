"""Line search of the batched solver, on cached linear predictors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.kernels.logistic.loss import Targets
from engine.kernels.logistic.state import ActiveSet

#: The line search ends once the slope is at most this share of the initial one, in magnitude.
_SLOPE = 0.3
#: Trial step lengths after the first, at most.
_ROUNDS = 20


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
    dtype = active.predictors[0].dtype
    ridge_slope = ridge(active.theta, direction)
    ridge_curvature = ridge(direction, direction)
    penalty = ridge(active.theta, active.theta) / 2
    noise = 4 * torch.finfo(dtype).eps * active.objective
    length = torch.ones_like(slope)
    low, low_slope = torch.zeros_like(slope), slope
    high, high_slope = torch.full_like(slope, torch.inf), torch.full_like(slope, torch.inf)
    for turn in range(_ROUNDS + 1):
        trial = [
            torch.addcmul(z, length.to(z.dtype)[:, None, None], image)
            for z, image in zip(active.predictors, images, strict=True)
        ]
        loss, along, residuals = evaluate(targets, active.task, trial, images)
        objective = active.C * loss + penalty + length * ridge_slope + length**2 * ridge_curvature / 2
        trial_slope = active.C * along + ridge_slope + length * ridge_curvature
        decreases = objective <= active.objective + noise
        accepted = (trial_slope.abs() <= -_SLOPE * slope) & decreases
        if bool(accepted.all()) or turn == _ROUNDS:
            break
        below = (trial_slope < 0) & decreases
        low, low_slope = torch.where(below, length, low), torch.where(below, trial_slope, low_slope)
        high, high_slope = torch.where(below, high, length), torch.where(below, high_slope, trial_slope)
        next_length = _between(low, low_slope, high, high_slope)
        if turn == _ROUNDS - 1:
            next_length = low  # out of trials: a step that certainly descends, or none
        # Rounded to the precision in which it moves the predictors.
        length = torch.where(accepted, length, next_length).to(dtype).double()
    active.past_objectives = torch.cat([active.past_objectives[:, 1:], active.objective[:, None]], dim=1)
    active.predictors, active.objective = trial, objective
    return length, residuals


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
