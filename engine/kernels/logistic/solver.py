"""Logistic regression for a whole path of regularisation values at once.

The objective is scikit-learn's (`LogisticRegression`, l2, C multiplies the sum of the losses):

    f(W, b) = 1/2 |W|^2 + C sum_i weight_i loss(W x_i + b, y_i)                                        (1)

with the softmax cross-entropy and K weight vectors for K > 2 classes, and one weight vector w with
log(1 + exp(-+(w x + b))) for K = 2. The intercepts b are not penalised. Three points are easily missed:

* The study's grid runs over 1 / C: `wd = logspace(-6, 5, 45)`, C = 1 / wd.
* A softmax with two weight vectors, which the study's scikit-learn fitted for two classes, has the same
  minimum as the binary form at twice its C: w = w_1 - w_0 with w_0 = -w_1, so |W|^2 = |w|^2 / 2.
* With `standardise`, (1) is stated for standardised features, whose W is penalised. `coef` and `intercept`
  are returned for the original features; `objective` and `gradient_norm` refer to the standardised ones.

Algorithm. f is smooth and strictly convex in W. All fits (values of C, classes, tasks) are iterated together:
their directions are the columns of one matrix, so that an iteration takes one product with X and one with X^T
for all of them. Directions come from L-BFGS (Liu and Nocedal 1989), with a preconditioner that is exact at
W = 0: C times the sum of the softmax Hessians (K x K), times the spectrum of X (`lbfgs`). Fits for which it
is poor use the diagonal blocks of the Hessian instead (`preconditioner`). The line search works on cached
linear predictors (`batched_lbfgs`). Only every fourth value of C is solved from a cold start; the others join
as soon as the fits on the path that they start from (`path`) are solved. With fewer rows than columns, X is
replaced by its coordinates in its row space, which does not change the solutions (`design_matrix`).

Precision. Products are float32 until the estimate of (f - min f) / f is at most 1e-6; then objective and
gradient of every fit are recomputed in float64 from the original features. Fits that are not within the
tolerance are iterated further: predictors and gradients stay float64, and float32 products of the steps and
of the changes of residuals are only added to them; in the end objective and gradient are recomputed once
more. Small problems are solved in float64 from the start. Sums over rows, objectives, weights and the
spectrum are float64 throughout.

Convergence. The estimate is half the squared Newton decrement with the approximate Hessian. With the
Kronecker product it is trusted only where all rows have similar curvature; elsewhere blocks are computed to
check it. Even then, float64 fits must reach a tenth of the tolerance, or a hundredth where there are no
blocks, since neither approximation captures what a feature that only few rows have can still gain at large C
if it separates classes. With these safety factors, fits that claimed 1e-7 were at most 5e-7 above the minimum
(4,608 x 768, ten classes, C = 1e6). The rigorous bound is f - min f <= |gradient|^2 / 2, because (1) is
strongly convex in W (constant 1) and the gradient in the intercepts vanishes: see `Fits.gap`. It is tight
enough to prove convergence for small C, and far too wide for large C.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine import malloc
from engine.errors import Refused
from engine.kernels.logistic import path as logistic_path
from engine.kernels.logistic.active_problems import MEMORY
from engine.kernels.logistic.batched_lbfgs import minimise
from engine.kernels.logistic.design_matrix import DesignMatrix
from engine.kernels.logistic.device_blocks import DeviceBlocks
from engine.kernels.logistic.device_lbfgs import minimise_on_device
from engine.kernels.logistic.fits import Fits
from engine.kernels.logistic.labels import count_classes, row_weights
from engine.kernels.logistic.lbfgs import Spectrum
from engine.kernels.logistic.loss import Targets
from engine.kernels.logistic.options import Options, Progress
from engine.kernels.logistic.preconditioner import HessianBlocks
from engine.kernels.logistic.state import Limits, Problems, Schedule
from engine.runtime import placed

__all__ = ["Fits", "Options", "Progress", "fit", "fit_many"]

#: Elements of X below which a fit uses one thread.
_SINGLE_THREAD_SIZE = 1 << 21
#: Estimated relative distance from the minimum at which fits change from float32 to float64. Closer to the
#: minimum, float32 struggles with its rounding, while float64 handles all fits in common products.
_FLOAT32_TOLERANCE = 1e-6
#: How often a fit is checked in float64 and, if necessary, iterated further.
_FLOAT64_CHECKS = 2
#: Rows per column below which no Hessian blocks are computed.
_MIN_ROWS_PER_COLUMN = 4


def fit(
    features: Any,
    targets: NDArray[np.integer[Any]],
    C: Sequence[float] | NDArray[np.floating[Any]],
    *,
    rows: NDArray[np.intp] | None = None,
    class_weight: str | Sequence[float] | None = None,
    standardise: tuple[NDArray[Any], NDArray[Any]] | None = None,
    options: Options | None = None,
    on_progress: Progress | None = None,
) -> Fits:
    """Fit one task with every value of C.

    Args:
        features: [N, d] float16, float32 or float64; numpy (possibly memory-mapped) or torch.
        targets: int [N], classes 0 to K - 1, each with at least one row; -1 excludes the row.
        C: positive, in any order; equal values are solved once.
        rows: positions of the rows to use; None means all.
        class_weight: None, `balanced` (n / (K n_k), as in scikit-learn) or K positive numbers.
        standardise: mean and scale [d] of the features; a scale of 0 counts as 1. The mean does not affect
            the fit, because the intercept is not penalised.

    Raises:
        Refused: fewer than two classes, a class without rows, C that is not positive, features that are not
            finite or differ in number from the targets.
    """
    targets = np.asarray(targets)
    if targets.ndim != 1:
        raise Refused(f"targets of shape {targets.shape}", "fit needs one class per row", "use fit_many")
    classes = count_classes(targets if rows is None else targets[rows])
    solver = _Solver(features, targets[:, None], classes, C, rows, class_weight, standardise, options)
    return solver.run(on_progress)[0]


def fit_many(
    features: Any,
    targets: NDArray[np.integer[Any]],
    C: Sequence[float] | NDArray[np.floating[Any]],
    *,
    rows: NDArray[np.intp] | None = None,
    class_weight: str | Sequence[float] | None = None,
    standardise: tuple[NDArray[Any], NDArray[Any]] | None = None,
    options: Options | None = None,
    on_progress: Progress | None = None,
) -> list[Fits]:
    """Fit T binary tasks (one against the rest) with every value of C, sharing the products with X.

    Args:
        targets: int [N, T], 0 or 1; -1 excludes the row from that task.

        Other arguments and errors are those of `fit`. Each task has the same solution as if fitted alone.
    """
    targets = np.asarray(targets)
    if targets.ndim != 2 or targets.shape[1] == 0 or targets.max(initial=0) > 1:
        raise Refused(
            f"targets of shape {targets.shape}, up to {targets.max(initial=0)}",
            "Tasks are columns of 0, 1 and -1",
            "use fit for more than two classes",
        )
    return _Solver(features, targets, 2, C, rows, class_weight, standardise, options).run(on_progress)


class _Solver:
    """Checked inputs, and the stages of a fit."""

    def __init__(
        self,
        features: Any,
        targets: NDArray[np.integer[Any]],
        classes: int,
        C: Sequence[float] | NDArray[np.floating[Any]],
        rows: NDArray[np.intp] | None,
        class_weight: str | Sequence[float] | None,
        standardise: tuple[NDArray[Any], NDArray[Any]] | None,
        options: Options | None,
    ) -> None:
        options = options or Options()
        self._memory = options.limit
        self._options = options
        values = np.atleast_1d(np.asarray(C, np.float64))
        if values.ndim != 1 or not len(values) or not (np.isfinite(values) & (values > 0)).all():
            raise Refused(
                f"C = {C}", "C is a list of positive numbers", "the study's is 1 / logspace(-6, 5, 45)"
            )
        if len(features) != len(targets):
            raise Refused(
                f"{len(features)} rows of features and {len(targets)} targets",
                "Each row needs one target",
                "pass arrays of the same length",
            )
        self._C, self._positions = np.unique(values, return_inverse=True)
        self._classes = classes
        index = np.arange(len(targets)) if rows is None else np.sort(np.asarray(rows, np.intp))
        index = index[(targets[index] >= 0).any(1)]
        self._on_cuda = options.device.startswith("cuda")
        self._codes = np.ascontiguousarray(targets[index].T).astype(np.intp)
        self._weights = np.stack([row_weights(c, classes, class_weight) for c in self._codes])
        self._features, self._index = features, index
        self._scale = None if standardise is None else standardise[1]
        self._seconds: dict[str, float] = {}

    def run(self, on_progress: Progress | None) -> list[Fits]:
        """Fit every task with every value of C; one `Fits` for each task."""
        options = self._options
        single_threaded = len(self._index) * self._features.shape[1] < _SINGLE_THREAD_SIZE
        allocator = contextlib.nullcontext() if single_threaded else malloc.retain_freed()
        with allocator, _threads(1 if single_threaded else options.threads), torch.inference_mode():
            with self._stage("prepare"):
                design = DesignMatrix.around_mean(
                    self._features, self._index, self._scale, options.device, self._memory // 2
                )
                basis = design.reduce()
            with self._stage("spectrum"):
                spectrum = Spectrum.of(design)
            problems = self._starting_problems(design)
            precision = torch.float64 if design.small else torch.float32
            # Blocks cost more than they save if iterations are very cheap or each block has only few rows.
            block_memory = (
                0
                if design.small or len(design) < _MIN_ROWS_PER_COLUMN * design.dim
                else self._memory * 5 // 16
            )
            kind = DeviceBlocks if self._on_cuda else HessianBlocks
            blocks = kind(design, spectrum, problems.theta.shape[1], precision, block_memory)
            curvature = spectrum, blocks
            tick = _ProgressCounter(on_progress, len(problems.C))
            schedule = self._schedule()
            if not design.small:
                float32_options = replace(options, tolerance=max(options.tolerance, _FLOAT32_TOLERANCE))
                with self._stage("float32"):
                    self._minimise(
                        problems, schedule, design, curvature, torch.float32, float32_options, tick
                    )
            with self._stage("float64"):
                if design.small:
                    self._minimise(problems, schedule, design, curvature, torch.float64, options, tick)
                else:
                    self._check_in_float64(problems, design, curvature, tick)
            weights = problems.theta[..., :-1]
            weights = weights if basis is None else weights @ basis.T
            downloaded = weights.cpu().numpy()
            self._seconds |= {"products": design.seconds, "blocks": blocks.seconds}
            return self._fits(problems, downloaded, design)

    def _starting_problems(self, design: DesignMatrix) -> Problems:
        """Return T * R problems at W = 0 and the optimal intercepts, grouped by task."""
        tasks, count = len(self._codes), len(self._C)
        outputs = self._classes if self._classes > 2 else 1
        class_weights = np.stack(
            [
                np.bincount(code[code >= 0], weight[code >= 0], self._classes)
                for code, weight in zip(self._codes, self._weights, strict=True)
            ]
        )
        logs = np.log(class_weights)
        intercepts = logs[:, 1:] - logs[:, :1] if outputs == 1 else logs - logs.mean(1, keepdims=True)
        theta = np.zeros((tasks * count, outputs, design.dim + 1))
        theta[..., -1] = np.repeat(intercepts, count, axis=0)
        device = self._options.device
        return Problems.start(
            placed(np.repeat(np.arange(tasks), count), device),
            placed(np.tile(self._C, tasks), device),
            placed(theta, device),
        )

    def _schedule(self) -> Schedule:
        """Return the schedule of every value of every task, in the order of the path."""
        order, weights = logistic_path.starts(np.log(self._C))
        offsets = np.arange(len(self._codes)) * len(self._C)
        return Schedule((order[:, None] + offsets).ravel(), weights)

    def _check_in_float64(
        self,
        problems: Problems,
        design: DesignMatrix,
        curvature: tuple[Spectrum, HessianBlocks],
        tick: "_ProgressCounter",
    ) -> None:
        """Check every fit with float64 products, and iterate further where it has not converged.

        Further steps multiply changes in float32. Fits that took any are therefore checked again.
        """
        positions, cold_starts = np.arange(len(problems.C)), np.zeros((len(self._C), len(self._C)))
        for options in (*[self._options] * _FLOAT64_CHECKS, replace(self._options, max_iterations=0)):
            iterations_before = problems.iterations.clone()
            self._minimise(
                problems, Schedule(positions, cold_starts), design, curvature, torch.float64, options, tick
            )
            positions = np.flatnonzero((problems.iterations > iterations_before).cpu().numpy())
            if not len(positions):
                break

    def _minimise(
        self,
        problems: Problems,
        schedule: Schedule,
        design: DesignMatrix,
        curvature: tuple[Spectrum, HessianBlocks],
        dtype: torch.dtype,
        options: Options,
        tick: "_ProgressCounter",
    ) -> None:
        """Solve scheduled problems, as many at a time as memory allows."""
        outputs, size = problems.theta.shape[1:]
        product_width = 8 if design.small else 4
        bytes_per_problem = outputs * (
            6 * torch.finfo(dtype).bits // 8 * len(design) + product_width * (2 * MEMORY + 12) * size
        )
        batch_size = max(1, self._memory * 3 // 16 // bytes_per_problem)
        limits = Limits(options.tolerance, options.max_iterations, batch_size)
        targets = Targets.blocks(
            self._codes, self._weights, self._classes, design.block_slices(), dtype, self._options.device
        )
        spectrum, blocks = curvature
        if isinstance(blocks, DeviceBlocks):
            minimise_on_device(problems, schedule, design, targets, spectrum, blocks, dtype, limits, tick)
        else:
            minimise(problems, schedule, design, targets, spectrum, blocks, dtype, limits, tick)

    def _fits(self, problems: Problems, weights: NDArray[np.float64], design: DesignMatrix) -> list[Fits]:
        coef = weights / design.scale
        intercept = problems.theta[..., -1].cpu().numpy() - coef @ design.centre
        fits = []
        of_all = {
            name: getattr(problems, name).cpu().numpy()
            for name in ("objective", "gradient_norm", "decrement", "iterations", "converged")
        }
        for task, code in enumerate(self._codes):
            positions = task * len(self._C) + self._positions
            results = {name: values[positions] for name, values in of_all.items()}
            fits.append(
                Fits(
                    C=self._C[self._positions],
                    coef=coef[positions],
                    intercept=intercept[positions],
                    classes=self._classes,
                    rows=int((code >= 0).sum()),
                    seconds=dict(self._seconds),
                    flops=design.flops,
                    **results,
                )
            )
        return fits

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _ProgressCounter:
    """Counter of solved problems and iterations that calls `on_progress`."""

    def __init__(self, on_progress: Progress | None, total: int) -> None:
        self._on_progress, self._total, self._iterations, self._done = on_progress, total, 0, 0

    def __call__(self, unsolved: int) -> None:
        self._iterations += 1
        self._done = max(self._done, self._total - unsolved)
        if self._on_progress is not None:
            self._on_progress(self._done, self._total, self._iterations)
