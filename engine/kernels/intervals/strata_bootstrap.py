"""Bootstrap over patients of metrics in strata of the images, and of the largest gap between strata."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from engine.kernels.intervals.bootstrap import undefined_reason
from engine.kernels.intervals.cluster_robust import compact_groups
from engine.kernels.intervals.metrics_bootstrap import MetricTables, group_counts
from engine.kernels.metrics import Codes, Floats
from stores.json_types import JsonObject


@dataclass(frozen=True)
class Gap:
    """The largest difference of a metric between two strata.

    Attributes:
        value: of the highest stratum less the lowest; NaN with fewer than two strata.
        low, high: 95 % interval, which holds for all pairs of strata at once; NaN where there is none.
        highest, lowest: positions of the strata; -1 where there are none.
        strata: number of strata compared.
        reason: why a number is NaN; "" if none is.
    """

    value: float
    low: float
    high: float
    highest: int
    lowest: int
    strata: int
    reason: str = ""

    def to_dict(self, names: Sequence[str]) -> JsonObject:
        """Return all fields for JSON, with the strata's names; `reason` only if there is one."""
        body: JsonObject = {name: value for name, value in asdict(self).items() if name != "reason" or value}
        if self.highest >= 0:
            body |= {"highest": names[self.highest], "lowest": names[self.lowest]}
        else:
            del body["highest"], body["lowest"]
        return body


def resampled_in_strata(
    truth: Codes,
    probabilities: Floats,
    groups: Codes,
    strata: Sequence[NDArray[np.intp]],
    *,
    resamples: int,
    seed: int = 0,
    unseen: Sequence[int] = (),
) -> tuple[dict[str, Floats], str]:
    """Compute the metrics of strata on resamples of all patients, who may have images in several strata.

    Args:
        truth, probabilities, groups, unseen: as for `engine.kernels.intervals.metrics_bootstrap`.
        strata: rows of each of S strata, none of them empty.

    Returns:
        Each metric float64 [resamples, S], NaN where undefined; and why there is none, or "".
    """
    codes = compact_groups(groups)
    count = int(codes.max(initial=-1)) + 1
    if reason := undefined_reason(count, resamples):
        return {}, reason
    tables = [
        MetricTables.of(truth[rows], probabilities[rows], codes[rows], unseen, count=count) for rows in strata
    ]
    blocks = [
        [table.metrics(counts) for table in tables]
        for counts in group_counts(seed, resamples, count, len(truth))
    ]
    return {
        name: np.stack(
            [np.concatenate([block[s][name] for block in blocks]) for s in range(len(strata))], axis=1
        )
        for name in blocks[0][0]
    }, ""


def largest_gap(values: Sequence[float], resampled: Floats | None, reason: str = "") -> Gap:
    """Find the largest gap of a metric, and an interval of it that allows for its choice among all pairs.

    With d a pair's difference, d* its resampled ones and s their standard deviation, the interval is d +- q
    s, where q is the 95th percentile over resamples of the largest |d* - d| / s of all pairs (the
    bootstrapped max-t: Romano, Wolf, Econometrica 73 (2005) 1237). An interval of the pair alone would be
    too narrow: it was chosen for its gap. It is cut to [-1, 1].

    Args:
        values: [S] of the strata; NaN ones take no part.
        resampled: float64 [R, S]; None where there is no interval, for this reason.
    """
    value = np.asarray(values, np.float64)
    defined = np.flatnonzero(np.isfinite(value))
    if len(defined) < 2:
        count = len(defined)
        why = f"{count} strat{'um has' if count == 1 else 'a have'} a value: a gap needs two"
        return Gap(math.nan, math.nan, math.nan, -1, -1, count, why)
    highest, lowest = (int(defined[place]) for place in (value[defined].argmax(), value[defined].argmin()))
    gap = float(value[highest] - value[lowest])
    width, why = math.nan, reason
    if resampled is not None:
        width, why = _half_width(value, resampled, defined, (highest, lowest))
    if why:
        return Gap(gap, math.nan, math.nan, highest, lowest, len(defined), why)
    return Gap(gap, max(-1.0, gap - width), min(1.0, gap + width), highest, lowest, len(defined))


def _half_width(
    value: Floats, resampled: Floats, defined: NDArray[np.intp], pair: tuple[int, int]
) -> tuple[float, str]:
    """Return half the width of the interval of a pair's gap, and why it is NaN."""
    taken = resampled[np.isfinite(resampled[:, defined]).all(axis=1)]
    if 2 * len(taken) < len(resampled) or len(taken) < 2:
        return math.nan, f"all strata have a value in {len(taken)} of {len(resampled)} resamples only"
    largest, own = np.zeros(len(taken)), math.nan
    for a, b in combinations(defined.tolist(), 2):
        spread = taken[:, a] - taken[:, b] - (value[a] - value[b])
        deviation = float(spread.std(ddof=1))
        if {a, b} == set(pair):
            own = deviation
        if deviation > 0:
            largest = np.maximum(largest, np.abs(spread) / deviation)
    if not own > 0:
        return math.nan, "the gap is the same in all resamples"
    return float(np.percentile(largest, 95)) * own, ""
