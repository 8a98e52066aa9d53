"""Our own numbers by the paper's names of metrics: from the records of a bank or of a study's folder.

Percent where the metric ends in `_pct`. `ci95` is the half width of the record's 95 % interval, half its
length where it is not symmetric; `low` and `high` are its ends. Data sets are called as the bank's file, or
as the study calls them; models by the catalogue's slug.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from benchmarks.paper.discrepancies import largest
from benchmarks.paper.names import DIFFUSION, INVARIANCES, LPIPS, LPIPS_MEAN, VARIANTS
from benchmarks.paper.sources import read_sources
from benchmarks.paper.values import Value, Values
from engine.report.json_parts import members, objects
from engine.report.page.inputs import Source
from engine.report.record_values import at, number, text
from stores.backends.location import Place
from stores.bank.reader import Bank
from stores.bank.record_index import RecordEntry
from stores.bank.records import RunRecord
from stores.errors import BankError
from stores.json_types import Json, JsonObject

MODES = ("default", "as-published")
#: Transform -> metric; those without one are not in the paper.
_TRANSFORMS = {
    "rotation": INVARIANCES["rotation"],
    "h_flip": INVARIANCES["hflip"],
    "hue": INVARIANCES["hue"],
    "multi-view": INVARIANCES["multiview"],
}


@dataclass(frozen=True)
class Origin:
    """A record and the bank that it lies in."""

    bank: Place
    entry: RecordEntry


@dataclass(frozen=True)
class Measured(Value):
    """A value that a record has.

    Attributes:
        mode, seed: of the evaluation.
        record: id of the record.
        n: what its interval is over, a count of `over`.
        over: e.g. `episodes`, `images`.
        low, high: ends of the 95 % interval; None where there is none.
        origin: the record.
    """

    mode: str = "default"
    seed: int = 0
    record: str = ""
    n: int = 0
    over: str = ""
    low: float | None = None
    high: float | None = None
    origin: Origin | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Ours:
    """All values of a bank or a study, one for each model, data set, metric, mode and seed."""

    values: tuple[Measured, ...]

    @cached_property
    def modes(self) -> tuple[str, ...]:
        """Modes that have values, `default` first."""
        return tuple(mode for mode in MODES if any(value.mode == mode for value in self.values))

    def of(self, mode: str = "default", seed: int | None = None) -> Values:
        """Return the values of a mode.

        Args:
            seed: of the evaluation; None takes the lowest that each value has.
        """
        cells: dict[tuple[str, str, str], Measured] = {}
        for value in self.values:
            if value.mode == mode and seed in (None, value.seed):
                key = (value.model, value.dataset, value.metric)
                if key not in cells or value.seed < cells[key].seed:
                    cells[key] = value
        return Values(cells.values())


def best_variants(values: Values) -> Values:
    """Return the paper's "best variant" rows: of each cell the largest value of a model's checkpoints.

    Such a row is no model: the choice is made on the reported number itself.
    """
    return Values(
        replace(
            best, model=name, reason=_joined(f"of {best.model}, the largest of the checkpoints", best.reason)
        )
        for name in VARIANTS
        for dataset in values.datasets()
        for metric in values.metrics()
        if (best := largest(name, dataset, metric, values)) is not None and best.model != name
    )


def with_best_variants(values: Values) -> Values:
    """Return values with the "best variant" rows behind them, where the paper's names are not taken."""
    taken = {(value.model, value.dataset, value.metric) for value in values}
    best = best_variants(values)
    return Values([*values, *(v for v in best if (v.model, v.dataset, v.metric) not in taken)])


# --- records ----------------------------------------------------------------------------------------------


def values_of(where: Path | str, datasets: Mapping[str, str] | None = None) -> Ours:
    """Read the values of a bank or of a study's folder; arguments and errors as `sources.read_sources`."""
    return ours_of(read_sources(where, datasets))


def ours_of(sources: Iterable[Source]) -> Ours:
    """Take the values of records.

    Of two records of one value the one by the paper's own protocol counts, else the later one.
    """
    best: dict[tuple[str, str, str, str, int], Measured] = {}
    for source in sources:
        slugs = slugs_of(source.bank)
        for entry in source.entries:
            if entry.record is None:
                continue
            model = slugs.get(entry.feature, entry.model).removesuffix("+paper")
            for value in _values(entry.record):
                own = _owned(value, model, source.name, Origin(source.bank, entry))
                key = (own.model, own.dataset, own.metric, own.mode, own.seed)
                if key not in best or _rank(own) >= _rank(best[key]):
                    best[key] = own
    return Ours(tuple(best.values()))


def _owned(value: Measured, model: str, dataset: str, origin: Origin) -> Measured:
    record = origin.entry.record
    assert record is not None
    seed = record.asked.get("seed")
    return replace(
        value,
        model=model,
        dataset=dataset,
        source=f"record {origin.entry.id}",
        record=origin.entry.id,
        mode=text(record.asked.get("mode")) or "default",
        seed=seed if isinstance(seed, int) else 0,
        origin=origin,
    )


def _rank(value: Measured) -> tuple[bool, bool]:
    record = value.origin.entry.record if value.origin else None
    assert record is not None
    return record.asked.get("label") in (None, "label"), not value.reason


def slugs_of(bank: Place) -> dict[str, str]:
    """Map features to their slugs, where a slug has one feature; names tell others apart."""
    try:
        infos = Bank.open(bank).list()
    except BankError:
        return {}
    slugs = [info.key.model for info in infos]
    return {info.name: info.key.model for info in infos if slugs.count(info.key.model) == 1}


# --- what records say ---------------------------------------------------------------------------------------


def _values(record: RunRecord) -> Iterator[Measured]:
    reader = _READERS.get(record.kind)
    if reader is not None:
        yield from reader(record)


def _made(
    metric: str, value: float, interval: Json, n: int, over: str, *differs: str, scale: float = 1.0
) -> Measured:
    bounds = members(interval)
    low, high = number(bounds.get("low")) * scale, number(bounds.get("high")) * scale
    has = math.isfinite(low) and math.isfinite(high)
    half = (high - low) / 2 if has else None
    reason = _joined(*differs) if math.isfinite(value) else _joined("undefined", *differs)
    ends = (low, high) if has else (None, None)
    return Measured(
        "", "", metric, value * scale, half, reason=reason, n=n, over=over, low=ends[0], high=ends[1]
    )


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _symmetric(value: float, half: float) -> JsonObject:
    return {"low": value - half, "high": value + half} if math.isfinite(half) else {}


def _other(settings: Mapping[str, Json], **usual: Json) -> str:
    """Say which settings are not the paper's."""
    return ", ".join(
        f"{name} {settings[name]} (the paper's: {own})"
        for name, own in usual.items()
        if name in settings and settings[name] != own
    )


def _fewshot(record: RunRecord) -> Iterator[Measured]:
    settings, metrics = record.asked, record.metrics
    ways, shots = settings.get("n_way"), settings.get("n_shot")
    accuracy, half = number(metrics.get("accuracy")), number(metrics.get("ci95"))
    episodes = settings.get("episodes")
    yield _made(
        f"few_shot_{ways}way_{shots}shot_accuracy_pct",
        accuracy,
        _symmetric(accuracy, half),
        episodes if isinstance(episodes, int) else 0,
        "episodes",
        _other(settings, n_query=15, episodes=600, distance="sqeuclidean"),
        scale=100,
    )


def _classifier(protocol: str) -> Callable[[RunRecord], Iterator[Measured]]:
    def read(record: RunRecord) -> Iterator[Measured]:
        settings, test = record.asked, members(record.metrics.get("test"))
        if settings.get("multi_label") or settings.get("findings") or settings.get("cross_validation"):
            return
        images = at(record.metrics, "images.test")
        for metric in ("accuracy", "mean_per_class_accuracy"):
            yield _made(
                f"{protocol}_{metric}_pct",
                number(test.get(metric)),
                at(test, f"intervals.{metric}"),
                images if isinstance(images, int) else 0,
                "images",
                _other(settings, steps=5000) if protocol == "finetune" else "",
                scale=100,
            )

    return read


def _invariance(record: RunRecord) -> Iterator[Measured]:
    metric = _TRANSFORMS.get(text(record.asked.get("transform")))
    if metric is not None:
        cosine, half = number(record.metrics.get("cosine")), number(record.metrics.get("ci95"))
        n = record.metrics.get("n")
        over = "pairs" if metric == INVARIANCES["multiview"] else "images"
        reason = text(record.metrics.get("reason"))
        yield _made(metric, cosine, _symmetric(cosine, half), n if isinstance(n, int) else 0, over, reason)


def _saliency(record: RunRecord) -> Iterator[Measured]:
    items = objects(record.metrics.get("items"))
    defined = [item for item in items if math.isfinite(number(item.get("attentive_diffusion")))]
    strides = {item.get("stride") for item in defined} - {1}
    other = f"stride {', '.join(map(str, sorted(map(str, strides))))} (the paper's: 1)" if strides else ""
    mean, interval = number(record.metrics.get("mean")), record.metrics.get("interval")
    yield _made(DIFFUSION, mean, interval, len(defined), "images", other)


def _reconstruct(record: RunRecord) -> Iterator[Measured]:
    """Means over images of means over networks; only the mean of the three nets has an interval."""
    other = _other(record.asked, steps=3000)
    why = text(at(record.metrics, "lpips.reason"))
    for metric in (*LPIPS, LPIPS_MEAN):
        net = "mean" if metric == LPIPS_MEAN else metric.removeprefix("lpips_")
        by_image: dict[str, list[float]] = {}
        for item in objects(record.metrics.get("items")):
            distance = number(at(item, f"lpips.{net}"))
            if math.isfinite(distance):
                by_image.setdefault(text(item.get("image_id")), []).append(distance)
        means = [sum(distances) / len(distances) for distances in by_image.values()]
        mean = sum(means) / len(means) if means else math.nan
        interval = at(record.metrics, "lpips.interval") if net == "mean" else None
        yield _made(metric, mean, interval, len(means), "images", other, "" if means else why)


_READERS: Mapping[str, Callable[[RunRecord], Iterator[Measured]]] = {
    "fewshot": _fewshot,
    "probe": _classifier("linear"),
    "finetune": _classifier("finetune"),
    "invariance": _invariance,
    "multiview": _invariance,
    "saliency": _saliency,
    "reconstruct": _reconstruct,
}
