"""Multi-view invariance: two pictures of one study or patient, compared by their stored features alone.

Frontal and lateral (CheXpert), left and right eye (EyePACS). The scored patients are halved; each half is
whitened by mean and covariance of all images of patients outside it, so that no pair influences the
statistics that it is measured by, even where every image is in a pair.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.one_line import counted, within
from engine.evals.common.predictions import Predictions, Table
from engine.evals.common.result import Metric
from engine.evals.common.validity import ValidityIssue
from engine.evals.invariance.options import MultiViewOptions
from engine.evals.invariance.pairs import Pairs, find_pairs
from engine.evals.invariance.statistics import Statistics, statistics_of
from engine.evals.invariance.summary import Baseline, Summary, summarise, too_few
from engine.kernels.intervals.cluster_robust import compact_groups, defined_rows, mean_across_groups, taken
from engine.kernels.whitening_place import whitening_on
from stores.json_types import JsonObject

__all__ = ["MultiViewResult", "Options", "Pairs", "Result", "evaluate"]


@dataclass(frozen=True, eq=False, repr=False)
class MultiViewResult:
    """Result of multi-view invariance.

    Attributes:
        pairs: number of possible pairs; first, second: intp [n], rows of those compared.
        groups: int64 [n], their patients. halves: int64 [n], 0 or 1, by patient.
        cosine, distance: float64 [n].
        summary: means with intervals over patients; the baseline is over all pairs of a first and a second
            view of different patients of one half.
        statistics: mean and covariance that each half was whitened by.
        options: what was measured.
        notes: remarks for the reader.
    """

    pairs: Pairs
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    groups: NDArray[np.int64]
    halves: NDArray[np.int64]
    cosine: NDArray[np.float64]
    distance: NDArray[np.float64]
    summary: Summary
    statistics: tuple[Statistics, Statistics]
    options: MultiViewOptions
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        cosine, low, high = _shown(self.metrics()["cosine"])
        return f"MultiViewResult(cosine {within(cosine, low, high)}, {counted(len(self.first), 'pair')})"

    @property
    def validity(self) -> tuple[ValidityIssue, ...]:
        """Issues of the covariances."""
        return tuple(one for statistics in self.statistics for one in statistics.validity)

    def metrics(self) -> dict[str, Metric]:
        """Return the mean cosine of pairs, and that of different patients."""
        return self.summary.metrics()

    def predictions(self) -> Predictions:
        """Return one table, `pairs`: cosine and distance of each pair, `_a` being the first view."""
        columns = {"cosine": self.cosine, "mahalanobis": self.distance, "half": self.halves}
        return Predictions({"pairs": Table(columns, {"_a": self.first, "_b": self.second})})

    def to_dict(self) -> JsonObject:
        """Return `{mode, transform: "multi-view", cosine, ci95, baseline, n, ...}`."""
        return {
            "mode": "default",
            "transform": "multi-view",
            **self.summary.to_dict(),
            "views": list(self.pairs.views),
            "paired_by": self.pairs.by,
            "pairs_found": len(self.pairs.first),
            "left_out": {**self.pairs.left_out},
            "same_label": self.options.same_label,
            "seed": self.options.seed,
            "arithmetic": self.options.arithmetic,
            "covariance": [statistics.numbers() for statistics in self.statistics],
        }


Options = MultiViewOptions
Result = MultiViewResult


def _shown(metric: Metric) -> tuple[float, float, float]:
    return metric.value, metric.low, metric.high


def evaluate(features: Features, options: MultiViewOptions, compute: Compute) -> MultiViewResult:
    """Compare pairs of views by the cosine of whitened deviations. Opens no image.

    Args:
        features: with views, and studies or groups.

    Raises:
        Refused: as `find_pairs` and `statistics_of`; fewer pairs than asked for; pairs of one patient only.
    """
    pairs = find_pairs(features, options)
    drawn = _choose(len(pairs.first), options)
    first, second = pairs.first[drawn], pairs.second[drawn]
    groups = _patients(features, first, second)
    halves = _halves(groups[first], options.seed)
    matrix = features.matrix(compute.device, compute.memory)
    cosine, distance = np.empty(len(first)), np.empty(len(first))
    statistics, unit = [], []
    for half in (0, 1):
        pairs_of_half = np.flatnonzero(halves == half)
        whitened_by = _statistics(features, groups, first[pairs_of_half], options, compute)
        whitening = whitening_on(compute.device, whitened_by.whitener, arithmetic=options.arithmetic)
        compared = whitening.compare(matrix, first[pairs_of_half], second[pairs_of_half])
        cosine[pairs_of_half], distance[pairs_of_half] = compared.cosine, compared.distance
        unit.append((compared.first, compared.second, groups[first[pairs_of_half]]))
        statistics.append(whitened_by)
    summary = summarise(cosine[:, None], distance[:, None], groups[first])
    summary = replace(summary, baseline=_baseline(unit), reason=too_few(summary.n, "pairs"))
    return MultiViewResult(
        pairs, first, second, groups[first], halves, cosine, distance, summary,
        (statistics[0], statistics[1]), options,
    )  # fmt: skip


def _statistics(
    features: Features,
    groups: NDArray[np.int64],
    first: NDArray[np.intp],
    options: MultiViewOptions,
    compute: Compute,
) -> Statistics:
    """Compute mean and covariance of images of all patients but those of the given pairs."""
    rows = np.flatnonzero(features.ok & ~np.isin(groups, groups[first]))
    if len(rows) < 2:
        raise Refused(
            f"{len(rows)} images of other patients than the pairs'",
            "Mean and covariance come from other patients",
            "add images of other patients",
        )
    how, arithmetic = options.regularisation, options.arithmetic
    return statistics_of(
        features, rows, how, arithmetic=arithmetic, device=compute.device, memory=compute.memory
    )


def _choose(count: int, options: MultiViewOptions) -> NDArray[np.intp]:
    if options.images is None:
        return np.arange(count)
    if not 1 <= options.images <= count:
        raise Refused(
            f"{options.images} pairs of {count} that can be made",
            "No pair is drawn twice",
            f"ask for 1 to {count}, or leave --images out for all",
        )
    return np.sort(np.random.default_rng(options.seed).permutation(count)[: options.images])


def _patients(features: Features, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return groups of all rows, int64 [N]; a pair without named groups gets a group of its own."""
    codes = features.texts("group")[0].copy()
    top = int(codes.max(initial=-1)) + 1
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        if codes[a] < 0 or codes[b] < 0:
            shared = max(codes[a], codes[b])
            if shared < 0:
                shared, top = top, top + 1
            codes[a] = codes[b] = shared
    return compact_groups(codes)


def _halves(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Assign each pair to half 0 or 1, by patient."""
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise Refused("Pairs of one patient only", "Two patients are needed to halve them", "add pairs")
    order = np.random.default_rng((seed, 1)).permutation(len(names))
    half = np.zeros(len(names), np.int64)
    half[order[: len(names) // 2]] = 1
    return np.asarray(half[codes])


def _baseline(
    halves: list[tuple[Any, Any, NDArray[np.int64]]],
) -> Baseline:
    """Return the mean over pairs of different patients of one half, weighted by their number."""
    means, errors, counts = [], [], []
    for a, b, groups in halves:
        known = np.flatnonzero(defined_rows(a, b))
        if len(known) < len(a):
            a, b, groups = taken(a, known), taken(b, known), groups[known]
        interval, count = mean_across_groups(a, b, groups)
        if count:
            means.append(interval.mean)
            errors.append(interval.ci95)
            counts.append(count)
    if not counts:
        return Baseline()
    share = np.array(counts) / sum(counts)
    return Baseline(float(share @ means), float(np.sqrt(share**2 @ np.square(errors))), sum(counts))
