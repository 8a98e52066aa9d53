"""The batched solver of the probe on the device, against itself on the CPU, and how fast it is there."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.suite import Context, Skip, Verdict, measurement, proof
from benchmarks.gpu.timing import seconds_each
from benchmarks.speed.probe import made_features
from engine.evals.probe.solvers import solve
from engine.kernels.logistic.solver import Options, fit, fit_many
from engine.kernels.standardize import Moments

#: Seconds in which 45 values for 28,100 x 2048 features of 5 classes shall be fitted.
TARGET_S = 2.0
_C = [10.0 ** (6 - 0.25 * i) for i in range(45)]


@proof("probe: batched fits on the device, against the CPU", seconds=60, rank=42)
def fits_agree(context: Context) -> Verdict:
    rows, dim = context.pick((9000, 512), (300, 16))
    values = context.pick(_C[::4], _C[::11])
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
    for name, (found, expected) in pairs.items():
        apart = [abs(f.objective / e.objective - 1).max() for f, e in zip(found, expected, strict=True)]
        numbers[name] = {
            "objective_apart": float(max(apart)),
            "converged": all(bool(f.converged.all()) for f in found),
        }
    passed = all(n["converged"] and n["objective_apart"] <= 1e-6 for n in numbers.values())
    return Verdict(numbers, passed, "all converged, objectives within 1e-6")


@dataclass(frozen=True)
class _Settings:
    backend: str
    device: str
    class_weight: str = "none"
    threads: int = 1


@proof("probe: cuML's fits, against scikit-learn's", seconds=60, rank=43)
def cuml_agrees(context: Context) -> Verdict:
    """Skipped where cuML is not installed; where it is, an import that fails is a failure."""
    context.need("cuml", "cuML")
    if not context.on_cuda:
        raise Skip("cuML computes on CUDA devices")
    features, targets = made_features(context.pick(3000, 300), context.pick(128, 16), 5)
    rows = np.arange(len(features))
    moments = Moments.of(features, rows)
    values = [1e-3, 0.1, 10.0]
    found, expected = (
        solve(features, targets, values, rows=rows, moments=moments, options=_Settings(backend, device))
        for backend, device in (("cuml", context.device), ("sklearn", "cpu"))
    )
    apart = float(abs(found.objective / expected.objective - 1).max())
    return Verdict({"objective_apart": apart}, apart <= 1e-5, "objectives within 1e-5")


@measurement("probe: 45 regularisation values at once", seconds=30, rank=67)
def sweep_rate(context: Context) -> Verdict:
    if context.quick and context.on_cuda:
        raise Skip("the rate means nothing at tiny sizes")
    features, targets = made_features(context.pick(28_100, 300), context.pick(2048, 16), 5)
    resident = torch.from_numpy(features).to(context.device)
    options = Options(device=context.device)
    values = context.pick(_C, _C[::15])  # few images take the large ones longest
    last: list[Any] = []

    def run() -> None:
        last[:] = [fit(resident, targets, values, options=options)]

    each = seconds_each(context.device, run, budget_s=context.pick(10.0, 0.2), warm_up=1)
    fits = last[0]
    numbers = {
        "rows": len(features),
        "s": str(each),
        "s_median": each.median,
        "stages": {name: round(value, 4) for name, value in fits.seconds.items()},
        "tflop": fits.flops / 1e12,
        "products_tflop_s": fits.flops / 1e12 / max(fits.seconds["products"], 1e-9),
        "converged": int(fits.converged.sum()),
    }
    return Verdict(numbers, limit=f"at most {TARGET_S:g} s for 28,100 x 2048, 5 classes, all converged")
