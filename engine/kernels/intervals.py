"""95 % intervals: over episodes, between models on the same episodes, over the patients tested."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.episodes import Stream, own_groups
from engine.kernels.metrics import CALIBRATION_BINS, Codes, Evaluation, Floats, bin_of

#: Numbers that a block of bootstrap resamples may draw at a time.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean and the half width of its 95 % interval."""

    mean: float
    ci95: float


def over_episodes(values: NDArray[np.float64], *, population: bool = False) -> Interval:
    """Mean of [E] values and 1.96 s / sqrt(E), E at least 2.

    Args:
        population: let s divide by E, as the study's code does, instead of E - 1.
    """
    spread = values.std(ddof=0 if population else 1)
    return Interval(float(values.mean()), float(1.96 * spread / np.sqrt(len(values))))


def paired(first: NDArray[np.float64], second: NDArray[np.float64]) -> Interval:
    """Difference first - second of two models on the same episodes [E], from its value in each episode."""
    return over_episodes(first - second)


@dataclass(frozen=True)
class Bootstrap:
    """Percentile interval of an accuracy when its query patients are drawn anew.

    Attributes:
        low, high: 2.5th and 97.5th percentile of the resampled accuracies; NaN where there is no interval.
        groups: that were drawn from.
        resamples: how often.
        reason: why low and high are NaN, "" where they are not.
    """

    low: float
    high: float
    groups: int
    resamples: int
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """All fields; `reason` only where there is one."""
        return {name: value for name, value in asdict(self).items() if name != "reason" or value}


def no_interval(groups: int, resamples: int) -> str:
    """Say why a bootstrap gives no interval; "" if it gives one.

    All resamples of one group are the same: an interval of no width would look like certainty.
    """
    if groups < 2:
        return f"{groups} patient{'' if groups == 1 else 's'} (or images) to draw from: an interval needs two"
    return "" if resamples >= 2 else f"{resamples} resample: an interval needs two, and 1000 are usual"


def over_groups(
    correct: NDArray[Any], asked: NDArray[Any], groups: NDArray[np.int64], resamples: int, stream: Stream
) -> Bootstrap:
    """Bootstrap the pooled accuracy over groups (patients), each with all of its queries in all episodes.

    What it does not vary is the support: it says how the accuracy depends on who is asked, not on whom the
    prototypes were made of.

    Args:
        correct: [N] right answers of each image; asked: [N] how often it was a query.
        groups: int64 [N], group of each image, from 0.
        resamples: number of bootstrap samples.
    """
    queried = np.flatnonzero(asked)
    codes = np.unique(groups[queried], return_inverse=True)[1]
    n = np.bincount(codes, weights=asked[queried])
    c = np.bincount(codes, weights=correct[queried])
    if why := no_interval(len(n), resamples):
        return Bootstrap(math.nan, math.nan, len(n), resamples, why)
    step, found = max(1, _BLOCK // len(n)), []
    for start in range(0, resamples, step):
        numbers = stream.uniform(min(step, resamples - start), len(n))
        drawn = (numbers * len(n)).astype(np.int64)
        found.append(c[drawn].sum(axis=1) / n[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
    return Bootstrap(float(low), float(high), len(n), resamples)


@dataclass(frozen=True)
class Percentiles:
    """Percentile interval of a metric when the patients (or images) tested are drawn anew.

    Attributes:
        low, high: 2.5th and 97.5th percentile; NaN where the metric is not defined.
        groups: that were drawn from.
        resamples: that enter; `left_out`: those in which the metric is not defined, as a class is missing.
        reason: why low and high are NaN, "" where they are not.
    """

    low: float
    high: float
    groups: int
    resamples: int
    left_out: int
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        found = asdict(self)
        if not self.reason:
            del found["reason"]
        return found


def resampled(
    truth: Codes,
    probabilities: Floats,
    groups: Codes | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    unseen: Sequence[int] = (),
) -> dict[str, Percentiles]:
    """Bootstrap the metrics of `Evaluation.headline` over groups, each with all of its rows.

    The fit stays as it is: the intervals say how a metric depends on who is tested, not on who was trained
    on. The same seed and groups draw the same resamples, whatever the probabilities.

    Args:
        truth: [n] classes from 0; probabilities: [n, K], finite.
        groups: [n] group (patient) of each row, negative where unknown (then a row is a group of its own);
            None for rows drawn one by one.
        unseen: as in `Evaluation.of`.
    """
    whole = Evaluation.of(truth, probabilities, unseen=unseen).headline
    known = np.full(len(truth), -1) if groups is None else groups
    codes = np.unique(own_groups(known), return_inverse=True)[1] if len(truth) else np.zeros(0, np.int64)
    count = int(codes.max(initial=-1)) + 1
    if why := no_interval(count, resamples):
        return {name: Percentiles(math.nan, math.nan, count, 0, 0, why) for name in whole}
    stream = Stream(hashlib.sha256(f"embank bootstrap 1 {seed}".encode()).digest()[:16])
    tables = _Tables.of(truth, probabilities, codes, unseen)
    blocks = [tables.metrics(drawn) for drawn in _drawn(stream, resamples, count, len(truth))]
    return {
        name: _percentiles(np.concatenate([block[name] for block in blocks]), value, count)
        for name, value in whole.items()
    }


def _drawn(stream: Stream, resamples: int, groups: int, rows: int) -> Iterator[Floats]:
    """Blocks float64 [r, groups]: how often each group was drawn, `groups` draws with replacement."""
    step = max(1, _BLOCK // rows)
    for start in range(0, resamples, step):
        r = min(step, resamples - start)
        places = (stream.uniform(r, groups) * groups).astype(np.int64)
        places += np.arange(r)[:, None] * groups
        counts = np.bincount(places.ravel(), minlength=r * groups)
        yield counts.reshape(r, groups).astype(np.float64)


def _percentiles(values: Floats, whole: float, groups: int) -> Percentiles:
    kept = values[np.isfinite(values)]
    left_out = len(values) - len(kept)
    if math.isnan(whole) or len(kept) < 2:
        why = (
            "the metric is not defined" if math.isnan(whole) else "it is defined in fewer than two resamples"
        )
        return Percentiles(math.nan, math.nan, groups, 0, len(values), why)
    low, high = np.percentile(kept, [2.5, 97.5])
    return Percentiles(float(low), float(high), groups, len(kept), left_out)


@dataclass(frozen=True)
class _Ranking:
    """One class against the rest, sorted once: what weighted AUROC and average precision take.

    Attributes:
        positive, negative: rows, by ascending score.
        below, upto: [positives] negatives with a smaller score, and with a score not larger.
        tied: [positives] first of the positives with the same score.
    """

    positive: NDArray[np.intp]
    negative: NDArray[np.intp]
    below: NDArray[np.intp]
    upto: NDArray[np.intp]
    tied: NDArray[np.intp]

    @classmethod
    def of(cls, positive: NDArray[np.bool_], scores: Floats) -> "_Ranking":
        order = np.argsort(scores, kind="stable")
        p, n = order[positive[order]], order[~positive[order]]
        below, upto = (np.searchsorted(scores[n], scores[p], side) for side in ("left", "right"))
        return cls(p, n, below, upto, np.searchsorted(scores[p], scores[p], "left"))

    def areas(self, weights: Floats) -> tuple[Floats, Floats]:
        """AUROC and average precision [r] under row weights [n, r]; NaN where a side has no weight."""
        w = weights[self.positive]
        found, wrong = _from_zero(w), _from_zero(weights[self.negative])
        lower = wrong[self.below]
        ranked = 0.5 * (lower + wrong[self.upto]) if (self.below != self.upto).any() else lower
        true = found[-1] - found[self.tied]
        false = wrong[-1] - lower
        precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            area = np.einsum("ir,ir->r", w, ranked) / (found[-1] * wrong[-1])
            average = np.einsum("ir,ir->r", w, precision) / found[-1]
        return area, np.where(np.isfinite(area), average, np.nan)


def _from_zero(weights: Floats) -> Floats:
    """Sums [m + 1, r] of the first 0, 1, ... m rows."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums


@dataclass(frozen=True)
class _Tables:
    """What all resamples share.

    Attributes:
        groups: [n], group of each row, from 0.
        sums: [groups, m], a group's sums of the columns `metrics` takes apart.
        classes: number of classes that occur.
        rankings: of the classes that the headline's AUROC and average precision are means of.
        loss: whether log loss is defined.
    """

    groups: NDArray[np.int64]
    sums: Floats
    classes: int
    rankings: list[_Ranking]
    loss: bool

    @classmethod
    def of(
        cls, truth: Codes, probabilities: Floats, groups: NDArray[np.int64], unseen: Sequence[int]
    ) -> "_Tables":
        n, classes = probabilities.shape
        right = probabilities.argmax(axis=1) == truth
        top = probabilities.max(axis=1)
        occurring, code = np.unique(truth, return_inverse=True)
        one_hot = np.eye(len(occurring))[code]
        binned = np.eye(CALIBRATION_BINS)[bin_of(top, CALIBRATION_BINS)]
        eps = float(np.finfo(np.float64).eps)
        loss = -np.log(np.clip(probabilities[np.arange(n), truth].astype(np.float64), eps, 1 - eps))
        columns = [np.ones((n, 1)), loss[:, None], one_hot, one_hot * right[:, None]]
        columns.append(binned * (right - top)[:, None])
        sums = np.zeros((int(groups.max()) + 1, sum(each.shape[1] for each in columns)))
        np.add.at(sums, groups, np.concatenate(columns, axis=1))
        ranked = [1] if classes == 2 else [int(c) for c in occurring if c not in unseen]
        rankings = [_Ranking.of(truth == c, probabilities[:, c]) for c in ranked]
        return cls(groups, sums, len(occurring), rankings, not np.isin(truth, list(unseen)).any())

    def metrics(self, drawn: Floats) -> dict[str, Floats]:
        """Every metric [r] of resamples, from how often each group was drawn, [r, groups]."""
        k = self.classes
        ends = np.cumsum([1, 1, k, k])
        rows, loss, held, found, gaps = np.split(drawn @ self.sums, ends, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = (found / held).mean(axis=1)  # NaN where a class is missing
        weights = np.ascontiguousarray(drawn.T)[self.groups]
        areas = np.array([ranking.areas(weights) for ranking in self.rankings])
        area, precision = areas.mean(axis=0) if len(areas) else np.full((2, len(drawn)), np.nan)
        total = rows[:, 0]
        return {
            "accuracy": found.sum(axis=1) / total,
            "mean_per_class_accuracy": recall,
            "auroc": area,
            "average_precision": precision,
            "log_loss": loss[:, 0] / total if self.loss else np.full(len(drawn), np.nan),
            "calibration_error": np.abs(gaps).sum(axis=1) / total,
        }
