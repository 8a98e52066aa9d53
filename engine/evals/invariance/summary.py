"""Summary of an invariance: means with intervals over patients, and the baseline of different images."""

from dataclasses import dataclass
from math import isfinite, nan

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.result import Metric
from engine.evals.invariance.options import LEAST_IMAGES
from engine.kernels.intervals.cluster_robust import mean_interval
from stores.json_types import JsonObject

_TWO = "an interval needs two images of different patients"
_THREE = "an interval needs images of three different patients"
#: Fields that are undefined where a summary has a reason.
_NUMBERS = ("cosine", "ci95", "mahalanobis", "mahalanobis_ci95", "baseline", "baseline_ci95")


@dataclass(frozen=True)
class Baseline:
    """Mean cosine between different images: the value of a model that recognises nothing.

    Attributes:
        mean, ci95: NaN where they are undefined. pairs: of images of different patients.
    """

    mean: float = nan
    ci95: float = nan
    pairs: int = 0

    def to_dict(self) -> JsonObject:
        """Return `{baseline, baseline_ci95, baseline_pairs}`, and why there is no interval."""
        body: JsonObject = {"baseline": self.mean, "baseline_ci95": self.ci95}
        if not isfinite(self.ci95):
            body["baseline_ci95_reason"] = _THREE
        return {**body, "baseline_pairs": self.pairs}


@dataclass(frozen=True)
class Summary:
    """Means over views, then images, with intervals over groups.

    Attributes:
        cosine, ci95: mean cosine, and half the width of its 95 % interval.
        mahalanobis, mahalanobis_ci95: mean distance, likewise.
        n, groups: images with a cosine, and their patients.
        undefined: cosines of views that are undefined.
        baseline: of different images.
        reason: why the numbers above are not valid; "" where they are.
    """

    cosine: float
    ci95: float
    mahalanobis: float
    mahalanobis_ci95: float
    n: int
    groups: int
    undefined: int
    baseline: Baseline = Baseline()
    reason: str = ""

    @classmethod
    def empty(cls, reason: str) -> "Summary":
        """Summarise no image at all."""
        return cls(nan, nan, nan, nan, 0, 0, 0, reason=reason)

    def metrics(self) -> dict[str, Metric]:
        """Return the mean cosine and the baseline."""
        if self.reason:
            return {name: Metric(nan, reason=self.reason) for name in ("cosine", "baseline")}
        return {
            "cosine": _metric(self.cosine, self.ci95, _TWO),
            "baseline": _metric(self.baseline.mean, self.baseline.ci95, _THREE),
        }

    def to_dict(self) -> JsonObject:
        """Return all numbers, NaN where there is a `reason`, and the reasons of intervals."""
        body: JsonObject = {
            "cosine": self.cosine,
            "ci95": self.ci95,
            "mahalanobis": self.mahalanobis,
            "mahalanobis_ci95": self.mahalanobis_ci95,
            "n": self.n,
            "groups": self.groups,
            "undefined": self.undefined,
        }
        for name in ("ci95", "mahalanobis_ci95"):
            if not isfinite(getattr(self, name)):
                body[f"{name}_reason"] = _TWO
        body |= self.baseline.to_dict()
        return {**body, **dict.fromkeys(_NUMBERS, nan), "reason": self.reason} if self.reason else body


def _metric(mean: float, half: float, no_interval: str) -> Metric:
    if not isfinite(mean):
        return Metric(nan, reason="a view is undefined for all images")
    return Metric(mean, mean - half, mean + half, "" if isfinite(half) else no_interval)


def summarise(
    cosine: NDArray[np.float64],
    distance: NDArray[np.float64],
    groups: NDArray[np.int64],
    *,
    published: bool = False,
) -> Summary:
    """Average over views, then images, with intervals over groups.

    Args:
        cosine, distance: float64 [n, views]; a cosine may be NaN.
        groups: int64 [n], patients.
        published: average over images for each view, leaving out what is undefined, then over views; a view
            that is undefined for all images makes the result NaN.
    """
    defined = np.isfinite(cosine)
    usable = defined.any(axis=1)
    of_cosine = mean_interval(mean_of_views(cosine)[usable], groups[usable])
    of_distance = mean_interval(distance.mean(axis=1), groups)
    mean = of_cosine.mean
    if published and len(cosine):
        mean = float(mean_of_images(cosine).mean())
    return Summary(
        mean,
        of_cosine.ci95,
        of_distance.mean,
        of_distance.ci95,
        int(usable.sum()),
        len(np.unique(groups[usable])),
        int((~defined).sum()),
    )


def mean_of_views(cosine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average [n, views] over the views that are defined: float64 [n], NaN where none is."""
    return _mean(cosine, 1)


def mean_of_images(cosine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average [n, views] over the images that are defined: float64 [views], NaN where none is."""
    return _mean(cosine, 0)


def interval_of_images(cosine: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return half the width of the 95 % interval of each mean of `mean_of_images`, only groups independent.

    Args:
        cosine: float64 [n, views]; a cosine may be NaN.
        groups: int64 [n], patients.

    Returns:
        float64 [views], NaN where fewer than two groups have a cosine.
    """
    defined = np.isfinite(cosine)
    return np.array(
        [mean_interval(x[use], groups[use]).ci95 for x, use in zip(cosine.T, defined.T, strict=True)]
    )


def _mean(cosine: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    defined = np.isfinite(cosine)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, cosine, 0).sum(axis=axis) / defined.sum(axis=axis))


def too_few(n: int, what: str = "images") -> str:
    """Say why there is no number where fewer than `LEAST_IMAGES` are scored; "" where there are enough.

    Args:
        n: different images (or pairs of them) scored.
        what: they are, in words.
    """
    if n >= LEAST_IMAGES:
        return ""
    return f"it rests on {n} {what}, and fewer than {LEAST_IMAGES} give no number (raise --images)"
