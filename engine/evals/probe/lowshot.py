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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.probe.evaluate import ProbeOptions, Progress, Task, learn
from engine.evals.probe.fitted import swept
from engine.kernels.episodes import Stream
from engine.kernels.metrics import Evaluation
from engine.kernels.standardize import Moments
from stores.limits import check_seed, check_whole

#: Draws at most; each is a fit for every number of images and value of C.
MAX_SEEDS = 1000


@dataclass(frozen=True)
class LowShot:
    """What to draw.

    Attributes:
        shots: images per class, each at least 1.
        seeds: how many draws; their seeds are `seed`, `seed` + 1, ...
        seed: of the first.
    """

    shots: tuple[int, ...] = (1, 2, 5, 10)
    seeds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 1 or len(set(self.shots)) < len(self.shots):
            raise Refused(
                f"images per class {list(self.shots)}",
                "They are different whole numbers from 1",
                "give a list such as --low-shot 1,2,5,10",
            )
        check_whole("seeds", self.seeds, 1, MAX_SEEDS, "five draws are usual (--seeds 5)")
        check_seed(self.seed)

    @classmethod
    def parse(cls, shots: str, seeds: int, seed: int) -> "LowShot":
        """From `1,2,5,10`. Raises Refused for other text."""
        words = shots.split(",")
        if not all(word.strip().isdecimal() and len(word) < 10 for word in words):
            raise Refused(
                f"images per class {shots!r}",
                "They are whole numbers below 10^9 with commas between them",
                "give a list such as --low-shot 1,2,5,10",
            )
        return cls(tuple(int(word) for word in words), seeds, seed)


def numbers(count: int, seed: int, data_set: str) -> NDArray[np.float64]:
    """One number for each image, float64 [count] in [0, 1), from numpy's Philox4x64.

    Its key is the first 128 bits, little endian, of SHA-256 over `embank low-shot 1 <JSON [seed, data set]>`.
    """
    text = f"embank low-shot 1 {json.dumps([seed, data_set])}"
    return Stream(hashlib.sha256(text.encode("ascii")).digest()[:16]).uniform(count)


def draw(
    codes: NDArray[np.integer[Any]], train: NDArray[np.intp], shots: int, order: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Rows of the `shots` train images of each class with the smallest numbers, sorted.

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
    chosen = np.concatenate([ranked[codes[ranked] == c][:shots] for c in classes])
    return np.sort(chosen)


def low_shot(
    features: NDArray[Any],
    task: Task,
    options: ProbeOptions,
    asked: LowShot,
    data_set: str,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Probe on every draw and summarise the seeds.

    Args:
        features: [N, d].
        data_set: name or digest, part of the key of the draws.
        on_progress: told ("low-shot", draws done, draws to do).

    Returns:
        `{shots, seeds, seed, curve: [{shots, images, best_C, NAME: {mean, ci95, values}}], ...}`; the names
        are those of `Evaluation.headline`; ci95 is Student's half width over the seeds, NaN for one seed,
        with a `ci95_reason`.

    Raises:
        Refused: a class has too few images for the largest number.
    """
    parts = task.parts
    orders = [numbers(len(task.codes), asked.seed + at, data_set) for at in range(asked.seeds)]
    draws = {shots: [draw(task.codes, parts.train, shots, one) for one in orders] for shots in asked.shots}
    moments = Moments.of(features, parts.train) if options.standardise else None
    points, stuck, done = [], 0, 0
    for shots, drawn in draws.items():
        found, chosen = [], []
        for rows in drawn:
            values, C, converged = _one(features, task, rows, moments, options)
            found.append(values)
            chosen.append(C)
            stuck += not converged
            done += 1
            if on_progress:
                on_progress("low-shot", done, len(asked.shots) * asked.seeds)
        summary = {name: _over_seeds([one[name] for one in found]) for name in found[0]}
        points.append({"shots": shots, "images": len(drawn[0]), "best_C": chosen, **summary})
    return {**asdict(asked), "curve": points, "draws_with_unconverged_fits": stuck}


def _one(
    features: NDArray[Any],
    task: Task,
    rows: NDArray[np.intp],
    moments: Moments | None,
    options: ProbeOptions,
) -> tuple[dict[str, float], float, bool]:
    """Test metrics and the chosen C of one draw, and whether all of its fits converged."""
    val, test = task.parts.val, task.parts.test
    fitted = learn(features, task, rows, options.C, moments, options)
    sweep, _ = swept(fitted, features, val, task.codes[val], options.select or "accuracy")
    at = int(np.argmax(np.asarray(fitted.fits.C) == sweep.C[sweep.best]))
    probabilities = fitted.probabilities(features, test, [at])[0]
    found = Evaluation.of(task.codes[test], probabilities, unseen=fitted.unseen).headline
    return found, float(sweep.C[sweep.best]), bool(sweep.converged.all())


def _over_seeds(values: Sequence[float]) -> dict[str, Any]:
    from scipy.stats import t

    n, half = len(values), math.nan
    if n > 1:
        half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    found: dict[str, Any] = {"mean": float(np.mean(values)), "ci95": half, "values": list(values)}
    if n < 2:
        found["ci95_reason"] = "an interval over draws needs two of them (--seeds)"
    return found
