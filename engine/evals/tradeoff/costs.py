"""The costs of a bank's features: encoding rate, size and licence, from documents and records alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.embed.provenance import has_own_weights
from engine.errors import ModelError
from engine.evals.tradeoff.pareto import Costs
from engine.models.catalog.lookup import find
from stores.bank.feature_info import FeatureInfo
from stores.bank.layout import itemsize
from stores.bank.reader import Bank
from stores.bank.record_index import RecordEntry
from stores.errors import BankError
from stores.json_types import Json, JsonObject


@dataclass(frozen=True)
class ModelCosts:
    """The costs of a model, with their origin.

    Attributes:
        costs: the values.
        images: that the rate was measured on; 0 if unknown.
        machine: that it was measured on, e.g. `cpu, 2 threads`; "" if unknown.
        rate_reason: why the rate is NaN; "" if it is not.
        licence: of the model's code and weights; "" if unknown.
    """

    costs: Costs
    images: int
    machine: str
    rate_reason: str
    licence: str

    def to_dict(self) -> JsonObject:
        """Return all values; `img_per_s_reason` where the rate is undefined."""
        body: JsonObject = {
            "img_per_s": self.costs.img_per_s,
            "measured_on": self.machine,
            "measured_images": self.images,
            "dim": self.costs.dim,
            "bytes_per_row": self.costs.bytes_per_row,
            "licence": self.licence,
            "commercial_use": self.costs.commercial,
        }
        return {**body, "img_per_s_reason": self.rate_reason} if self.rate_reason else body


def costs_of(
    bank: Bank, features: Sequence[FeatureInfo], entries: Sequence[RecordEntry]
) -> tuple[ModelCosts, ...]:
    """Return the costs of features of a bank.

    Rates are of the encoder alone, from the embed record of the most images. They are comparable on one
    machine only: the one on which most of the models were measured, or of equally many the first by name.

    Args:
        entries: the bank's records.
    """
    rates = [_rate(info.name, entries) for info in features]
    machines = [rate.machine for rate in rates if not rate.reason]
    usual = max(sorted(set(machines)), key=machines.count, default="")
    costs = []
    for info, rate in zip(features, rates, strict=True):
        if not rate.reason and rate.machine != usual:
            reason = f"measured on {rate.machine} ({rate.img_per_s:.1f} img/s), the others on {usual}"
            rate = _Rate(math.nan, rate.images, rate.machine, reason)
        licence, commercial = _licence(bank, info)
        size = info.dim * itemsize(info.dtype)
        own = Costs(rate.img_per_s, info.dim, size, commercial)
        costs.append(ModelCosts(own, rate.images, rate.machine, rate.reason, licence))
    return tuple(costs)


@dataclass(frozen=True)
class _Rate:
    """A rate; the fields are those of `ModelCosts`."""

    img_per_s: float
    images: int
    machine: str
    reason: str = ""


def _rate(feature: str, entries: Sequence[RecordEntry]) -> _Rate:
    """Return the rate of a feature's encoder from the record that has it for most images, or the latest."""
    own = [entry for entry in entries if _embedded(entry) and entry.feature == feature]
    if not own:
        return _Rate(math.nan, 0, "", "the bank has no record of its embedding")
    rates = [_rate_in(entry, entries) for entry in own]
    known = [rate for rate in rates if not rate.reason]
    return max(reversed(known), key=lambda rate: rate.images) if known else rates[-1]


def _embedded(entry: RecordEntry) -> bool:
    return entry.record is not None and entry.record.kind == "embed"


def _rate_in(entry: RecordEntry, entries: Sequence[RecordEntry]) -> _Rate:
    """Read the rate of one record. Records of earlier versions have the clock of the pass alone."""
    assert entry.record is not None
    seconds, machine = entry.record.seconds, _machine(entry.record.used)
    clock = _members(seconds.get("encode"))
    if not clock:
        together = sum(
            _embedded(other) and other.record is not None and other.record.seconds == seconds
            for other in entries
        )
        if together > 1:
            others = f"{together - 1} other{'s' if together > 2 else ''}"
            reason = f"embedded in one pass with {others}, whose time was not kept apart"
            return _Rate(math.nan, 0, machine, reason)
        clock = _members(_members(seconds.get("stages")).get("encode"))
    images, busy = _number(clock.get("images")), _number(clock.get("busy_s"))
    if not images > 0 or not busy > 0:
        return _Rate(math.nan, 0, machine, "its embed record has no time of the encoder")
    return _Rate(images / busy, int(images), machine)


def _machine(used: Mapping[str, Json]) -> str:
    """Name the device of an embed record, and on the CPU the threads, on which a rate depends."""
    device = str(used.get("device", "a device that is not recorded"))
    threads = _members(_members(used.get("encoder")).get("flags")).get("threads")
    if device != "cpu" or not isinstance(threads, int):
        return device
    return f"cpu, {threads} thread{'' if threads == 1 else 's'}"


def _licence(bank: Bank, info: FeatureInfo) -> tuple[str, bool | None]:
    """Return the licence that the catalogue states, and whether it permits commercial use.

    The catalogue knows nothing of weights that the user gave, nor of imported features.
    """
    try:
        if has_own_weights(bank, info.name):
            return "", None
        facts = find(info.key.model).row.facts
    except (BankError, ModelError):
        return "", None
    return facts.licence, facts.commercial_use


def _members(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
