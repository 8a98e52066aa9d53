"""The records of a page one by one, in an order that does not depend on when they were made."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engine.report.page.inputs import PageInput, Source
from engine.report.page.titles import title_of
from engine.report.record_values import number, text
from stores.bank.reader import Bank
from stores.bank.record_index import RecordEntry
from stores.bank.records import RunRecord
from stores.bank.summary import FeatureDescription, describe
from stores.errors import BankError


@dataclass(frozen=True)
class Evidence:
    """A record with the data set that it is about.

    Attributes:
        source: the data set.
        entry: of the record, which can be read.
        record: of the entry.
        model: name on the page; "" for kinds without a model.
        title: of the evaluation, e.g. `5-way 20-shot`.
    """

    source: Source
    entry: RecordEntry
    record: RunRecord
    model: str
    title: str

    @property
    def mode(self) -> str:
        """`default` or `as-published`."""
        return text(self.record.asked.get("mode")) or "default"

    @property
    def seed(self) -> int | None:
        """Seed of what was drawn; None where nothing was."""
        seed = self.record.asked.get("seed", self.record.used.get("seed"))
        return int(number(seed)) if isinstance(seed, int) else None

    @property
    def label(self) -> str:
        """The evaluation in a few words, e.g. `linear probe: edema, as published`."""
        return self.title + ", as published" * (self.mode != "default")


def evidence_of(page: PageInput, *kinds: str) -> tuple[Evidence, ...]:
    """Return the records of some kinds: by data set, model, kind, mode and settings.

    Args:
        kinds: of records, e.g. `saliency`; none takes all.
    """
    order = {name: position for position, name in enumerate(page.models)}
    gathered = []
    for position, source in enumerate(page.sources):
        for entry in source.entries:
            record = entry.record
            if record is None or (kinds and record.kind not in kinds):
                continue
            model = "" if record.kind == "compare" else entry.model or text(record.used.get("title"))
            title = page.own_name(entry) or title_of(record)
            one = Evidence(source, entry, record, model, title)
            settings = json.dumps(dict(record.asked), sort_keys=True)
            rank = order.get(model, len(order))
            gathered.append(((position, rank, model, record.kind, one.mode != "default", settings), one))
    return tuple(one for _, one in sorted(gathered, key=lambda pair: pair[0]))


@dataclass(frozen=True)
class UsedFeature:
    """A feature that records of a page are about.

    Attributes:
        source: its data set.
        model: name on the page.
        description: what the bank knows about it; None where that cannot be read.
        reason: why it cannot be read, else "".
    """

    source: Source
    model: str
    description: FeatureDescription | None
    reason: str = ""


def used_features(page: PageInput, *, failures: bool = False) -> Iterator[UsedFeature]:
    """Describe each feature that a page's records name and its bank still has, once.

    Args:
        failures: with its failed rows, for which all markers are read.
    """
    of_source: dict[int, dict[str, Evidence]] = {}
    for one in evidence_of(page):
        if one.entry.feature:
            of_source.setdefault(id(one.source), {}).setdefault(one.entry.feature, one)
    for features in of_source.values():
        yield from _described(features, failures)


def _described(features: Mapping[str, Evidence], failures: bool) -> Iterator[UsedFeature]:
    """Describe features of one bank."""
    source = next(iter(features.values())).source
    try:
        bank = Bank.open(source.bank)
        there = set(bank.select())
    except BankError as error:
        yield UsedFeature(source, "", None, error.found)
        return
    for feature, one in features.items():
        if feature not in there:
            continue  # e.g. a model that was finetuned without having been embedded
        try:
            description = describe(bank.path, feature, one.model, failures=failures)
        except BankError as error:
            yield UsedFeature(source, one.model, None, error.found)
            continue
        yield UsedFeature(source, one.model, description)
