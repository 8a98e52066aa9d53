"""Low-shot curves: a probe trained on 1, 2, 5, ... labelled images per class, over several seeds.

Every image of the data set gets one number from a stream whose key is (seed, data set); of each class the
train images with the smallest numbers are taken. So the 5 images of a class contain the 2, models see the
same images, and a failed image is replaced by one other. C is chosen on the whole validation part, which a
study with so few labels would not have: in that respect the curve is optimistic. There is no refit on
validation, and features are standardised by all train images, without their labels.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.validity import ValidityIssue, issue
from engine.evals.probe.fitted import swept
from engine.evals.probe.options import LowShot, ProbeOptions
from engine.evals.probe.single import Progress, learn
from engine.evals.probe.task import Task
from engine.kernels.episodes import Stream
from engine.kernels.metrics import Evaluation
from engine.kernels.standardize import Scaler
from stores.json_types import JsonObject

__all__ = ["LowShot", "LowShotCurve", "OverSeeds", "Shots", "draw", "low_shot", "numbers"]


def numbers(count: int, seed: int, data_set: str) -> NDArray[np.float64]:
    """Draw one number for each image, float64 [count] in [0, 1), from numpy's Philox4x64.

    Its key is the first 128 bits, little endian, of SHA-256 over `embank low-shot 1 <JSON [seed, data set]>`.
    """
    text = f"embank low-shot 1 {json.dumps([seed, data_set])}"
    return Stream(hashlib.sha256(text.encode("ascii")).digest()[:16]).uniform(count)


def draw(
    codes: NDArray[np.integer[Any]], train: NDArray[np.intp], shots: int, order: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Draw the `shots` train images of each class with the smallest numbers; return their rows, sorted.

    Args:
        codes: [N] classes of all images.
        train: rows to draw from, all with a class.
        order: `numbers` [N].

    Raises:
        Refused: a class has too few.
    """
    ranked = train[np.argsort(order[train], kind="stable")]
    classes, sizes = np.unique(codes[train], return_counts=True)
    if sizes.min() < shots:
        raise Refused(
            f"{shots} images per class, and the smallest class has {sizes.min()} in the train part",
            "Every class gives equally many",
            f"take at most {sizes.min()} with --low-shot",
        )
    rows = np.concatenate([ranked[codes[ranked] == c][:shots] for c in classes])
    return np.sort(rows)


@dataclass(frozen=True)
class OverSeeds:
    """A metric of several draws.

    Attributes:
        mean: of the draws; ci95: Student's half width over them, NaN for one draw.
        values: one a draw.
    """

    mean: float
    ci95: float
    values: tuple[float, ...]

    def to_dict(self) -> JsonObject:
        """Return `{mean, ci95, values}`, and `ci95_reason` where there is no interval."""
        body: JsonObject = {"mean": self.mean, "ci95": self.ci95, "values": [*self.values]}
        if len(self.values) < 2:
            body["ci95_reason"] = "an interval over draws needs two of them (--seeds)"
        return body


@dataclass(frozen=True)
class Shots:
    """One point of a low-shot curve.

    Attributes:
        shots: train images a class; images: of all classes.
        best_C: chosen in each draw.
        metrics: name -> over the draws, those of `Evaluation.headline`.
    """

    shots: int
    images: int
    best_C: tuple[float, ...]
    metrics: Mapping[str, OverSeeds]

    def to_dict(self) -> JsonObject:
        """Return `{shots, images, best_C, NAME: {mean, ci95, values}}`."""
        metrics: JsonObject = {name: metric.to_dict() for name, metric in self.metrics.items()}
        return {"shots": self.shots, "images": self.images, "best_C": [*self.best_C], **metrics}


@dataclass(frozen=True)
class LowShotCurve:
    """Probes on ever more labelled images.

    Attributes:
        seeds: draws at each point; seed: of the first.
        points: in the order requested.
        unconverged: draws with fits that did not converge.
    """

    seeds: int
    seed: int
    points: tuple[Shots, ...]
    unconverged: int

    @property
    def validity(self) -> Iterator[ValidityIssue]:
        """Issues of the fits."""
        if self.unconverged:
            text = (
                f"{self.unconverged} of {self.seeds * len(self.points)} draws have fits that did not converge"
            )
            yield issue("fits_not_converged", text, self.unconverged, subject="low-shot curve")

    def to_dict(self) -> JsonObject:
        """Return `{shots, seeds, seed, curve: [{shots, images, best_C, NAME: {...}}], ...}`."""
        return {
            "shots": [point.shots for point in self.points],
            "seeds": self.seeds,
            "seed": self.seed,
            "curve": [point.to_dict() for point in self.points],
            "draws_with_unconverged_fits": self.unconverged,
        }


def low_shot(
    features: NDArray[Any],
    task: Task,
    options: ProbeOptions,
    draws: LowShot,
    data_set: str,
    on_progress: Progress | None = None,
) -> LowShotCurve:
    """Probe on every draw and summarise the seeds.

    Args:
        features: [N, d].
        draws: how many images a class, and how often.
        data_set: name or digest, part of the key of the draws.
        on_progress: called with ("low-shot", draws done, draws to do).

    Raises:
        Refused: a class has too few images for the largest number.
    """
    parts = task.parts
    orders = [numbers(len(task.codes), draws.seed + number, data_set) for number in range(draws.seeds)]
    drawn = {
        shots: [draw(task.codes, parts.train, shots, order) for order in orders] for shots in draws.shots
    }
    moments = Scaler.of(features, parts.train) if options.standardise else None
    points, stuck, done = [], 0, 0
    for shots, samples in drawn.items():
        scores, strengths = [], []
        for rows in samples:
            values, C, converged = _one_draw(features, task, rows, moments, options)
            scores.append(values)
            strengths.append(C)
            stuck += not converged
            done += 1
            if on_progress:
                on_progress("low-shot", done, len(draws.shots) * draws.seeds)
        metrics = {name: _over_seeds([score[name] for score in scores]) for name in scores[0]}
        points.append(Shots(shots, len(samples[0]), tuple(strengths), metrics))
    return LowShotCurve(draws.seeds, draws.seed, tuple(points), stuck)


def _one_draw(
    features: NDArray[Any],
    task: Task,
    rows: NDArray[np.intp],
    moments: Scaler | None,
    options: ProbeOptions,
) -> tuple[dict[str, float], float, bool]:
    """Return test metrics and the chosen C of one draw, and whether all of its fits converged."""
    val, test = task.parts.val, task.parts.test
    fitted = learn(features, task, rows, options.C, moments, options)
    sweep, _ = swept(fitted, features, val, task.codes[val], options.select or "accuracy")
    best = int(np.argmax(np.asarray(fitted.fits.C) == sweep.C[sweep.best]))
    probabilities = fitted.probabilities(features, test, [best])[0]
    headline = Evaluation.of(task.codes[test], probabilities, unseen=fitted.unseen).headline
    return headline, float(sweep.C[sweep.best]), bool(sweep.converged.all())


def _over_seeds(values: Sequence[float]) -> OverSeeds:
    from scipy.stats import t

    n, half = len(values), math.nan
    if n > 1:
        half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return OverSeeds(float(np.mean(values)), half, tuple(values))
