"""Percentile bootstrap over patients (groups): 95 % intervals of the metrics of a classification."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from engine.kernels.episodes import Stream
from engine.kernels.intervals.bootstrap import undefined_reason
from engine.kernels.intervals.cluster_robust import compact_groups
from engine.kernels.intervals.weighted_ranking import WeightedRanking
from engine.kernels.metrics import CALIBRATION_BINS, Codes, Evaluation, Floats, bin_of
from engine.kernels.operating_points import at_specificity
from stores.json_types import JsonObject

#: Name of the largest sensitivity at a specificity.
SENSITIVITY = "sensitivity_at_specificity"
#: Random numbers drawn at a time for a block of bootstrap resamples.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Percentiles:
    """Percentile interval of a metric when the patients (or images) tested are resampled.

    Attributes:
        low, high: 2.5th and 97.5th percentile; NaN where the metric is undefined.
        groups: number of groups resampled.
        resamples: number of resamples used.
        left_out: number of resamples in which the metric is undefined, e.g. because a class is missing.
        reason: why low and high are NaN; "" if they are numbers.
    """

    low: float
    high: float
    groups: int
    resamples: int
    left_out: int
    reason: str = ""

    def to_dict(self) -> JsonObject:
        """Return all fields for JSON; `reason` only if there is one."""
        fields = asdict(self)
        if not self.reason:
            del fields["reason"]
        return fields


def bootstrap_metrics(
    truth: Codes,
    probabilities: Floats,
    groups: Codes | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    unseen: Sequence[int] = (),
    specificity: float | None = None,
) -> dict[str, Percentiles]:
    """Bootstrap the metrics of `Evaluation.headline` over groups, each with all of its rows.

    The classifier is not refitted: the intervals show how a metric depends on the patients tested, not on
    those trained on. The same seed and groups give the same resamples, whatever the probabilities.

    Args:
        truth: [n] classes from 0; probabilities: [n, K], finite.
        groups: [n] group (patient) of each row; a row with a negative code is a group of its own. None
            resamples rows.
        unseen: as in `Evaluation.of`.
        specificity: also bootstrap the largest sensitivity at it, of two classes.

    Returns:
        An interval for each metric, by name; of the sensitivity as `SENSITIVITY`.
    """
    headline = Evaluation.of(truth, probabilities, unseen=unseen).headline
    if specificity is not None:
        headline[SENSITIVITY] = at_specificity(truth == 1, probabilities[:, 1], specificity).sensitivity
    known = np.full(len(truth), -1) if groups is None else groups
    codes = compact_groups(known) if len(truth) else np.zeros(0, np.int64)
    count = int(codes.max(initial=-1)) + 1
    if reason := undefined_reason(count, resamples):
        return {name: Percentiles(math.nan, math.nan, count, 0, 0, reason) for name in headline}
    tables = MetricTables.of(truth, probabilities, codes, unseen, specificity)
    blocks = [tables.metrics(drawn) for drawn in group_counts(seed, resamples, count, len(truth))]
    return {
        name: percentiles_of(np.concatenate([block[name] for block in blocks]), value, count)
        for name, value in headline.items()
    }


def group_counts(seed: int, resamples: int, groups: int, rows: int) -> Iterator[Floats]:
    """Yield blocks float64 [r, groups] of how often each group occurs in `groups` draws with replacement.

    Args:
        seed: of the draws; resamples: sum of all r.
        rows: of all groups, which decide how many resamples a block has.
    """
    stream = Stream(hashlib.sha256(f"embank bootstrap 1 {seed}".encode()).digest()[:16])
    step = max(1, _BLOCK // rows)
    for start in range(0, resamples, step):
        r = min(step, resamples - start)
        places = (stream.uniform(r, groups) * groups).astype(np.int64)
        places += np.arange(r)[:, None] * groups
        counts = np.bincount(places.ravel(), minlength=r * groups)
        yield counts.reshape(r, groups).astype(np.float64)


def percentiles_of(values: Floats, estimate: float, groups: int) -> Percentiles:
    """Return the percentile interval of an estimate by its resampled values [r], NaN where undefined."""
    defined = values[np.isfinite(values)]
    left_out = len(values) - len(defined)
    if math.isnan(estimate) or len(defined) < 2:
        reason = (
            "the metric is not defined"
            if math.isnan(estimate)
            else "it is defined in fewer than two resamples"
        )
        return Percentiles(math.nan, math.nan, groups, 0, len(values), reason)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Percentiles(float(low), float(high), groups, len(defined), left_out)


@dataclass(frozen=True)
class MetricTables:
    """Sums and rankings of [n] rows, shared by all resamples.

    Attributes:
        groups: [n], group of each row, from 0.
        sums: [groups, m], sums over each group of the columns that `metrics` splits again.
        classes: number of classes that occur.
        rankings: one for each class in the headline's mean AUROC and mean average precision.
        loss: whether log loss is defined.
        specificity: at which the sensitivity is wanted.
    """

    groups: NDArray[np.int64]
    sums: Floats
    classes: int
    rankings: list[WeightedRanking]
    loss: bool
    specificity: float | None = None

    @classmethod
    def of(
        cls,
        truth: Codes,
        probabilities: Floats,
        groups: NDArray[np.int64],
        unseen: Sequence[int],
        specificity: float | None = None,
        count: int | None = None,
    ) -> "MetricTables":
        """Sum and sort; other arguments as for `bootstrap_metrics`.

        Args:
            groups: [n], from 0.
            count: number of groups that are drawn from; by default those that the rows have.
        """
        n, classes = probabilities.shape
        correct = probabilities.argmax(axis=1) == truth
        top = probabilities.max(axis=1)
        occurring, code = np.unique(truth, return_inverse=True)
        one_hot = np.eye(len(occurring))[code]
        binned = np.eye(CALIBRATION_BINS)[bin_of(top, CALIBRATION_BINS)]
        eps = float(np.finfo(np.float64).eps)
        loss = -np.log(np.clip(probabilities[np.arange(n), truth].astype(np.float64), eps, 1 - eps))
        columns = [np.ones((n, 1)), loss[:, None], one_hot, one_hot * correct[:, None]]
        columns.append(binned * (correct - top)[:, None])
        sums = np.zeros((count or int(groups.max()) + 1, sum(column.shape[1] for column in columns)))
        np.add.at(sums, groups, np.concatenate(columns, axis=1))
        ranked_classes = [1] if classes == 2 else [int(c) for c in occurring if c not in unseen]
        rankings = [WeightedRanking.of(truth == c, probabilities[:, c]) for c in ranked_classes]
        known = not np.isin(truth, list(unseen)).any()
        return cls(groups, sums, len(occurring), rankings, known, specificity)

    def metrics(self, drawn: Floats) -> dict[str, Floats]:
        """Return every metric [r] for resamples given as counts of each group, [r, groups]."""
        k = self.classes
        ends = np.cumsum([1, 1, k, k])
        rows, loss, rows_by_class, correct, gaps = np.split(drawn @ self.sums, ends, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = (correct / rows_by_class).mean(axis=1)  # NaN where a class is missing
        weights = np.ascontiguousarray(drawn.T)[self.groups]
        areas = np.array([ranking.areas(weights, self.specificity) for ranking in self.rankings])
        means = areas.mean(axis=0) if len(areas) else np.full((3, len(drawn)), np.nan)
        auroc, precision = means[:2]
        total = rows[:, 0]
        more = {} if self.specificity is None else {SENSITIVITY: means[2]}
        with np.errstate(
            invalid="ignore"
        ):  # no row may have been drawn, where these are a part of the groups
            return {
                "accuracy": correct.sum(axis=1) / total,
                "mean_per_class_accuracy": recall,
                "auroc": auroc,
                "average_precision": precision,
                "log_loss": loss[:, 0] / total if self.loss else np.full(len(drawn), np.nan),
                "calibration_error": np.abs(gaps).sum(axis=1) / total,
                **more,
            }
