"""Results of a comparison."""

import math
from dataclasses import dataclass

from engine.evals.comparison.words import verdict_of
from stores.json_types import JsonObject


@dataclass(frozen=True)
class Episodes:
    """The difference over few-shot episodes, for the images at hand.

    Attributes:
        low, high: 95 % interval; p: two-sided, not adjusted.
        count: of episodes.
    """

    low: float
    high: float
    p: float
    count: int

    def to_dict(self) -> JsonObject:
        """Return all fields."""
        return {"low": self.low, "high": self.high, "p": self.p, "count": self.count}


@dataclass(frozen=True)
class Pair:
    """Two models on the same images.

    Attributes:
        a, b: names.
        difference: value of a - value of b.
        low, high: its 95 % interval over patients (or images), not adjusted; NaN where there is none.
        p: two-sided, of no difference; NaN where there is none.
        p_holm: adjusted for all pairs of the comparison.
        test: that p is of.
        different: whether the two can be told apart.
        reason: why a number is NaN; "" if none is.
        episodes: the same over episodes, for few-shot on the same episodes.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    test: str
    different: bool
    reason: str = ""
    episodes: Episodes | None = None

    def to_dict(self) -> JsonObject:
        """Return all fields; `reason` and `episodes` where there are any."""
        body: JsonObject = {**vars(self), "episodes": None}
        if not self.reason:
            del body["reason"]
        if self.episodes is None:
            del body["episodes"]
        else:
            body["episodes"] = self.episodes.to_dict()
        return body


@dataclass(frozen=True)
class Standing:
    """One model among the others.

    Attributes:
        model: name; record: its record; bank: that it lies in.
        value: of the metric, with its 95 % interval (low, high) over patients or images.
        rank_low, rank_high: interval of its rank, 1 the best; both 0 where the value is undefined.
        letters: models with a letter in common cannot be told apart.
        below_control: name of the control that its record has a better number of; "" where there is none.
    """

    model: str
    record: str
    bank: str
    value: float
    low: float
    high: float
    rank_low: int
    rank_high: int
    letters: str
    below_control: str = ""

    def to_dict(self) -> JsonObject:
        """Return all fields, `rank` as `{low, high}`; null where the value is undefined."""
        body: JsonObject = {name: value for name, value in vars(self).items() if not name.startswith("rank_")}
        defined = not math.isnan(self.value)
        return {**body, "rank": {"low": self.rank_low, "high": self.rank_high} if defined else None}


@dataclass(frozen=True)
class Part:
    """All models compared by one number.

    Attributes:
        name: of the finding or class; "" where it is the evaluation's number.
        standings: the best model first.
        pairs: of all models, in this order.
        best: models that cannot be told from the best one, which is first.
        reason: why values are undefined, or what they leave out; else "".
        left_out: most resamples in which a difference is undefined.
    """

    name: str
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    best: tuple[str, ...]
    reason: str = ""
    left_out: int = 0

    def pair(self, a: str, b: str) -> Pair:
        """Return the pair of two models, in the order of the comparison."""
        return next(pair for pair in self.pairs if {pair.a, pair.b} == {a, b})

    def to_dict(self) -> JsonObject:
        """Return `{pairs, best, models, ...}`."""
        body: JsonObject = {
            "pairs": [pair.to_dict() for pair in self.pairs],
            "best": list(self.best),
            "models": [standing.to_dict() for standing in self.standings],
            "resamples_left_out": self.left_out,
        }
        if self.reason:
            body["reason"] = self.reason
        return body


@dataclass(frozen=True)
class Setting:
    """What was compared, and how.

    Attributes:
        evaluation: kind of the records.
        metric: e.g. `auroc`.
        task: what the records are about, e.g. the label.
        images, units: how many; unit: `patients` or `images`, what was resampled.
        resamples, seed: of the bootstrap; interval: `percentile` or `bca`.
        alpha: adjusted p up to which models can be told apart.
        tests: number of pairs with a p value, which the adjustment is for.
    """

    evaluation: str
    metric: str
    task: str
    images: int
    units: int
    unit: str
    resamples: int
    seed: int
    interval: str
    alpha: float
    tests: int


@dataclass(frozen=True)
class Comparison:
    """Several models compared in pairs.

    Attributes:
        setting: what was compared, and how.
        parts: the evaluation's number, then each finding or class if requested.
        notes: remarks for the reader, one sentence each.
    """

    setting: Setting
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs by the evaluation's number."""
        return self.parts[0].pairs

    @property
    def best(self) -> tuple[str, ...]:
        """The models that cannot be told from the best one."""
        return self.parts[0].best

    @property
    def verdict(self) -> tuple[str, ...]:
        """The result in sentences, the most important one first."""
        return verdict_of(self.to_dict(with_verdict=False))

    def __repr__(self) -> str:
        return f"Comparison({' '.join(self.verdict)})"

    def to_dict(self, with_verdict: bool = True) -> JsonObject:
        """Return `{evaluation, metric, pairs, best, models, verdict, ...}`, and `findings` if requested."""
        first, *others = self.parts
        body: JsonObject = {**vars(self.setting), **first.to_dict()}
        if others:
            body["findings"] = [{"name": part.name, **part.to_dict()} for part in others]
        body["notes"] = list(self.notes)
        return {**body, "verdict": list(self.verdict)} if with_verdict else body
