"""The batched solver of the probe on the device, compared with the CPU, and its speed."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.floors import GEMM, Bound, Reading
from benchmarks.gpu.suite import Context, Skip, Verdict, measurement, proof
from benchmarks.gpu.targets import SWEEP, SWEEP_GAIN
from benchmarks.gpu.timing import seconds_each
from benchmarks.speed.probe import made_features
from engine.evals.probe.solvers import cuml_modules, solve
from engine.kernels.logistic.objective import measure
from engine.kernels.logistic.solver import Options, fit, fit_many
from engine.kernels.standardize import Scaler
from engine.runtime import device_number

_C = [10.0 ** (6 - 0.25 * i) for i in range(45)]


@proof("probe: batched fits on the device, against the CPU", seconds=30, rank=5)
def fits_agree(context: Context) -> Verdict:
    rows, dim = context.pick((6000, 256), (300, 16))
    values = context.pick(_C[::6], _C[::11])
    features, targets = made_features(rows, dim, 5)
    columns = (targets[:, None] == [0, 1, 2]).astype(int)
    columns[::7, 1] = -1
    numbers: dict[str, Any] = {}
    on_device, on_cpu = Options(device=context.device), Options()
    pairs = {
        "five classes": [[fit(features, targets, values, options=o)] for o in (on_device, on_cpu)],
        "resident": [
            [fit(torch.from_numpy(features).to(context.device), targets, values, options=on_device)],
            [fit(features, targets, values, options=on_cpu)],
        ],
        "three tasks": [fit_many(features, columns, values, options=o) for o in (on_device, on_cpu)],
    }
    for name, (device_fits, expected) in pairs.items():
        differences = [
            abs(f.objective / e.objective - 1).max() for f, e in zip(device_fits, expected, strict=True)
        ]
        numbers[name] = {
            "objective_apart": float(max(differences)),
            "converged": all(bool(f.converged.all()) for f in device_fits),
        }
    passed = all(n["converged"] and n["objective_apart"] <= 1e-6 for n in numbers.values())
    return Verdict(numbers, passed, "all converged, objectives within 1e-6")


@dataclass(frozen=True)
class _Settings:
    backend: str
    device: str
    class_weight: str = "none"
    threads: int = 1


@proof("probe: cuML's fits, against scikit-learn's", seconds=30, rank=33, needs=("cuml", "cupy"))
def cuml_agrees(context: Context) -> Verdict:
    if not context.on_cuda:
        raise Skip("cuML computes on CUDA devices")
    features, targets = made_features(context.pick(3000, 300), context.pick(128, 16), 5)
    rows = np.arange(len(features))
    moments = Scaler.of(features, rows)
    values = [1e-3, 0.1, 10.0]
    cuml_fits, expected = (
        solve(features, targets, values, rows=rows, moments=moments, options=_Settings(backend, device))
        for backend, device in (("cuml", context.device), ("sklearn", "cpu"))
    )
    difference = float(abs(cuml_fits.objective / expected.objective - 1).max())
    return Verdict({"objective_apart": difference}, difference <= 1e-5, "objectives within 1e-5")


def _sweep_size(context: Context) -> tuple[torch.Tensor, Any, list[float]]:
    """Return features of five classes on the device, their classes, and the values of C."""
    features, targets = made_features(context.pick(28_100, 300), context.pick(2048, 16), 5)
    values = context.pick(_C, _C[::15])  # with few images, large values take longest
    return torch.from_numpy(features).to(context.device), targets, values


@measurement("probe: 45 regularisation values at once", seconds=30, rank=62)
def sweep_rate(context: Context) -> Verdict:
    if context.quick and context.on_cuda:
        raise Skip("the rate means nothing at tiny sizes")
    resident, targets, values = _sweep_size(context)
    options = Options(device=context.device)
    last: list[Any] = []

    def run() -> None:
        last[:] = [fit(resident, targets, values, options=options)]

    seconds = seconds_each(context.device, run, budget_s=context.pick(10.0, 0.2), warm_up=1)
    fits = last[0]
    numbers = {
        "rows": len(resident),
        "s": seconds,
        "stages": {name: round(value, 4) for name, value in fits.seconds.items()},
        "tflop": fits.flops / 1e12,
        "products_tflop_s": fits.flops / 1e12 / max(fits.seconds.get("products", 0.0), 1e-9),
        "converged": int(fits.converged.sum()),
    }
    bound = Bound("gemm", GEMM["fp32"], fits.flops, "products that the solver counted, fp32")
    reading = context.reading(SWEEP.name, seconds.median, "s", bound)
    return Verdict(numbers, limit="5 classes, all converged", readings=(reading,))


#: Seconds that cuML's sweep may take; its time is then a lower limit, and so is embank's gain.
_CUML_S = 30.0


@measurement(SWEEP_GAIN.check, seconds=60, rank=68, needs=("cuml", "cupy"))
def sweep_against_cuml(context: Context) -> Verdict:
    """Fit every C by cuML with its default tolerance, from strong to weak, features resident in float32.

    Where the time for that is up, the remaining fits count as free: the gain is then at least what is said.
    """
    if not context.on_cuda:
        raise Skip("cuML computes on CUDA devices")
    resident, targets, values = _sweep_size(context)
    options = Options(device=context.device)
    fit(resident, targets, values[-1:], options=options)  # warm
    ours = fit(resident, targets, values, options=options)
    seconds = seconds_each(
        context.device, lambda: fit(resident, targets, values, options=options), budget_s=1.0, warm_up=0
    ).median
    spent, fitted, objectives = _by_cuml(context.device, resident, targets, values)
    positions = [values.index(value) for value in fitted]
    numbers = {
        "embank, s": seconds,
        "cuML, s": spent,
        "fits of cuML": len(fitted),
        "fits of embank": len(values),
        "cuML's objective over embank's, most": float(
            max(o / ours.objective[p] for o, p in zip(objectives, positions, strict=True))
        ),
    }
    gain = Reading(SWEEP_GAIN.name, spent / seconds, "times")
    return Verdict(numbers, limit="cuML's tolerance 1e-4, at most 1,000 iterations", readings=(gain,))


def _by_cuml(
    device: str, resident: torch.Tensor, targets: Any, values: list[float]
) -> tuple[float, list[float], list[float]]:
    """Return seconds of fits one after another, the values fitted in time, and their objectives."""
    model_class, cupy = cuml_modules(device)
    on_host = resident.cpu().numpy()
    scaler = Scaler.of(on_host, np.arange(len(on_host)))
    with cupy.cuda.Device(device_number(device)):
        x = cupy.asarray(((on_host - scaler.mean) / scaler.scale).astype(np.float32), order="F")
        y = cupy.asarray(targets.astype(np.int32))
        model_class(C=values[-1], max_iter=1000).fit(x, y)  # warm
        models, spent = {}, 0.0
        for value in sorted(values):
            start = time.perf_counter()
            models[value] = model_class(C=value, max_iter=1000, output_type="numpy").fit(x, y)
            cupy.cuda.get_current_stream().synchronize()
            spent += time.perf_counter() - start
            if spent > _CUML_S:
                break
    fitted = list(models)
    coef = np.stack([np.asarray(models[value].coef_, np.float64) for value in fitted]) / scaler.scale
    intercept = np.stack([np.asarray(models[value].intercept_, np.float64).ravel() for value in fitted])
    intercept -= coef @ scaler.mean
    pair = (scaler.mean, scaler.scale)
    judged = measure(on_host, targets, fitted, coef, intercept, standardise=pair)
    return spent, fitted, judged.objective.tolist()
