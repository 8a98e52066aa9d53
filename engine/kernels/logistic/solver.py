"""Logistic regression for a whole path of regularisation values at once.

The objective is scikit-learn's (`LogisticRegression`, l2, C multiplies the sum of the losses):

    f(W, b) = 1/2 |W|^2 + C sum_i weight_i loss(W x_i + b, y_i)                                        (1)

with the softmax cross-entropy and K weight vectors for K > 2 classes, and one weight vector w with
log(1 + exp(-+(w x + b))) for K = 2. The intercepts b are not penalised. Three things to keep in mind:

* The study's grid runs over 1 / C: `wd = logspace(-6, 5, 45)`, C = 1 / wd.
* A softmax with two weight vectors (what the study's scikit-learn fitted for two classes) has the minimum of
  the binary form at twice its C: w = w_1 - w_0 with w_0 = -w_1, so |W|^2 = |w|^2 / 2.
* With `standardise`, (1) is in the standardised features: W there is penalised. `coef` and `intercept` are
  given back for the features as they came; `objective` and `gradient_norm` refer to the standardised ones.

How it is solved. f is smooth and strictly convex in W. All values (classes, tasks) are iterated in lockstep:
their directions stand side by side, so that an iteration is one product with X and one with X^T for all of
them. Directions are L-BFGS's (Liu and Nocedal 1989), on a preconditioner that is exact at W = 0: C times the
sum of the softmax Hessians (K x K) times the spectrum of X (`logistic_lbfgs`); fits that it serves badly get
the diagonal blocks of the Hessian (`logistic_blocks`). The line search works on cached linear predictors
(`logistic_lockstep`). Only every fourth value starts from nothing; the others join once those on the path
that they start from (`logistic_path`) are done. With fewer rows than columns, X is replaced by its
coordinates in the space of its rows, which changes nothing (`logistic_rows`).

Precision. Products are in float32 until an estimate of (f - min f) / f is at most 1e-6; then objective and
gradient of every fit are computed anew in float64 from the features as they came. What is not within the
tolerance iterates on: predictors and gradients stay float64, and float32 products are only added to them, of
steps and of what residuals have changed since; in the end it is computed anew once more. Small problems are
solved in float64 from the start. Sums over rows, objectives, weights and the spectrum are float64 throughout.

The estimate is half the squared Newton decrement with the approximate Hessian. A Kronecker product's is
believed only where the rows' curvature is much the same; else blocks are made to check it. Then float64 asks
for a tenth of the tolerance, and where there are no blocks for a hundredth: neither sees what a feature that
few rows have can still gain at large C, if classes come apart in it. With these, fits that claimed 1e-7
were found 5e-7 above the minimum at worst (4,608 x 768, ten classes, C = 1e6). What is certain is
f - min f <= |gradient|^2 / 2, because (1) is strongly convex in W (constant 1) and the intercepts'
gradient vanishes: `Fits.gap` gives that bound. For small C it is tight enough to prove convergence, for
large C it is far too wide.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine import malloc
from engine.errors import Refused
from engine.kernels.logistic import path as logistic_path
from engine.kernels.logistic.batched_lbfgs import MEMORY, descend
from engine.kernels.logistic.design_matrix import Rows
from engine.kernels.logistic.lbfgs import Spectrum
from engine.kernels.logistic.loss import Targets
from engine.kernels.logistic.preconditioner import Blocks
from engine.kernels.logistic.state import Limits, Order, Problems

#: Called with (fits that have converged or stopped, at first in float32, fits in all, iterations so far).
Progress = Callable[[int, int, int], None]


#: Numbers in X below which a fit takes one thread.
_ONE_THREAD = 1 << 21
#: Estimated relative distance from the minimum at which fits leave float32: it goes further only against
#: its rounding, and in float64 all of them stand side by side.
_ROUGH = 1e-6
#: Times that float64 judges a fit and has it iterated on.
_JUDGED = 2
#: Rows a column below which fits do without blocks of Hessians.
_ROWS_A_COLUMN = 4


@dataclass(frozen=True)
class Options:
    """How to solve.

    Attributes:
        tolerance: estimated (f - min f) / f at which a fit has converged.
        max_iterations: of one fit in float32, and again each time, twice at most, that float64 wants more.
        device: `cpu` or `cuda:N`.
        threads: of torch's products on the CPU; None leaves torch's setting. A small problem takes one, since
            on busy cores threads wait for one another.
        memory: bytes that the solver may take beyond its inputs: half for rows, five sixteenths for blocks of
            Hessians, three for the fits that are iterated together. Rows that do not fit in their share
            as float32 are read and widened again in every pass.
    """

    tolerance: float = 1e-7
    max_iterations: int = 2000
    device: str = "cpu"
    threads: int | None = None
    memory: int = 4 << 30


@dataclass(frozen=True)
class Fits:
    """One classification task, fitted with R values of C, in the order asked.

    Attributes:
        C: float64 [R].
        coef: float64 [R, K', d] for the features as they came; K' = 1 for two classes, else K.
        intercept: float64 [R, K'].
        objective: float64 [R], equation (1).
        gradient_norm: float64 [R], Euclidean, of (1) by W and b (of centred and, if asked, standardised
            features; b is the intercept at their mean).
        decrement: float64 [R], estimated (objective - minimum) / objective; a multiple of it where estimates
            may be too small.
        iterations: int64 [R], products with X and X^T that the fit took.
        converged: bool [R], the decrement is at most the tolerance.
        classes: K.
        rows: that were used.
        seconds: wall clock of `prepare`, `spectrum`, `float32`, `float64` and, within these, `products` with
            X and making `blocks`; of all tasks that were fitted together.
        flops: floating-point operations of the products with X, of all tasks that were fitted together.
    """

    C: NDArray[np.float64]
    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    objective: NDArray[np.float64]
    gradient_norm: NDArray[np.float64]
    decrement: NDArray[np.float64]
    iterations: NDArray[np.int64]
    converged: NDArray[np.bool_]
    classes: int
    rows: int
    seconds: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0

    @property
    def gap(self) -> NDArray[np.float64]:
        """Upper bound of objective - minimum, float64 [R]: proven, and wide where C is large."""
        bound: NDArray[np.float64] = self.gradient_norm**2 / 2
        return bound

    def scores(self, features: Any, r: int, rows: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
        """Class probabilities float64 [n, K] of the fit with C[r]; see `path_scores`."""
        found: NDArray[np.float64] = self.path_scores(features, rows, [r])[0]
        return found

    def path_scores(
        self, features: Any, rows: NDArray[np.intp] | None = None, which: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """Class probabilities float64 [len(which), n, K] of several fits (all), reading the features once.

        Args:
            features: [N, d] as in `fit`; rows that are not finite give NaN.
            rows: of the features; None means all.
            which: positions in C.
        """
        which = range(len(self.C)) if which is None else which
        rows = np.arange(len(features)) if rows is None else rows
        coef, intercept = self.coef[list(which)], self.intercept[list(which)]
        flat = coef.reshape(-1, coef.shape[-1]).T
        found = np.empty((len(coef), len(rows), self.classes))
        for start in range(0, len(rows), 1024):
            part = rows[start : start + 1024]
            block = features[part]
            x = np.asarray(block.cpu() if isinstance(block, torch.Tensor) else block, dtype=np.float64)
            z = (x @ flat).reshape(len(x), *coef.shape[:2]).swapaxes(0, 1) + intercept[:, None]
            found[:, start : start + len(x)] = _probabilities(z)
        return found


def _probabilities(z: NDArray[np.float64]) -> NDArray[np.float64]:
    if z.shape[-1] == 1:
        z = np.concatenate([np.zeros_like(z), z], axis=-1)
    e = np.exp(z - z.max(-1, keepdims=True))
    found: NDArray[np.float64] = e / e.sum(-1, keepdims=True)
    return found


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
        features: [N, d] float16, float32 or float64; numpy (may be a mapping of files) or torch.
        targets: int [N], classes 0 to K - 1, each of which some row has; -1 leaves the row out.
        C: positive, in any order; equal values are solved once.
        rows: positions to use; None means all.
        class_weight: None, `balanced` (n / (K n_k), as scikit-learn) or K positive numbers.
        standardise: mean and scale [d] of the features; a scale of 0 counts as 1. The mean changes no fit,
            because the intercept is free.

    Raises:
        Refused: fewer than two classes, a class without rows, C that is not positive, features of another
            length or not finite.
    """
    targets = np.asarray(targets)
    if targets.ndim != 1:
        raise Refused(f"targets of shape {targets.shape}", "One class a row is needed", "use fit_many")
    classes = _classes(targets if rows is None else targets[rows])
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
        targets: int [N, T], 0 or 1; -1 leaves the row out of that task.

    Others, and what is raised, as for `fit`. Each task has the solution that it would have alone.
    """
    targets = np.asarray(targets)
    if targets.ndim != 2 or targets.shape[1] == 0 or targets.max(initial=0) > 1:
        raise Refused(
            f"targets of shape {targets.shape}, up to {targets.max(initial=0)}",
            "Tasks are columns of 0, 1 and -1",
            "use fit for more than two classes",
        )
    return _Solver(features, targets, 2, C, rows, class_weight, standardise, options).run(on_progress)


def _classes(targets: NDArray[np.integer[Any]]) -> int:
    """K, where every class below K has a row."""
    there = np.unique(targets[targets >= 0])
    if len(there) < 2:
        raise Refused(
            f"{len(there)} class among {int((targets >= 0).sum())} labelled rows",
            "A classifier needs at least two classes",
            "check the label column and the rows chosen",
        )
    if len(there) <= there[-1]:
        missing = int(np.setdiff1d(np.arange(there[-1]), there)[0])
        raise Refused(
            f"class {missing} without a row", "Every class is fitted from rows", "number those there"
        )
    return len(there)


class _Solver:
    """Checked input, and the stages of a fit."""

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
        self._options = options or Options()
        asked = np.atleast_1d(np.asarray(C, np.float64))
        if asked.ndim != 1 or not len(asked) or not (np.isfinite(asked) & (asked > 0)).all():
            raise Refused(
                f"C = {C}", "C is a list of positive numbers", "the study's is 1 / logspace(-6, 5, 45)"
            )
        if len(features) != len(targets):
            raise Refused(
                f"{len(features)} features, {len(targets)} targets", "They belong together", "align them"
            )
        self._C, self._place = np.unique(asked, return_inverse=True)
        self._classes = classes
        index = np.arange(len(targets)) if rows is None else np.sort(np.asarray(rows, np.intp))
        index = index[(targets[index] >= 0).any(1)]
        self._codes = np.ascontiguousarray(targets[index].T).astype(np.intp)
        self._weights = np.stack([_row_weights(c, classes, class_weight) for c in self._codes])
        self._features, self._index = features, index
        self._scale = None if standardise is None else standardise[1]
        self._seconds: dict[str, float] = {}

    def run(self, on_progress: Progress | None) -> list[Fits]:
        options = self._options
        small = len(self._index) * self._features.shape[1] < _ONE_THREAD
        memory = contextlib.nullcontext() if small else malloc.kept()
        with memory, _threads(1 if small else options.threads), torch.inference_mode():
            with self._stage("prepare"):
                rows = Rows.of(self._features, self._index, self._scale, options.device, options.memory // 2)
                basis = rows.reduce()
            with self._stage("spectrum"):
                spectrum = Spectrum.of(rows)
            problems = self._start(rows)
            precision = torch.float64 if rows.small else torch.float32
            # Blocks cost more than they save where an iteration costs next to nothing, or few rows make each.
            room = 0 if rows.small or len(rows) < _ROWS_A_COLUMN * rows.dim else options.memory * 5 // 16
            blocks = Blocks(rows, spectrum, problems.theta.shape[1], precision, room)
            curvature = spectrum, blocks
            tick = _Ticker(on_progress, len(problems.C))
            path = self._path()
            if not rows.small:
                rough = replace(options, tolerance=max(options.tolerance, _ROUGH))
                with self._stage("float32"):
                    self._descend(problems, path, rows, curvature, torch.float32, rough, tick)
            with self._stage("float64"):
                if rows.small:
                    self._descend(problems, path, rows, curvature, torch.float64, options, tick)
                else:
                    self._confirm(problems, rows, curvature, tick)
            self._seconds |= {"products": rows.seconds, "blocks": blocks.seconds}
            weights = problems.theta[..., :-1]
            weights = weights if basis is None else weights @ basis.T
            return self._fits(problems, weights.cpu().numpy(), rows)

    def _start(self, rows: Rows) -> Problems:
        """W = 0 and the intercepts that are best then, [T * R] problems, the values of a task together."""
        tasks, count = len(self._codes), len(self._C)
        outputs = self._classes if self._classes > 2 else 1
        shares = np.stack(
            [
                np.bincount(code[code >= 0], weight[code >= 0], self._classes)
                for code, weight in zip(self._codes, self._weights, strict=True)
            ]
        )
        logs = np.log(shares)
        best = logs[:, 1:] - logs[:, :1] if outputs == 1 else logs - logs.mean(1, keepdims=True)
        theta = np.zeros((tasks * count, outputs, rows.dim + 1))
        theta[..., -1] = np.repeat(best, count, axis=0)
        device = self._options.device
        return Problems.start(
            torch.from_numpy(np.repeat(np.arange(tasks), count)).to(device),
            torch.from_numpy(np.tile(self._C, tasks)).to(device),
            torch.from_numpy(theta).to(device),
        )

    def _path(self) -> Order:
        """Every value of every task, in the order of the path."""
        order, weights = logistic_path.starts(np.log(self._C))
        tasks = np.arange(len(self._codes)) * len(self._C)
        return Order((order[:, None] + tasks).ravel(), weights)

    def _confirm(
        self, problems: Problems, rows: Rows, curvature: tuple[Spectrum, Blocks], tick: "_Ticker"
    ) -> None:
        """Judge every fit by float64 products, and go on where it has not converged.

        Further steps are products in float32 of what changes. So those that took any are judged again.
        """
        left, own = np.arange(len(problems.C)), np.zeros((len(self._C), len(self._C)))
        for options in (*[self._options] * _JUDGED, replace(self._options, max_iterations=0)):
            before = problems.iterations.clone()
            self._descend(problems, Order(left, own), rows, curvature, torch.float64, options, tick)
            left = np.flatnonzero((problems.iterations > before).cpu().numpy())
            if not len(left):
                break

    def _descend(
        self,
        problems: Problems,
        order: Order,
        rows: Rows,
        curvature: tuple[Spectrum, Blocks],
        dtype: torch.dtype,
        options: Options,
        tick: "_Ticker",
    ) -> None:
        """Solve problems, as many at a time as memory allows."""
        outputs, size = problems.theta.shape[1:]
        product_width = 8 if rows.small else 4
        bytes_each = outputs * (
            6 * torch.finfo(dtype).bits // 8 * len(rows) + product_width * (2 * MEMORY + 12) * size
        )
        together = max(1, options.memory * 3 // 16 // bytes_each)
        limits = Limits(options.tolerance, options.max_iterations, together)
        targets = Targets.blocks(
            self._codes, self._weights, self._classes, rows.slices(), dtype, self._options.device
        )
        descend(problems, order, rows, targets, *curvature, dtype, limits, tick)

    def _fits(self, problems: Problems, weights: NDArray[np.float64], rows: Rows) -> list[Fits]:
        coef = weights / rows.scale
        intercept = problems.theta[..., -1].cpu().numpy() - coef @ rows.centre
        found = []
        for task, code in enumerate(self._codes):
            at = task * len(self._C) + self._place
            numbers = {
                name: getattr(problems, name).cpu().numpy()[at]
                for name in ("objective", "gradient_norm", "decrement", "iterations", "converged")
            }
            found.append(
                Fits(
                    C=self._C[self._place],
                    coef=coef[at],
                    intercept=intercept[at],
                    classes=self._classes,
                    rows=int((code >= 0).sum()),
                    seconds=dict(self._seconds),
                    flops=rows.flops,
                    **numbers,
                )
            )
        return found

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start


def _row_weights(
    codes: NDArray[np.intp], classes: int, class_weight: str | Sequence[float] | None
) -> NDArray[np.float64]:
    """Weight of every row's loss, float64 [n]; 0 where the code is -1."""
    there = codes >= 0
    counts = np.bincount(codes[there], minlength=classes)
    if (counts == 0).any():
        raise Refused(
            f"{int((counts > 0).sum())} of {classes} classes among {int(there.sum())} rows of a task",
            "Every class is fitted from rows",
            "leave that task out",
        )
    if class_weight is None:
        each = np.ones(classes)
    elif isinstance(class_weight, str):
        if class_weight != "balanced":
            raise Refused(f"class weight {class_weight!r}", "It is balanced, or K numbers", "use balanced")
        each = there.sum() / (classes * counts)
    else:
        each = np.asarray(class_weight, np.float64)
        if each.shape != (classes,) or not (np.isfinite(each) & (each > 0)).all():
            raise Refused(
                f"class weights {class_weight}", f"{classes} positive numbers are needed", "give them"
            )
    return np.where(there, each[codes.clip(min=0)], 0.0)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Ticker:
    """Counts for `on_progress`."""

    def __init__(self, report: Progress | None, total: int) -> None:
        self._report, self._total, self._iterations, self._done = report, total, 0, 0

    def __call__(self, left: int) -> None:
        self._iterations += 1
        self._done = max(self._done, self._total - left)
        if self._report is not None:
            self._report(self._done, self._total, self._iterations)
