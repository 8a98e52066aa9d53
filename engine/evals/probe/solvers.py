"""Backends of the probe: each minimises the objective of `logistic.objective` and reports its convergence.

`batched` is `engine.kernels.logistic.solver`. `sklearn` is scikit-learn in float64, one value of C after
another, each started from the one before: L-BFGS, then Newton-CG from there, because L-BFGS ends where a step
changes the mean form of the objective by less than 1e-14, which on separable classes at large C can be 10 %
above the minimum. `cuml` is cuML's quasi-Newton solver in float64 on a CUDA device, each from zero. cuML
minimises mean loss + ||W||^2 / (2 C n): the same objective divided by C n, its intercept not penalised
either; `balanced` class weights sum to n, so that the division is the same.

The latter two have converged where the largest component of the gradient is at most 1e-5 of the objective,
both measured in float64 by one function. (For that of `batched` see there.) They get centred features, which
changes no solution, because the intercept is free.
"""

import importlib
import importlib.util
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.probe.options import check_backend
from engine.kernels.logistic.objective import measure
from engine.kernels.logistic.solver import Fits, Options, fit, fit_many
from engine.kernels.standardize import Scaler
from engine.runtime import device_number

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

#: Callback with (values of C done, to do).
Progress = Callable[[int, int], None]

#: A fit has converged if its largest gradient component is at most this share of the objective; the solvers
#: aim at a tenth of it.
_CONVERGED = 1e-5
#: Most iterations of L-BFGS on the mean form; it ends sooner where the objective no longer changes.
_TOLERANCE, _MOST_ITERATIONS, _MOST_STEPS = 1e-9, 20_000, 200


class Settings(Protocol):
    """Settings that a backend needs, taken from `engine.evals.probe.options.ProbeOptions`.

    `memory`, bytes or None, may be missing.
    """

    @property
    def backend(self) -> str: ...
    @property
    def class_weight(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def threads(self) -> int: ...


def solve(
    features: Any,
    targets: NDArray[np.integer[Any]],
    C: Sequence[float],
    *,
    rows: NDArray[np.intp],
    moments: Scaler | None,
    options: Settings,
    on_progress: Progress | None = None,
) -> Fits:
    """Fit one task at every C.

    Args:
        features: [N, d], any float type; finite in `rows`. A torch tensor stays where it is, except for
            `sklearn`.
        targets: [N] codes from 0, every one among `rows`; rows with a negative code are left out.
        moments: that standardise the features; None leaves them as they are.

    Raises:
        Refused: an unknown backend, or one that cannot run here.
    """
    if _known(options.backend) == "batched":
        return fit(
            features,
            targets,
            np.asarray(C, np.float64),
            rows=rows,
            **_for_batched(moments, options, on_progress),
        )
    rows, balanced = rows[targets[rows] >= 0], options.class_weight == "balanced"
    one_by_one = _sklearn if options.backend == "sklearn" else _cuml
    clock = time.perf_counter()
    mean = Scaler.of(features, rows).mean if moments is None else moments.mean
    scale = np.ones_like(mean) if moments is None else moments.scale
    x = _centred(features, rows, mean, scale)
    if not isinstance(features, np.ndarray):
        features = features.cpu().numpy()  # all are judged by one function, on the host
    fits = one_by_one(x, targets[rows], np.asarray(C, np.float64), balanced, options.device, on_progress)
    coef, intercept, iterations = (np.stack(values) for values in zip(*fits, strict=True))
    coef /= scale
    intercept -= coef @ mean
    seconds = {"solve": time.perf_counter() - clock}
    pair = (mean, scale)
    judged = measure(features, targets, C, coef, intercept, rows=rows, balanced=balanced, standardise=pair)
    seconds["measure"] = time.perf_counter() - clock - seconds["solve"]
    return Fits(
        C=np.asarray(C, np.float64),
        coef=coef,
        intercept=intercept,
        objective=judged.objective,
        gradient_norm=judged.gradient_norm,
        decrement=np.full(len(coef), np.nan),  # only the batched solver estimates it
        iterations=iterations,
        converged=judged.slope <= _CONVERGED,
        classes=max(2, coef.shape[1]),
        rows=len(rows),
        seconds=seconds,
    )


def solve_many(
    features: Any,
    targets: NDArray[np.integer[Any]],
    C: Sequence[float],
    *,
    rows: NDArray[np.intp],
    moments: Scaler | None,
    options: Settings,
    on_progress: Progress | None = None,
) -> list[Fits]:
    """Fit T tasks of two classes at every C; as `solve`, with targets [N, T] of 0, 1 and -1 (masked)."""
    if _known(options.backend) == "batched":
        return fit_many(
            features,
            targets,
            np.asarray(C, np.float64),
            rows=rows,
            **_for_batched(moments, options, on_progress),
        )
    count = targets.shape[1]
    return [
        solve(
            features,
            targets[:, position],
            C,
            rows=rows,
            moments=moments,
            options=options,
            on_progress=_part_of(on_progress, position, count),
        )
        for position in range(count)
    ]


def _centred(features: Any, rows: NDArray[np.intp], mean: NDArray[np.float64], scale: NDArray[Any]) -> Any:
    """Return (rows - mean) / scale, float64 [n, d]; of a tensor on its device."""
    if isinstance(features, np.ndarray):
        x = features[rows].astype(np.float64)
    else:
        from engine.runtime import placed

        place = str(features.device)
        return (features[placed(rows, place)].double() - placed(mean, place)) / placed(scale, place)
    x -= mean
    x /= scale
    return x


def _known(backend: str) -> str:
    check_backend(backend)
    return backend


def _for_batched(moments: Scaler | None, options: Settings, on_progress: Progress | None) -> dict[str, Any]:
    """Return the keyword arguments that `fit` and `fit_many` share."""
    return {
        "class_weight": "balanced" if options.class_weight == "balanced" else None,
        "standardise": None if moments is None else (moments.mean, moments.scale),
        "options": Options(
            device=options.device, threads=options.threads, memory=getattr(options, "memory", None)
        ),
        "on_progress": _without_iterations(on_progress),
    }


def _without_iterations(on_progress: Progress | None) -> Callable[[int, int, int], None] | None:
    """Adapt a callback to the batched solver, which also passes its number of iterations."""
    if on_progress is None:
        return None
    return lambda done, todo, _: on_progress(done, todo)


def _part_of(on_progress: Progress | None, position: int, count: int) -> Progress | None:
    """Return a callback that reports the progress of one of several tasks as that of all."""
    if on_progress is None:
        return None
    return lambda done, todo: on_progress(position * todo + done, count * todo)


#: Coefficients [K', d], intercepts [K'], iterations.
_Found = tuple[NDArray[np.float64], NDArray[np.float64], int]


def _sklearn(
    x: Any,
    y: NDArray[np.integer[Any]],
    C: NDArray[np.float64],
    balanced: bool,
    device: str,
    on_progress: Progress | None,
) -> list[_Found]:
    """Fit at every C, from strong to weak regularisation."""
    from sklearn.linear_model import LogisticRegression

    x = x if isinstance(x, np.ndarray) else x.cpu().numpy()
    model = LogisticRegression(warm_start=True, class_weight="balanced" if balanced else None)
    fits: dict[int, _Found] = {}
    for r in np.argsort(C, kind="stable").tolist():
        model.set_params(C=float(C[r]), solver="lbfgs", tol=_TOLERANCE, max_iter=_MOST_ITERATIONS)
        fit_quietly(model, x, y)
        steps = int(model.n_iter_[0])
        value = measure(x, y, C[[r]], model.coef_[None], model.intercept_[None], balanced=balanced).objective
        tolerance = float(0.1 * _CONVERGED * value[0] / (C[r] * len(y)))  # of the mean form; weights sum to n
        model.set_params(solver="newton-cg", tol=tolerance, max_iter=_MOST_STEPS)
        fit_quietly(model, x, y)
        fits[r] = (model.coef_.copy(), model.intercept_.copy(), steps + int(model.n_iter_[0]))
        if on_progress:
            on_progress(len(fits), len(C))
    return [fits[r] for r in range(len(C))]


def fit_quietly(model: "LogisticRegression", x: NDArray[Any], y: NDArray[Any]) -> bool:
    """Fit; return False if scikit-learn warned that it did not converge. Other warnings pass."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, y)
    converged = True
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            converged = False
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return converged


def _cuml(
    x: Any,
    y: NDArray[np.integer[Any]],
    C: NDArray[np.float64],
    balanced: bool,
    device: str,
    on_progress: Progress | None,
) -> list[_Found]:
    """Fit at every C, each from zero: cuML has no warm start.

    Args:
        x: float64 [n, d]; a tensor on the device is passed on by DLPack, without the host.

        Other arguments are those of `_sklearn`.
    """
    model_class, cupy = cuml_modules(device)
    fits: list[_Found] = []
    with cupy.cuda.Device(device_number(device)):
        there = x if isinstance(x, np.ndarray) else cupy.from_dlpack(x)
        on_device, labels = cupy.asarray(there, order="F"), cupy.asarray(y.astype(np.int32))
        for value in C.tolist():
            model = model_class(
                C=value,
                # relative to the objective; it also ends where that changes by a hundredth of it
                tol=0.1 * _CONVERGED,
                max_iter=_MOST_ITERATIONS,
                class_weight="balanced" if balanced else None,
                output_type="numpy",
            ).fit(on_device, labels)
            coef = np.asarray(model.coef_, np.float64).reshape(-1, x.shape[1])
            intercept = np.asarray(model.intercept_, np.float64).reshape(-1)
            fits.append((coef, intercept, int(np.max(model.n_iter_))))
            if on_progress:
                on_progress(len(fits), len(C))
    return fits


def cuml_modules(device: str) -> tuple[Any, Any]:
    """Import cuML: (its LogisticRegression, cupy).

    Raises:
        Refused: no CUDA device, no cuML, or one whose import fails, whatever it raises.
    """
    if not device.startswith("cuda"):
        raise Refused(f"backend cuml on {device}", "cuML computes on CUDA devices", "use --backend batched")
    try:
        cupy = importlib.import_module("cupy")
        from cuml.linear_model import LogisticRegression
    except Exception as error:  # AttributeError where numpy is too new for numba, OSError without a library
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        there = all(importlib.util.find_spec(name) is not None for name in ("cupy", "cuml"))
        raise Refused(
            f"cuML cannot be imported ({reason})" if there else f"cuML is not installed ({reason})",
            "--backend cuml needs it, with the numpy and numba that it was made for",
            "run `pip install 'embank[rapids]'`, or use --backend batched",
        ) from error
    return LogisticRegression, cupy
