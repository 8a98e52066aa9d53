"""Probes of many findings: all in one run, one finding after another, and by the study's scikit-learn sweep.

Features are those of `benchmarks.speed.probe`. A finding is drawn for every image from a logistic model with
a random direction and a share of positives from 2 to 30 %; a fifth of the cells, of other images for every
finding, is masked, as uncertain and blank cells are.

The scikit-learn sweep is timed on one finding in the middle of the shares; its seconds are multiplied by the
number of findings, and said to be so.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.common import Spread, finish, interleaved, machine, markdown_table, ratio
from benchmarks.speed.probe import arguments, compared, made_features, peak_bytes, stages, timed_sweep
from engine.kernels.logistic.solver import Fits, Options, fit, fit_many
from engine.runtime import usable_cores

_SHARES, _MASKED = (0.02, 0.3), 0.2
#: Deviation of the scores that findings are drawn by.
_SCORE = 2.0


def made_findings(features: NDArray[np.float16], findings: int, seed: int = 0) -> NDArray[np.int8]:
    """Cells int8 [rows, findings]: 1, 0, or -1 where masked; each finding has both."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((features.shape[1], findings), np.float32)
    blocks = range(0, len(features), 8192)
    scores = np.concatenate([features[i : i + 8192].astype(np.float32) @ directions for i in blocks])
    scores = (scores - scores.mean(0)) / scores.std(0) * _SCORE
    noisy = scores + rng.logistic(size=scores.shape)
    least = np.array([np.quantile(noisy[:, f], 1 - s) for f, s in enumerate(np.linspace(*_SHARES, findings))])
    cells: NDArray[np.int8] = (noisy > least).astype(np.int8)
    cells[rng.random(cells.shape) < _MASKED] = -1
    return cells


def run(
    rows: int,
    dim: int,
    findings: int,
    values: int,
    repeats: int,
    alone: bool = True,
    sklearn: bool = True,
    device: str = "cpu",
    memory: int = 4 << 30,
    threads: int | None = None,
) -> dict[str, Any]:
    """Fit `values` values of C = 1 / logspace(-6, 5) for every finding, `repeats` times each way.

    Args:
        alone: also fit one finding after another.
        sklearn: also time the sweep, once, on one finding.

    Returns:
        `{rows, dim, findings, values, device, repeats, machine, fits, converged, seconds: {together, alone},
        times_as_fast, stages, peak_bytes}`, and with `sklearn` `{sweep_seconds, sweep_over_together, excess,
        higher, sweep_excess}`: seconds as {n, median, min, max}; the sweep's are those of one finding times
        their number; the last three are of that finding, as `benchmarks.speed.probe.run` has them.
    """
    import torch

    features, _ = made_features(rows, dim, classes=2)
    cells = made_findings(features, findings)
    strengths = 1.0 / np.logspace(-6, 5, values)
    threads = threads or usable_cores()
    torch.set_num_threads(threads)
    options = Options(device=device, threads=threads, memory=memory)
    found: list[list[Fits]] = []

    def together() -> None:
        found.append(fit_many(features, cells, strengths, options=options))

    def one_by_one() -> None:
        for column in cells.T.astype(np.int64):
            fit(features, column, strengths, rows=np.flatnonzero(column >= 0), options=options)

    contenders = {"together": together} | ({"alone": one_by_one} if alone else {})
    seconds = interleaved(contenders, rounds=repeats, warm_up=False)
    last = found[-1]
    result: dict[str, Any] = {
        "rows": rows,
        "dim": dim,
        "findings": findings,
        "values": values,
        "device": device,
        "repeats": repeats,
        "machine": machine(),
        "fits": findings * values,
        "converged": sum(int(each.converged.sum()) for each in last),
        "seconds": {name: Spread.of(taken) for name, taken in seconds.items()},
        "stages": stages([run[0] for run in found]),  # each of a run's fits has the seconds of all
    }
    if alone:
        result["times_as_fast"] = ratio(seconds["alone"], seconds["together"])
    if sklearn:
        result |= _against_sweep(features, cells, last, seconds["together"])
    return result | {"peak_bytes": peak_bytes()}


def _against_sweep(
    features: NDArray[np.float16], cells: NDArray[np.int8], ours: Sequence[Fits], seconds: Sequence[float]
) -> dict[str, Any]:
    """The sweep of the finding in the middle."""
    which = len(ours) // 2
    labelled = np.flatnonzero(cells[:, which] >= 0)
    some, targets, mine = features[labelled], cells[labelled, which].astype(np.int64), ours[which]
    sweep = timed_sweep(some, targets, mine.C)
    taken = sweep["seconds"] * len(ours)
    return {
        "sweep_seconds": taken,
        "sweep_over_together": ratio([taken] * len(seconds), list(seconds)),
        **compared(some, targets, mine, sweep),
    }


def _table(result: dict[str, Any]) -> str:
    head = (
        f"{result['rows']:,} x {result['dim']}, {result['findings']} findings, {result['values']} values of "
        f"C, {result['device']}: {result['converged']} of {result['fits']} fits converged, most memory "
        f"{result['peak_bytes'] / 2**30:.2f} GiB\n\n"
    )
    lines = [["all findings in one run", str(result["seconds"]["together"])]]
    lines += [[f"  {name}", str(spread)] for name, spread in result["stages"].items()]
    if "alone" in result["seconds"]:
        lines.append(["one finding after another", str(result["seconds"]["alone"])])
        lines.append(["that / in one run", str(result["times_as_fast"])])
    if "sweep_seconds" in result:
        lines += [
            [
                f"scikit-learn's sweep of one finding, times {result['findings']}",
                f"{result['sweep_seconds']:.3g}",
            ],
            ["that / in one run", str(result["sweep_over_together"])],
            ["our objective above the sweep's there, relative, at worst", f"{result['excess']:.2g}"],
            ["the sweep's above ours there, relative, at worst", f"{result['sweep_excess']:.2g}"],
        ]
    return head + markdown_table(["", "seconds"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(__doc__ or "")
    options.add_argument("--findings", type=int, default=14)
    options.add_argument("--no-alone", action="store_true", help="leave out one finding after another")
    asked = options.parse_args(argv)
    result = run(
        asked.rows,
        asked.dim,
        asked.findings,
        asked.values,
        asked.repeats,
        not asked.no_alone,
        not asked.no_sklearn,
        asked.device,
        asked.memory,
        asked.threads,
    )
    finish(result, _table(result), asked)


if __name__ == "__main__":
    main()
