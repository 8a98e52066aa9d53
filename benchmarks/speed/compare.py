"""Paired comparison: DeLong's test of a pair, and the paired bootstrap of many models and findings.

By hand DeLong's covariance comes from midranks of `scipy.stats.rankdata`, and the bootstrap calls
scikit-learn's `roc_auc_score` with each resample's weights. That loop is timed on a few resamples of one
model and finding, and its seconds are multiplied, which the output states.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.common import Spread, finish, interleaved, machine, markdown_table, parser, ratio
from engine.kernels.paired.bootstrap import Areas, interval_of, replicates, resample_weights
from engine.kernels.paired.delong import Components, differences_of
from engine.kernels.paired.weighted_areas import RankedRows
from engine.runtime import usable_cores

#: Shares of positives of the findings: those of CheXpert lie between.
_SHARES = (0.02, 0.5)


def made_scores(
    rows: int, models: int, share: float, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return truth bool [rows] and scores float64 [models, rows] of models alike."""
    truth = rng.random(rows) < share
    return truth, rng.normal(size=rows) + 0.5 * rng.normal(size=(models, rows)) + truth


def delong(images: int, repeats: int) -> dict[str, Any]:
    """Time DeLong's test of one pair of models.

    Returns:
        `{seconds: {embank, hand}, over_embank, largest_difference}`: the last of z.
    """
    truth, scores = made_scores(images, 2, 0.1, np.random.default_rng(0))
    z: dict[str, float] = {}

    def own() -> None:
        components = Components.of(truth, scores)
        z["embank"] = float(differences_of(components.areas, components.covariance).z[0, 1])

    def hand() -> None:
        z["hand"] = _delong_by_hand(truth, scores)

    seconds = interleaved({"embank": own, "hand": hand}, rounds=repeats)
    return {
        "seconds": {name: Spread.of(times) for name, times in seconds.items()},
        "over_embank": ratio(seconds["hand"], seconds["embank"]),
        "largest_difference": abs(z["embank"] - z["hand"]),
    }


def _delong_by_hand(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    from scipy.stats import rankdata

    m, n = int(truth.sum()), int((~truth).sum())
    areas, positives, negatives = [], [], []
    for own in scores:
        ranks = rankdata(own)
        positives.append((ranks[truth] - rankdata(own[truth])) / n)
        negatives.append(1 - (ranks[~truth] - rankdata(own[~truth])) / m)
        areas.append(float(positives[-1].mean()))
    covariance = np.cov(positives) / m + np.cov(negatives) / n
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return float((areas[0] - areas[1]) / np.sqrt(variance))


def bootstrap(
    patients: int, models: int, findings: int, resamples: int, repeats: int, by_hand: int, threads: int
) -> dict[str, Any]:
    """Time the AUROCs of all models and findings in all resamples, and the intervals of all pairs.

    Args:
        by_hand: resamples of the loop by hand.

    Returns:
        `{pairs, seconds: {embank}, hand_seconds, over_embank, largest_difference}`: of AUROCs to those by
        hand.
    """
    rng = np.random.default_rng(0)
    units = np.arange(patients)
    made = [made_scores(patients, models, share, rng) for share in np.linspace(*_SHARES, findings)]
    last: list[NDArray[np.float64]] = []
    pairs = [(a, b) for b in range(models) for a in range(b)]

    def own() -> None:
        areas = [
            Areas([[RankedRows(truth, row, units, patients)] for row in scores], "auroc")
            for truth, scores in made
        ]
        last[:] = replicates(areas, resample_weights(patients, resamples, 0), threads)
        for values in last:
            for a, b in pairs:
                interval_of(values[a] - values[b], 0.0)

    seconds = interleaved({"embank": own}, rounds=repeats, warm_up=False)
    difference, hand_seconds = _loop_by_hand(made, last, resamples, min(by_hand, resamples), patients)
    return {
        "pairs": len(pairs) * findings,
        "seconds": {name: Spread.of(times) for name, times in seconds.items()},
        "hand_seconds": hand_seconds * resamples * models * findings,
        "over_embank": ratio([hand_seconds * resamples * models * findings] * repeats, seconds["embank"]),
        "largest_difference": difference,
    }


def _loop_by_hand(
    made: Sequence[tuple[NDArray[np.bool_], NDArray[np.float64]]],
    last: Sequence[NDArray[np.float64]],
    resamples: int,
    count: int,
    patients: int,
) -> tuple[float, float]:
    """Return the largest difference to scikit-learn's AUROCs, and the seconds of one."""
    from sklearn.metrics import roc_auc_score

    which = len(made) // 2
    truth, scores = made[which]
    weights = next(resample_weights(patients, resamples, 0))[:, :count]
    start = time.perf_counter()
    areas = [roc_auc_score(truth, scores[0], sample_weight=column) for column in weights.T]
    seconds = (time.perf_counter() - start) / len(areas)
    return float(np.abs(np.array(areas) - last[which][0, : len(areas)]).max()), seconds


def run(
    images: int,
    patients: int,
    models: int,
    findings: int,
    resamples: int,
    repeats: int,
    by_hand: int = 20,
    threads: int | None = None,
) -> dict[str, Any]:
    """Time both; arguments as for `delong` and `bootstrap`."""
    threads = threads or usable_cores()
    return {
        "images": images,
        "patients": patients,
        "models": models,
        "findings": findings,
        "resamples": resamples,
        "threads": threads,
        "repeats": repeats,
        "machine": machine(),
        "delong": delong(images, repeats),
        "bootstrap": bootstrap(patients, models, findings, resamples, repeats, by_hand, threads),
    }


def _table(result: dict[str, Any]) -> str:
    pair, many = result["delong"], result["bootstrap"]
    head = (
        f"DeLong of {result['images']:,} images; bootstrap of {result['findings']} findings x "
        f"{result['models']} models, {many['pairs']:,} pairs, {result['resamples']:,} resamples of "
        f"{result['patients']:,} patients, {result['threads']} threads\n\n"
    )
    lines = [
        ["DeLong's test of a pair", str(pair["seconds"]["embank"])],
        ["  by hand, with scipy's ranks", str(pair["seconds"]["hand"])],
        ["  that / embank", str(pair["over_embank"])],
        ["  difference of z", f"{pair['largest_difference']:.2g}"],
        ["bootstrap of all", str(many["seconds"]["embank"])],
        ["  scikit-learn, a few resamples multiplied", f"{many['hand_seconds']:.4g}"],
        ["  that / embank", str(many["over_embank"])],
        ["  largest difference of an AUROC", f"{many['largest_difference']:.2g}"],
    ]
    return head + markdown_table(["", "seconds"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--images", type=int, default=224_316, help="of the pair")
    options.add_argument("--patients", type=int, default=10_000)
    options.add_argument("--models", type=int, default=20)
    options.add_argument("--findings", type=int, default=14)
    options.add_argument("--resamples", type=int, default=2_000)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--threads", type=int, default=None, help="default: all usable cores")
    args = options.parse_args(argv)
    result = run(
        args.images,
        args.patients,
        args.models,
        args.findings,
        args.resamples,
        args.repeats,
        threads=args.threads,
    )
    finish(result, _table(result), args)


if __name__ == "__main__":
    main()
