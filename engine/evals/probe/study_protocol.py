"""The study's linear probe as it was made (`as-published`), and how far its fits were from convergence.

scikit-learn's LogisticRegression on features as they are, float32. The weight decay runs over
logspace(-6, 5, 45) in this order, C = 1 / weight decay, each fit started from the one before and stopped
after 100 iterations. The C with the strictly best validation score wins, so that of equal ones the weakest
regularisation does; the fit on train + validation starts from the last one of the grid (weight decay 1e5).

Two things have changed in scikit-learn since. Its multinomial form for two classes is gone: the binary form
at 2 C has the same solution. And since 1.4 its tolerance is compared with the gradient of the mean loss, not
of the sum: the study's 1e-4 is 1e-4 / n now. Its second stopping rule, by the change of the objective, was
looser then (2e-9 of the sum) and cannot be set.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.validity import Severity, ValidityIssue, issue
from engine.evals.probe import solvers
from engine.evals.probe.parts import Parts
from engine.kernels import metrics
from engine.kernels.logistic.objective import measure
from engine.kernels.metrics import Evaluation

Metric = Literal["accuracy", "mean_per_class_accuracy"]

#: In the study's order.
WEIGHT_DECAY: tuple[float, ...] = tuple(np.logspace(-6, 5, 45).tolist())
MOST_ITERATIONS, TOLERANCE = 100, 1e-4
#: Largest excess of a converged fit.
CONVERGED = 1e-6


@dataclass(frozen=True)
class PublishedFit:
    """Result of one fit of the study's loop.

    Attributes:
        weight_decay: 1 / C, of the multinomial form.
        val_score: on validation; NaN for the final fit, which has none.
        iterations: of L-BFGS.
        stopped: whether the limit of iterations (or the line search) stopped it.
        objective: at the end, float64; of the binary form at 2 C where there are two classes.
        gradient_norm: of it.
        excess: (objective - converged objective) / converged objective; NaN if not requested.
        converged: it was not stopped, and excess, if known, is at most 1e-6. scikit-learn itself calls fits
            converged that are not: on separable classes the mean loss hardly changes any more.
    """

    weight_decay: float
    val_score: float
    iterations: int
    stopped: bool
    objective: float
    gradient_norm: float
    excess: float

    @property
    def converged(self) -> bool:
        return not self.stopped and not self.excess > CONVERGED


@dataclass(frozen=True)
class Published:
    """The study's probe of one task.

    Attributes:
        metric: the score that C is chosen by and the test part is judged by.
        sweep: in the order of the grid.
        best: position of the chosen one.
        final: the fit on train + validation.
        test: all metrics on test; `metric` is the study's.
        unseen: classes that no row trained on had.
        probabilities: float64 [tests, K].
        seconds: by stage.
    """

    metric: Metric
    sweep: tuple[PublishedFit, ...]
    best: int
    final: PublishedFit
    test: Evaluation
    unseen: tuple[int, ...]
    probabilities: NDArray[np.float64]
    seconds: dict[str, float]

    @property
    def best_C(self) -> float:
        """Of the multinomial form, as the study counts it: 1 / weight decay."""
        return 1 / self.sweep[self.best].weight_decay

    @property
    def validity(self) -> Iterator[ValidityIssue]:
        """Issues of the choice and of the fits."""
        if self.best in (0, len(self.sweep) - 1):
            side = "largest" if self.best == 0 else "smallest"
            text = f"The chosen C {self.best_C:g} is the {side} of the grid: a better one may lie beyond it"
            yield issue("grid_edge", text, self.best_C, remedy="choose another grid in the default mode")
        far = sum(not fit.converged for fit in (*self.sweep, self.final))
        if far:
            severity: Severity = "warning" if self.final.converged else "error"
            remedy = "probe in the default mode, whose fits converge"
            yield issue("fits_not_converged", self.convergence, far, severity=severity, remedy=remedy)

    @property
    def convergence(self) -> str:
        """One sentence for a report."""
        stopped = sum(fit.stopped for fit in self.sweep)
        said = (
            f"{stopped} of {len(self.sweep)} fits were stopped before their tolerance was met, the final fit "
            f"{'as well' if self.final.stopped else 'was not'}"
        )
        excess = [fit.excess for fit in self.sweep]
        if np.isnan(excess).all():
            return said
        far = sum(not fit.converged for fit in self.sweep)
        return (
            f"{said}; {far} did not converge: objectives end up to {np.nanmax(excess):.2g} (median "
            f"{np.nanmedian(excess):.2g}) of their converged values above these, the chosen one "
            f"{excess[self.best]:.2g}, the final fit {self.final.excess:.2g}"
        )


def published(
    features: NDArray[Any],
    codes: NDArray[np.integer[Any]],
    classes: int,
    parts: Parts,
    *,
    metric: Metric = "accuracy",
    compare: solvers.Settings | None = None,
    on_progress: solvers.Progress | None = None,
) -> Published:
    """Run the study's loop on one task.

    Args:
        features: [N, d], any float type; the study's were float32.
        codes: [N] classes from 0, negative where masked.
        classes: K; some may have no row to train on.
        parts: with validation cut by `splits` in mode `as-published`.
        metric: accuracy, or mean per-class accuracy, which the study took for EyePACS and STOIC.
        compare: how to find the converged objectives that the fits are compared with; None does not.
        on_progress: called with (fits done, to do).
    """
    loop = _Loop(classes, {"accuracy": metrics.accuracy}.get(metric, metrics.mean_per_class_accuracy))
    clock = time.perf_counter()
    train, val, both = (_Rows.of(features, codes, rows) for rows in (parts.train, parts.val, parts.refit))
    fits: list[_Fit] = []
    for decay in WEIGHT_DECAY:
        fits.append(loop.fit(train, decay, val))
        if on_progress:
            on_progress(len(fits), len(WEIGHT_DECAY) + 1)
    best = int(np.argmax([fit.val_score for fit in fits]))  # the first of the largest
    seconds = {"sweep": time.perf_counter() - clock}
    final = loop.fit(both, WEIGHT_DECAY[best])
    if on_progress:
        on_progress(len(WEIGHT_DECAY) + 1, len(WEIGHT_DECAY) + 1)
    probabilities = loop.probabilities(_Rows.of(features, codes, parts.test).x)
    unseen = tuple(np.setdiff1d(np.arange(classes), both.known).tolist())
    test = Evaluation.of(codes[parts.test], probabilities, unseen=unseen)
    seconds["refit"] = time.perf_counter() - clock - seconds["sweep"]
    sweep, (last,) = _judged(train, fits, compare), _judged(both, [final], compare)
    seconds["compare"] = time.perf_counter() - clock - sum(seconds.values())
    return Published(metric, tuple(sweep), best, last, test, unseen, probabilities, seconds)


def strength(decay: float, classes: int) -> float:
    """Return C of today's scikit-learn for a weight decay of the study's multinomial form."""
    return (2 if classes == 2 else 1) / decay


@dataclass(frozen=True)
class _Rows:
    """Features of some rows as the study had them; their classes counted from 0 among those that occur."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    known: NDArray[np.integer[Any]]

    @classmethod
    def of(cls, features: NDArray[Any], codes: NDArray[np.integer[Any]], rows: NDArray[np.intp]) -> "_Rows":
        known, y = np.unique(codes[rows], return_inverse=True)
        return cls(features[rows].astype(np.float32), y, known)


@dataclass(frozen=True)
class _Fit:
    decay: float
    val_score: float
    iterations: int
    stopped: bool
    coef: NDArray[np.float32]
    intercept: NDArray[np.float32]


class _Loop:
    """One scikit-learn model that is fitted again and again, from where it ended."""

    def __init__(self, classes: int, score: Callable[..., float]) -> None:
        from sklearn.linear_model import LogisticRegression

        self._model = LogisticRegression(max_iter=MOST_ITERATIONS, warm_start=True)
        self._classes, self._score = classes, score
        self._known: NDArray[np.integer[Any]] = np.zeros(0, np.int64)

    def fit(self, on: _Rows, decay: float, val: _Rows | None = None) -> _Fit:
        """Fit, and score if validation rows are given."""
        if len(on.known) != len(self._known):
            self._model.__dict__.pop("coef_", None)  # it knew fewer classes: it cannot be started from
        self._known, model = on.known, self._model
        model.set_params(C=strength(decay, len(on.known)), tol=TOLERANCE / len(on.y))
        converged = solvers.fit_quietly(model, on.x, on.y)
        score = np.nan
        if val is not None:
            score = self._score(val.known[val.y], self.probabilities(val.x).argmax(axis=1))
        coef, intercept = model.coef_.copy(), model.intercept_.copy()
        return _Fit(decay, float(score), int(model.n_iter_[0]), not converged, coef, intercept)

    def probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return probabilities of the last fit: [n, K], 0 for classes that it does not know."""
        of_all_classes = np.zeros((len(x), self._classes))
        of_all_classes[:, self._known] = self._model.predict_proba(x)
        return of_all_classes


def _judged(on: _Rows, fits: Sequence[_Fit], compare: solvers.Settings | None) -> list[PublishedFit]:
    """Measure fits on the same rows, all in one pass."""
    C = [strength(fit.decay, len(on.known)) for fit in fits]
    coefs, intercepts = np.stack([fit.coef for fit in fits]), np.stack([fit.intercept for fit in fits])
    measured = measure(on.x, on.y, C, coefs, intercepts)
    excess = np.full(len(C), np.nan)
    if compare is not None:
        rows = np.arange(len(on.y))
        least = solvers.solve(on.x, on.y, C, rows=rows, moments=None, options=compare).objective
        excess = (measured.objective - least) / least
    return [
        PublishedFit(
            fit.decay, fit.val_score, fit.iterations, fit.stopped, float(value), float(norm), float(above)
        )
        for fit, value, norm, above in zip(
            fits, measured.objective, measured.gradient_norm, excess, strict=True
        )
    ]
