"""Whether the gaps between strata and the proportions at a threshold keep their promises.

Patients have one to five images, a part of whose scores they share. Images fall into strata by chance, so
that one patient may have images in several, and no stratum differs from another: a gap that is told apart
from 0 is a false positive. Everything but the scores is what `embank probe` does.

    python -m benchmarks.simulations.strata
"""

import argparse
from collections.abc import Sequence

import numpy as np

from engine.kernels.intervals.strata_bootstrap import largest_gap, resampled_in_strata
from engine.kernels.metrics import Classification
from engine.kernels.operating_points import proportion


def false_gaps(studies: int, strata: int, resamples: int, seed: int = 0) -> dict[str, float]:
    """Return the share of studies of equal strata whose largest gap is told apart, by metric."""
    random, counts = np.random.default_rng([seed, strata]), {"accuracy": 0, "auroc": 0}
    for study in range(studies):
        patients = 50 * strata
        units = np.repeat(np.arange(patients), random.integers(1, 6, patients))
        truth, place = (random.integers(0, most, len(units)) for most in (2, strata))
        side = 2 * truth - 1
        score = 1.2 * side + random.normal(size=len(units)) + 0.7 * side * random.normal(size=patients)[units]
        second = 1 / (1 + np.exp(-score))
        probabilities = np.stack([1 - second, second], axis=1)
        rows = [np.flatnonzero(place == own) for own in range(strata)]
        drawn, _ = resampled_in_strata(truth, probabilities, units, rows, resamples=resamples, seed=study)
        tests = [Classification.of(truth[own], probabilities[own]) for own in rows]
        for metric in counts:
            values = [getattr(test, metric) for test in tests]
            counts[metric] += largest_gap(values, drawn[metric]).low > 0
    return {metric: count / studies for metric, count in counts.items()}


def proportion_coverage(studies: int, share: float, patients: int = 60, seed: int = 0) -> float:
    """Return the share of studies whose interval of a proportion holds the true one.

    Args:
        share: the true proportion; those of patients have a beta distribution around it.
    """
    random, covered = np.random.default_rng([seed, round(1000 * share)]), 0
    for _ in range(studies):
        units = np.repeat(np.arange(patients), random.integers(1, 6, patients))
        rates = random.beta(4 * share, 4 * (1 - share), patients)
        interval = proportion(random.random(len(units)) < rates[units], units)
        covered += interval.low <= share <= interval.high
    return covered / studies


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=400)
    args = parser.parse_args(argv)
    for strata in (2, 3, 5):
        for metric, share in false_gaps(args.studies, strata, args.resamples).items():
            print(f"gap of {metric} between {strata} equal strata told apart: {share:.4f}")
    for share in (0.05, 0.5, 0.8, 0.95):
        covered = proportion_coverage(args.studies, share)
        print(f"interval of a proportion holds the true {share:g}: {covered:.4f}")


if __name__ == "__main__":
    main()
