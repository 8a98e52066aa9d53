"""Whether comparisons keep their promises: coverage of intervals, false positives, family-wise error.

Patients have one to five images, a part of whose scores they share, as models share another part. Without a
difference (the null) models are exchangeable; with one, the true difference follows from the normal
distribution of the scores. Everything but the scores is what `embank compare` does.

    python -m benchmarks.simulations.comparison --json results.json
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from engine.evals.comparison.answers import Panel
from engine.evals.comparison.measures import measure
from engine.evals.comparison.options import Options
from engine.evals.comparison.pairs import Models, parts_of
from engine.evals.comparison.result import Part
from engine.evals.comparison.tasks import Task
from engine.kernels.paired.delong import Components, differences_of
from engine.kernels.paired.mcnemar import mcnemar

#: Share of positives, and how far apart the classes' mean scores are.
_PREVALENCE, _SEPARATION = 0.35, 1.2
#: Variances of a score: the image's and the patient's parts that all models see, and the model's own ones.
_SHARED_IMAGE, _SHARED_PATIENT, _OWN_IMAGE, _OWN_PATIENT = 0.35, 0.2, 0.25, 0.2
METRICS = ("auroc", "accuracy", "mean_per_class_accuracy", "average_precision", "log_loss")


@dataclass(frozen=True, eq=False)
class Sample:
    """Scores of M models on the images of one simulated study.

    Attributes:
        units: int64 [n], patients.
        truth: int64 [n]; scores: float64 [M, n].
    """

    units: NDArray[np.int64]
    truth: NDArray[np.int64]
    scores: NDArray[np.float64]

    @classmethod
    def draw(cls, random: np.random.Generator, patients: int, separations: Sequence[float]) -> "Sample":
        """Draw a study; the models separate the classes by `separations`."""
        units = np.repeat(np.arange(patients), random.integers(1, 6, patients))
        rows, models = len(units), len(separations)
        patient = random.normal(size=patients) * 0.5  # patients have more or fewer positives
        truth = (random.normal(size=rows) * math.sqrt(0.75) + patient[units]) > -_quantile(_PREVALENCE)
        shared = math.sqrt(_SHARED_IMAGE) * random.normal(size=rows)
        shared += math.sqrt(_SHARED_PATIENT) * random.normal(size=patients)[units]
        own = math.sqrt(_OWN_IMAGE) * random.normal(size=(models, rows))
        own += math.sqrt(_OWN_PATIENT) * random.normal(size=(models, patients))[:, units]
        signal = np.asarray(separations)[:, None] * (truth - 0.5)
        return cls(units, truth.astype(np.int64), shared + own + signal)

    def compare(self, metric: str, options: Options) -> Part:
        """Compare the models as `embank compare` does."""
        count = int(self.units.max()) + 1
        panel = Panel((), (), self.units, count, True, ())
        probability = 1 / (1 + np.exp(-2 * self.scores))
        right = (self.scores > 0) == (self.truth == 1)
        scores = np.stack([1 - probability, probability], axis=2)
        task = Task("", np.arange(len(self.units)), self.truth, ("0", "1"), right, scores)
        names = tuple(f"model {place}" for place in range(len(self.scores)))
        models = Models(names, names, names)
        return parts_of(models, panel, [measure([task], metric, panel)], options, metric)[0]


def _quantile(share: float) -> float:
    """Return the normal deviate with `share` of the distribution above it, negated."""
    from scipy.special import ndtri

    return float(ndtri(share))


def true_values(separation: float) -> dict[str, float]:
    """Return the expected value of the metrics that have a closed form."""
    deviation = math.sqrt(_SHARED_IMAGE + _SHARED_PATIENT + _OWN_IMAGE + _OWN_PATIENT)
    recall = float(ndtr(0.5 * separation / deviation))
    area = float(ndtr(separation / deviation / math.sqrt(2)))
    return {"auroc": area, "accuracy": recall, "mean_per_class_accuracy": recall}


def false_positives(studies: int, patients: int, resamples: int, seed: int = 0) -> dict[str, float]:
    """Return the share of studies of two equal models with p <= 0.05, by metric.

    `... as images` are the tests that ignore patients, for contrast.
    """
    random = np.random.default_rng([seed, 1])
    counts = dict.fromkeys([*METRICS, "auroc as images", "accuracy as images"], 0)
    for study in range(studies):
        sample = Sample.draw(random, patients, [_SEPARATION] * 2)
        for metric in METRICS:
            pair = sample.compare(metric, Options(resamples=resamples, seed=study)).pairs[0]
            counts[metric] += pair.p <= 0.05
        alone = Components.of(sample.truth == 1, sample.scores)
        counts["auroc as images"] += differences_of(alone.areas, alone.covariance).p[0, 1] <= 0.05
        right = (sample.scores > 0) == (sample.truth == 1)
        counts["accuracy as images"] += mcnemar(right[0], right[1]).p <= 0.05
    return {name: count / studies for name, count in counts.items()}


def family_wise(studies: int, patients: int, models: int, resamples: int, seed: int = 0) -> dict[str, float]:
    """Return the share of studies of equal models with any pair told apart after Holm's adjustment."""
    random = np.random.default_rng([seed, 2])
    metrics = ("auroc", "accuracy", "mean_per_class_accuracy")
    counts = dict.fromkeys(metrics, 0)
    for study in range(studies):
        sample = Sample.draw(random, patients, [_SEPARATION] * models)
        for metric in metrics:
            part = sample.compare(metric, Options(resamples=resamples, seed=study))
            counts[metric] += any(pair.different for pair in part.pairs)
    return {name: count / studies for name, count in counts.items()}


def coverage(studies: int, patients: int, resamples: int, seed: int = 0) -> dict[str, float]:
    """Return the share of studies whose interval of a true difference holds it, by metric and interval."""
    random = np.random.default_rng([seed, 3])
    better, worse = _SEPARATION + 0.3, _SEPARATION
    first, second = true_values(better), true_values(worse)
    counts = {f"{metric}, {kind}": 0 for metric in first for kind in ("percentile", "bca")}
    for study in range(studies):
        sample = Sample.draw(random, patients, [better, worse])
        for metric in first:
            for kind in ("percentile", "bca"):
                options = Options(resamples=resamples, seed=study, bca=kind == "bca")
                pair = sample.compare(metric, options).pairs[0]
                truth = first[metric] - second[metric]
                truth = truth if pair.a == "model 0" else -truth
                counts[f"{metric}, {kind}"] += pair.low <= truth <= pair.high
    return {name: count / studies for name, count in counts.items()}


def run(patients: int, resamples: int, nulls: int, families: int, covered: int) -> dict[str, Any]:
    """Run all three simulations; arguments are patients a study, resamples, and numbers of studies."""
    return {
        "patients": patients,
        "resamples": resamples,
        "studies": {"false_positives": nulls, "family_wise": families, "coverage": covered},
        "false_positives": false_positives(nulls, patients, resamples),
        "family_wise": family_wise(families, patients, 5, resamples),
        "coverage": coverage(covered, patients, resamples),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--patients", type=int, default=100, help="patients a study")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--nulls", type=int, default=2000, help="studies of two equal models")
    parser.add_argument("--families", type=int, default=2000, help="studies of five equal models")
    parser.add_argument("--covered", type=int, default=1000, help="studies of two different models")
    parser.add_argument("--json", type=Path, help="also write the results here")
    args = parser.parse_args(argv)
    result = run(args.patients, args.resamples, args.nulls, args.families, args.covered)
    for name in ("false_positives", "family_wise", "coverage"):
        print(f"{name.replace('_', ' ')} (studies: {result['studies'][name]:,})")
        for what, share in result[name].items():
            print(f"  {what}: {share:.4f}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
