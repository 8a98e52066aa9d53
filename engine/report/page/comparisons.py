"""Records of kind `compare`: which models were compared on what, and what came out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from engine.report.json_parts import members, objects
from engine.report.page.inputs import PageInput
from engine.report.page.numbers import SMALLER_IS_BETTER, WORDS, finite
from engine.report.page.results import Result, results_of
from engine.report.page.titles import task_of
from stores.bank.record_index import RecordEntry
from stores.bank.records import RunRecord
from stores.json_types import Json, JsonObject

KIND = "compare"


@dataclass(frozen=True)
class Pair:
    """Two models on the same images, the better one first.

    Attributes:
        better, worse: names.
        difference: by which the first is better, not negative; None where it is undefined.
        low, high: of its 95 % interval.
        p_holm: adjusted; None where there is none.
        different: whether the two can be told apart.
        reason: why a number is undefined.
    """

    better: str
    worse: str
    difference: float | None
    low: float | None
    high: float | None
    p_holm: float | None
    different: bool
    reason: str


@dataclass(frozen=True)
class Comparison:
    """One comparison.

    Attributes:
        dataset: name.
        entry: the record; its id is empty where it was made for the page.
        title: of the evaluation whose records were compared; "" where none of these is on the page.
    """

    dataset: str
    entry: RecordEntry
    title: str = ""

    @property
    def record(self) -> RunRecord:
        """The record."""
        assert self.entry.record is not None
        return self.entry.record

    @property
    def kind(self) -> str:
        """Kind of the records compared."""
        return str(self.record.metrics.get("evaluation") or self.record.asked.get("kind") or "")

    @property
    def mode(self) -> str:
        """Mode of the records compared."""
        return str(self.record.asked.get("mode") or "default")

    @property
    def metric(self) -> str:
        """What was compared, a key of `WORDS`."""
        return str(self.record.metrics.get("metric"))

    @property
    def word(self) -> str:
        """Name of the metric."""
        return WORDS.get(self.metric, self.metric.replace("_", " "))

    @property
    def task(self) -> str:
        """Evaluation and task in a few words, e.g. `2-way 5-shot`."""
        return self.title or task_of(self.record)

    @cached_property
    def best(self) -> tuple[str, ...]:
        """Models that cannot be told from the best one, which is first."""
        names = self.record.metrics.get("best")
        return tuple(map(str, names)) if isinstance(names, list) else ()

    @cached_property
    def standings(self) -> tuple[JsonObject, ...]:
        """The models, the best first, as `engine.evals.comparison.result.Standing` writes them."""
        return tuple(_objects(self.record.metrics.get("models")))

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """All pairs, the better model first."""
        return tuple(map(self._pair, _objects(self.record.metrics.get("pairs"))))

    def _pair(self, body: JsonObject) -> Pair:
        a, b = str(body["a"]), str(body["b"])
        difference, low, high = (finite(body.get(name)) for name in ("difference", "low", "high"))
        if self.metric in SMALLER_IS_BETTER:
            difference, low, high = _negative(difference), _negative(high), _negative(low)
        if difference is not None and difference < 0:
            a, b, difference, low, high = b, a, -difference, _negative(high), _negative(low)
        p, reason = finite(body.get("p_holm")), str(body.get("reason") or "")
        return Pair(a, b, difference, low, high, p, body.get("different") is True, reason)

    def pair(self, first: str, second: str) -> Pair | None:
        """Return the pair of two models."""
        return next((pair for pair in self.pairs if {pair.better, pair.worse} == {first, second}), None)

    @property
    def units(self) -> int:
        """Number of patients or images."""
        value = finite(self.record.metrics.get("units"))
        return int(value) if value is not None else 0

    @property
    def unit(self) -> str:
        """`patients` or `images`, what was resampled."""
        return str(self.record.metrics.get("unit") or "images")

    def has(self, entry: RecordEntry) -> bool:
        """Return whether a record was compared."""
        names = self.record.used.get("compared")
        if isinstance(names, list):
            return entry.name in names
        return any(standing.get("record") == entry.id for standing in self.standings)

    def standing(self, model: str) -> JsonObject:
        """Return a model's standing; empty where it has none."""
        return next((one for one in self.standings if one.get("model") == model), {})


def comparisons_of(page: PageInput) -> tuple[Comparison, ...]:
    """Return all comparisons, probes first, default mode first, in the order of data sets.

    They have the names that their evaluations have in the tables of results.
    """
    return tuple(sorted(_all(page), key=lambda one: (_rank(one.kind), one.mode != "default")))


def _all(page: PageInput) -> Iterator[Comparison]:
    results = results_of(page)
    for source in page.sources:
        own = [one for one in results if one.dataset == source.name]
        for entry in source.entries:
            if entry.record is not None and entry.record.kind == KIND:
                plain = Comparison(source.name, entry)
                yield replace(plain, title=next((one.protocol for one in own if plain.has(one.entry)), ""))


def comparison_for(one: Result, comparisons: Sequence[Comparison]) -> Comparison | None:
    """Return the comparison that a record took part in."""
    return next((c for c in comparisons if c.dataset == one.dataset and c.has(one.entry)), None)


def _rank(kind: str) -> int:
    order = ("probe", "fewshot", "knn", "finetune")
    return order.index(kind) if kind in order else len(order)


def _objects(value: Json) -> list[JsonObject]:
    return [members(one) for one in objects(value)] if isinstance(value, list) else []


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
