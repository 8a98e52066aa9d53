"""All pairs of some models: intervals, tests, adjusted p values, and the order of the models."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from engine.evals.comparison.answers import Panel
from engine.evals.comparison.measures import Measure
from engine.evals.comparison.options import SMALLER_IS_BETTER, Options
from engine.evals.comparison.result import Episodes, Pair, Part, Standing
from engine.evals.comparison.tasks import Queries
from engine.kernels.intervals.bootstrap import undefined_reason
from engine.kernels.paired.bootstrap import (
    BootstrapInterval,
    interval_of,
    left_out_weights,
    p_value,
    replicates,
    resample_weights,
)
from engine.kernels.paired.holm import holm
from engine.kernels.paired.letters import letters
from engine.kernels.paired.ranks import rank_intervals

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Resampled:
    """A measure and its resamples.

    Attributes:
        resampled: float64 [M, R]; left_out: float64 [M, P] without one patient each, for BCa.
        reason: why there is no interval; "" if there is one.
    """

    own: Measure
    resampled: Floats | None
    left_out: Floats | None
    reason: str

    def interval(self, a: int, b: int | None = None) -> BootstrapInterval:
        """Return the interval of one model's value, or of a difference a - b."""
        if self.resampled is None:
            return BootstrapInterval(math.nan, math.nan, math.nan, 0, self.reason)
        values, resampled, without = self.own.values, self.resampled, self.left_out
        if b is None:
            return interval_of(resampled[a], float(values[a]), None if without is None else without[a])
        left_out = None if without is None else without[a] - without[b]
        return interval_of(resampled[a] - resampled[b], float(values[a] - values[b]), left_out)


def _resampled(measures: Sequence[Measure], panel: Panel, options: Options) -> list[_Resampled]:
    """Resample the patients once for all measures."""
    few = undefined_reason(panel.count, options.resamples)
    if few:
        return [_Resampled(own, None, None, few) for own in measures]
    first, *others = measures
    if first.mean_of_others and all(own.statistic is not None for own in (first, *others)):
        resampled = _drawn(others, panel, options)
        return [_mean(first, resampled), *resampled]
    return _drawn(measures, panel, options)


def _drawn(measures: Sequence[Measure], panel: Panel, options: Options) -> list[_Resampled]:
    """Resample each measure that is defined."""
    defined = [own.statistic for own in measures if own.statistic is not None]
    draws = resample_weights(panel.count, options.resamples, options.seed)
    values = iter(replicates(defined, draws, options.threads) if defined else [])
    without: Iterator[Floats | None] = itertools.repeat(None)
    if options.bca and defined:
        without = iter(replicates(defined, left_out_weights(panel.count), options.threads))
    return [
        _Resampled(own, None, None, own.reason)
        if own.statistic is None
        else _Resampled(own, next(values), next(without), "")
        for own in measures
    ]


def _mean(own: Measure, others: Sequence[_Resampled]) -> _Resampled:
    """Return the resamples of a mean of measures, which are the means of theirs."""
    resampled = np.mean([other.resampled for other in others if other.resampled is not None], axis=0)
    left_out = [other.left_out for other in others if other.left_out is not None]
    return _Resampled(own, resampled, np.mean(left_out, axis=0) if left_out else None, "")


@dataclass(frozen=True, eq=False)
class Models:
    """The models that are compared.

    Attributes:
        names: all different, at least two.
        records, banks: where the answers of each come from.
    """

    names: tuple[str, ...]
    records: tuple[str, ...]
    banks: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The places (a, b) of all pairs, a < b."""
        return [(a, b) for b in range(len(self.names)) for a in range(b)]


def parts_of(
    models: Models,
    panel: Panel,
    measures: Sequence[Measure],
    options: Options,
    metric: str,
    queries: Queries | None = None,
) -> list[Part]:
    """Test all pairs of all measures, adjust their p together, and put the models in order."""
    all_resampled = _resampled(measures, panel, options)
    tested = [[_tested(own, a, b, panel) for a, b in models.pairs] for own in all_resampled]
    adjusted = holm([[pair.p for pair in own] for own in tested])
    sign = -1.0 if metric in SMALLER_IS_BETTER else 1.0
    return [
        _part(models, own, dict(zip(models.pairs, tests, strict=True)), sign, options, queries)
        for own, tests in zip(all_resampled, _with_holm(tested, adjusted), strict=True)
    ]


@dataclass(frozen=True)
class _Tested:
    interval: BootstrapInterval
    p: float
    test: str
    reason: str
    p_holm: float = math.nan


def _with_holm(tested: Sequence[Sequence[_Tested]], adjusted: Floats) -> list[list[_Tested]]:
    return [
        [replace(test, p_holm=p) for test, p in zip(own, holms, strict=True)]
        for own, holms in zip(tested, adjusted.tolist(), strict=True)
    ]


def _tested(own: _Resampled, a: int, b: int, panel: Panel) -> _Tested:
    """Return interval and p of the difference of two models."""
    interval, measured = own.interval(a, b), own.own
    difference = float(measured.values[a] - measured.values[b])
    if measured.tests is not None:
        p, reason = float(measured.tests.p[a, b]), measured.tests.reasons.get((a, b), "")
        return _Tested(interval, p, measured.tests.name, interval.reason or reason)
    p, reason = p_value(difference, interval.deviation, panel.count), interval.reason
    if math.isnan(p) and not reason:
        reason = "the models do not differ in any resample"
    return _Tested(interval, p, "bootstrap-t", reason)


def _part(
    models: Models,
    own: _Resampled,
    tested: Mapping[tuple[int, int], _Tested],
    sign: float,
    options: Options,
    queries: Queries | None,
) -> Part:
    """Put the models in order and describe what can be told apart."""
    values = sign * own.own.values
    order = [int(place) for place in np.argsort(-values, kind="stable")]  # NaN is last
    count, defined = len(order), np.isfinite(values)[order]
    different, pairs = np.zeros((count, count), np.bool_), []
    for i in range(count):
        for j in range(i + 1, count):
            test = tested[min(order[i], order[j]), max(order[i], order[j])]
            different[i, j] = different[j, i] = test.p_holm <= options.alpha  # False where it is NaN
            pairs.append(_pair(models, own, (order[i], order[j]), test, options.alpha, queries))
    best = [models.names[place] for i, place in enumerate(order) if defined[i] and not different[0, i]]
    left_out = max((test.interval.left_out for test in tested.values()), default=0)
    standings = _standings(models, own, order, different, sign)
    reason = own.own.reason or own.reason
    return Part(own.own.name, standings, tuple(pairs), tuple(best), reason, left_out)


def _standings(
    models: Models, own: _Resampled, order: list[int], different: NDArray[np.bool_], sign: float
) -> tuple[Standing, ...]:
    values = sign * own.own.values[order]
    lows, highs = rank_intervals(values[:, None] - values, different)
    standings = []
    for i, (place, shown) in enumerate(zip(order, letters(different), strict=True)):
        interval, defined = own.interval(place), math.isfinite(values[i])
        standings.append(
            Standing(
                models.names[place],
                models.records[place],
                models.banks[place],
                float(own.own.values[place]),
                interval.low,
                interval.high,
                int(lows[i]) if defined else 0,
                int(highs[i]) if defined else 0,
                shown if defined else "",
            )
        )
    return tuple(standings)


def _pair(
    models: Models,
    own: _Resampled,
    places: tuple[int, int],
    tested: _Tested,
    alpha: float,
    queries: Queries | None,
) -> Pair:
    """Describe two models, the better one first."""
    (a, b), interval = places, tested.interval
    low, high = (interval.low, interval.high) if a < b else (-interval.high, -interval.low)
    episodes = None
    if queries is not None and queries.episodes is not None:
        episodes = _over_episodes(queries.episodes[a] - queries.episodes[b])
    return Pair(
        models.names[a],
        models.names[b],
        float(own.own.values[a] - own.own.values[b]),
        low,
        high,
        tested.p,
        tested.p_holm,
        tested.test,
        tested.p_holm <= alpha,
        tested.reason,
        episodes,
    )


def _over_episodes(differences: Floats) -> Episodes | None:
    """Return the interval and p of a mean over episodes, by Student's t."""
    count = len(differences)
    if count < 2:
        return None
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(count)
    half = float(stdtrit(count - 1, 0.975)) * error
    p = float(2 * stdtr(count - 1, -abs(mean) / error)) if error else math.nan
    return Episodes(mean - half, mean + half, p, count)
