"""Main numbers of all records, by data set, protocol, mode and model."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from engine.report.page.inputs import PageInput, Source
from engine.report.page.numbers import Number, main_number
from engine.report.page.settings import key_of, settings_of, words_of
from engine.report.page.titles import title_of
from stores.bank.record_index import RecordEntry
from stores.bank.records import RunRecord
from stores.json_types import Json, JsonObject

#: Kinds in the order of the page.
KINDS = ("probe", "fewshot", "knn", "finetune", "invariance", "multiview", "saliency", "reconstruct")
#: Kinds that say how well a model tells classes apart.
CLASSIFYING = ("probe", "fewshot", "knn", "finetune")
#: Settings whose value says enough without their name.
_PLAIN = ("label", "transform")
#: Settings that a title names at most.
_NAMED = 3
_DEFAULT = "default"


@dataclass(frozen=True)
class Result:
    """The main number of one record.

    Attributes:
        dataset, model: names.
        kind: of the record.
        protocol: what was asked, in a few words; with the seed or other settings where these differ.
        mode: `default` or `as-published`.
        number: None for kinds that have none.
        entry: the record.
    """

    dataset: str
    model: str
    kind: str
    protocol: str
    mode: str
    number: Number | None
    entry: RecordEntry

    @property
    def record(self) -> RunRecord:
        """The record."""
        assert self.entry.record is not None
        return self.entry.record


def results_of(page: PageInput) -> tuple[Result, ...]:
    """Return the main number of every record of `KINDS`, in the order of the page."""
    plain = [
        _result(source, entry, page) for source in page.sources for entry in source.entries if _has(entry)
    ]
    return tuple(sorted(_disambiguated(plain), key=_Order(page)))


def _has(entry: RecordEntry) -> bool:
    return entry.record is not None and entry.record.kind in KINDS


def _result(source: Source, entry: RecordEntry, page: PageInput) -> Result:
    assert entry.record is not None
    record = entry.record
    title = page.own_name(entry) or title_of(record)
    mode = str(record.asked.get("mode") or _DEFAULT)
    return Result(source.name, entry.model, record.kind, title, mode, main_number(record), entry)


def _disambiguated(results: Sequence[Result]) -> list[Result]:
    """Add to the protocols of one name the settings in which they differ."""
    groups: dict[tuple[str, str, str], dict[str, JsonObject]] = {}
    for one in results:
        settings = _settings(one.record)
        groups.setdefault((one.kind, one.protocol, one.mode), {})[key_of(settings)] = settings
    suffixes = {key: _suffixes(list(group.values())) for key, group in groups.items() if len(group) > 1}
    return [
        replace(one, protocol=one.protocol + suffixes[key][key_of(_settings(one.record))])
        if (key := (one.kind, one.protocol, one.mode)) in suffixes
        else one
        for one in results
    ]


def _settings(record: RunRecord) -> JsonObject:
    return {name: value for name, value in settings_of(record).items() if name != "mode"}


def _suffixes(group: Sequence[JsonObject]) -> dict[str, str]:
    names = list(dict.fromkeys(name for settings in group for name in settings))
    differing = [name for name in names if len({json.dumps(own.get(name)) for own in group}) > 1]
    shown = sorted(differing, key=lambda name: (name not in _PLAIN, name != "seed"))[:_NAMED]
    return {key_of(own): "".join(_words(name, own.get(name)) for name in shown) for own in group}


def _words(name: str, value: Json) -> str:
    plain = name in _PLAIN and isinstance(value, str)
    return f", {value if plain else words_of(name, value)}"


class _Order:
    """The place of a result on the page."""

    def __init__(self, page: PageInput) -> None:
        self._datasets = {source.name: place for place, source in enumerate(page.sources)}
        self._models = {name: place for place, name in enumerate(page.models)}
        self._more = len(self._models)

    def __call__(self, one: Result) -> tuple[int, int, str, bool, int, str]:
        return (
            self._datasets[one.dataset],
            KINDS.index(one.kind),
            one.protocol,
            one.mode != _DEFAULT,
            self._models.get(one.model, self._more),
            one.model,
        )


def models_of(page: PageInput, results: Iterable[Result]) -> tuple[str, ...]:
    """Return the models that have results, in the order of the page."""
    order = {name: place for place, name in enumerate(page.models)}
    return tuple(sorted({one.model for one in results}, key=lambda name: (order.get(name, len(order)), name)))
