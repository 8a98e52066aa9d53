"""All regularisation values at once: embank's batched solver compared with the study's scikit-learn sweep.

The sweep is that of the study's code: `LogisticRegression(warm_start=True, max_iter=100)` on float32
features, one value after another from C = 1e6 down, with the default tolerance. The solutions of both are
compared by the same float64 objective.

Features are synthetic, like pooled ReLU outputs: a latent vector whose components decrease like j^-0.7,
shifted by the centre of its class, is mapped to the channels by a random matrix; at each of four positions
noise is added and negative values are set to 0; the mean over positions is stored in float16. Five classes
have the shares of EyePACS: the commonest overlap, while the rarest is nearly separable in 2,048 columns. This
makes fits at large C hard, and the sweep's 100 iterations end far above the minimum.
"""

import argparse
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.common import Spread, finish, interleaved, machine, markdown_table, parser, ratio, say
from engine.kernels.logistic.objective import measure
from engine.kernels.logistic.solver import Fits, Options, fit
from engine.runtime import synchronize, usable_cores

#: Shares of the classes of EyePACS.
_SHARES = (0.73, 0.07, 0.15, 0.03, 0.02)
_LATENT_DECAY, _SEPARATION, _POSITIONS = 0.7, 1.7, 4


def made_features(
    rows: int, dim: int, classes: int, seed: int = 0
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Return features float16 [rows, dim] as described above, and classes [rows]; no class is empty."""
    rng = np.random.default_rng(seed)
    latent = max(8, dim // 4)
    scale = np.arange(1, latent + 1) ** -_LATENT_DECAY
    size = float(np.sqrt((scale**2).sum()))
    shares = np.array(_SHARES) if classes == len(_SHARES) else np.ones(classes) / classes
    targets = np.concatenate([np.arange(classes), rng.choice(classes, size=rows - classes, p=shares)])
    spread = rng.standard_normal((latent, dim), np.float32)
    centres = rng.standard_normal((classes, latent)) * scale * (_SEPARATION / np.sqrt(latent))
    bias = size * rng.normal(-1.0, 0.5, dim).astype(np.float32)
    features = np.empty((rows, dim), np.float16)
    for start in range(0, rows, 4096):
        block_targets = targets[start : start + 4096]
        hidden = rng.standard_normal((len(block_targets), latent)) * scale + centres[block_targets]
        channels = hidden.astype(np.float32) @ spread + bias
        pooled = np.zeros_like(channels)
        for _ in range(_POSITIONS):
            noise = rng.standard_normal(channels.shape, np.float32) * np.float32(0.5 * size)
            pooled += np.maximum(channels + noise, 0)
        features[start : start + len(block_targets)] = pooled * (0.4 / _POSITIONS)
    return features, targets


def run(
    rows: int,
    dim: int,
    classes: int,
    values: int,
    repeats: int,
    sklearn: bool = True,
    device: str = "cpu",
    memory: int = 4 << 30,
    tolerance: float = Options.tolerance,
    threads: int | None = None,
) -> dict[str, Any]:
    """Fit `values` values of C = 1 / logspace(-6, 5) to synthetic features, `repeats` times, and once by
    sweep.

    Half of the repeats come before the sweep and half after it, because it takes minutes and machines drift.

    Returns:
        `{rows, dim, classes, values, device, repeats, machine, seconds, stages, iterations, converged, gflop,
        peak_gflop_s, share_of_peak, share_of_peak_in_products, peak_bytes}`, and with `sklearn`
        `{sweep_seconds, sweep_over_batched, sweep_iterations, sweep_stopped, excess, higher,
        sweep_excess}`: seconds as {n, median, min, max}; floating-point operations of the products with X;
        the best rate of square and of block products in float32, measured between the repeats; the largest
        (objective - sweep's) / sweep's; the number of values where our objective is higher; and the sweep's
        largest (objective - ours) / ours.
    """
    import torch

    features, targets = made_features(rows, dim, classes)
    strengths = 1.0 / np.logspace(-6, 5, values)
    threads = threads or usable_cores()
    options = Options(device=device, threads=threads, memory=memory, tolerance=tolerance)
    torch.set_num_threads(threads)
    fits: list[Fits] = []
    peaks: list[float] = []

    def batched() -> None:
        fits.append(fit(features, targets, strengths, options=options))

    contenders = {
        "batched": batched,
        "peak": lambda: peaks.append(_peak(dim, values * (classes if classes > 2 else 1), device)),
    }
    first = -(-repeats // 2) if sklearn else repeats
    seconds = interleaved(contenders, rounds=first, warm_up=False)["batched"]
    sweep = timed_sweep(features, targets, fits[0].C) if sklearn else None
    seconds += interleaved(contenders, rounds=repeats - first, warm_up=False)["batched"]
    last, peak = fits[-1], max(peaks)
    result: dict[str, Any] = {
        "rows": rows,
        "dim": dim,
        "classes": classes,
        "values": values,
        "device": device,
        "repeats": repeats,
        "machine": machine(),
        "seconds": Spread.of(seconds),
        "stages": stages(fits),
        "iterations": last.iterations.tolist(),
        "converged": int(last.converged.sum()),
        "gflop": last.flops / 1e9,
        "peak_gflop_s": peak,
        "share_of_peak": Spread.of([last.flops / 1e9 / s / peak for s in seconds]),
        "share_of_peak_in_products": Spread.of([f.flops / 1e9 / f.seconds["products"] / peak for f in fits]),
        "peak_bytes": peak_bytes(),
    }
    if sweep is not None:
        result |= _against_sweep(features, targets, last, seconds, sweep)
    return result


def _peak(dim: int, columns: int, device: str) -> float:
    """Return the Gflop/s of the fastest float32 product among square ones and the solver's at full width."""
    import torch

    from engine.runtime import Span

    square = torch.rand(1024, 1024, device=device)
    blocks = [torch.rand(1024, dim, device=device) for _ in range(4)]
    weights = torch.rand(columns, dim, device=device)
    best = 0.0
    for _ in range(5):
        for left, rights in ((square, [square]), (weights, [block.T for block in blocks])):
            for right in rights:
                synchronize(device)
                span = Span(device)
                left @ right
                span.stop()
                best = max(best, 2e-9 * left.shape[0] * left.shape[1] * right.shape[1] / span.seconds)
    return best


def timed_sweep(
    features: NDArray[np.float16], targets: NDArray[np.int64], C: NDArray[np.float64]
) -> dict[str, Any]:
    """Return the result of `_sweep` from the largest C down, with its seconds."""
    sweep: dict[str, Any] = {}
    features32, order = features.astype(np.float32), np.argsort(-C, kind="stable")
    timed = interleaved(
        {"sweep": lambda: sweep.update(_sweep(features32, targets, C[order]))}, rounds=1, warm_up=False
    )
    return sweep | {"order": order, "seconds": timed["sweep"][0]}


def _against_sweep(
    features: NDArray[np.float16],
    targets: NDArray[np.int64],
    ours: Fits,
    seconds: Sequence[float],
    sweep: dict[str, Any],
) -> dict[str, Any]:
    sweep_seconds = sweep["seconds"]
    return {
        "sweep_seconds": sweep_seconds,
        "sweep_over_batched": ratio([sweep_seconds] * len(seconds), list(seconds)),
        "sweep_iterations": sweep["iterations"],
        "sweep_stopped": int(sum(i >= 100 for i in sweep["iterations"])),
        **compared(features, targets, ours, sweep),
    }


def compared(
    features: NDArray[np.float16], targets: NDArray[np.int64], ours: Fits, sweep: dict[str, Any]
) -> dict[str, Any]:
    """Compare our objectives with those of `timed_sweep`: `{excess, higher, sweep_excess}`, as in `run`."""
    order = sweep["order"]
    sweep_objectives = measure(features, targets, ours.C[order], sweep["coef"], sweep["intercept"]).objective
    our_objectives = measure(
        features, targets, ours.C[order], ours.coef[order], ours.intercept[order]
    ).objective
    return {
        "excess": float(((our_objectives - sweep_objectives) / sweep_objectives).max()),
        "higher": int((our_objectives > sweep_objectives).sum()),
        "sweep_excess": float(((sweep_objectives - our_objectives) / our_objectives).max()),
    }


def stages(fits: Sequence[Fits]) -> dict[str, Spread]:
    """Return the seconds of each stage of the solver, over its runs."""
    return {name: Spread.of([f.seconds.get(name, 0.0) for f in fits]) for name in fits[-1].seconds}


def _sweep(
    features: NDArray[np.float32], targets: NDArray[np.int64], C: NDArray[np.float64]
) -> dict[str, Any]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(warm_start=True, max_iter=100)
    coef, intercept, iterations = [], [], []
    with warnings.catch_warnings():  # counted in `sweep_stopped` instead
        warnings.simplefilter("ignore", ConvergenceWarning)
        for value in C:
            model.set_params(C=value).fit(features, targets)
            coef.append(model.coef_.copy())
            intercept.append(model.intercept_.copy())
            iterations.append(int(model.n_iter_.max()))
            say(f"scikit-learn: C = {value:.3g}, {iterations[-1]} iterations")
    return {"coef": np.stack(coef), "intercept": np.stack(intercept), "iterations": iterations}


def peak_bytes() -> int:
    """Return the peak of the process's resident memory in bytes, features included."""
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _table(result: dict[str, Any]) -> str:
    head = (
        f"{result['rows']:,} x {result['dim']}, {result['classes']} classes, {result['values']} values of C, "
        f"{result['device']}: {result['converged']} converged, "
        f"{result['gflop']:,.0f} Gflop in products with X\n\n"
    )
    lines = [["embank, in total", str(result["seconds"])]]
    lines += [[f"  {name}", str(spread)] for name, spread in result["stages"].items()]
    if "sweep_seconds" in result:
        lines += [
            [
                f"scikit-learn's sweep ({result['sweep_stopped']} fits stopped at 100 iterations)",
                f"{result['sweep_seconds']:.3g}",
            ],
            ["sweep / embank", str(result["sweep_over_batched"])],
        ]
    facts = [
        ["peak of float32 products, Gflop/s", f"{result['peak_gflop_s']:.0f}"],
        ["products: share of the peak while they run", str(result["share_of_peak_in_products"])],
        ["products: share of the peak over the whole fit", str(result["share_of_peak"])],
        ["most memory, GiB", f"{result['peak_bytes'] / 2**30:.2f}"],
    ]
    if "excess" in result:
        facts += [
            ["our objective above the sweep's, relative, at worst", f"{result['excess']:.2g}"],
            ["values where ours is higher", str(result["higher"])],
            ["the sweep's objective above ours, relative, at worst", f"{result['sweep_excess']:.2g}"],
        ]
    return head + markdown_table(["", "seconds"], lines) + "\n" + markdown_table(["", ""], facts)


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of scripts that time the solver."""
    options = parser(description)
    options.add_argument("--rows", type=int, default=28_100)
    options.add_argument("--dim", type=int, default=2048)
    options.add_argument("--values", type=int, default=45)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--no-sklearn", action="store_true", help="leave out the sweep, which takes minutes")
    options.add_argument("--device", default="cpu", help="cpu or cuda:N")
    options.add_argument("--memory", type=int, default=4 << 30, help="bytes the solver may take")
    options.add_argument("--threads", type=int, help="of torch; default all cores")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = arguments(__doc__ or "")
    options.add_argument("--classes", type=int, default=5)
    options.add_argument("--tolerance", type=float, default=Options.tolerance)
    args = options.parse_args(argv)
    result = run(
        args.rows,
        args.dim,
        args.classes,
        args.values,
        args.repeats,
        not args.no_sklearn,
        args.device,
        args.memory,
        args.tolerance,
        args.threads,
    )
    finish(result, _table(result), args)


if __name__ == "__main__":
    main()
