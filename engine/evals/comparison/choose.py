"""Choice of the records that are compared: the latest of each model in banks, or those that are named."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike, fspath

from engine.errors import Refused
from engine.evals.comparison.options import METRICS
from stores.bank.reader import Bank
from stores.bank.record_index import RecordEntry, read_index, record_of, select
from stores.bank.records import FOLDER, RunRecord
from stores.errors import BankError
from stores.json_types import Json, JsonObject

#: Evaluation -> settings that make two of its records answers to the same question.
_QUESTION: Mapping[str, tuple[str, ...]] = {
    "probe": ("label", "multi_label", "policies", "splits", "mode", "cross_validation"),
    "knn": ("k", "leave_one_out", "train_split", "test_split", "group_disjoint"),
    "fewshot": ("n_way", "n_shot", "n_query", "episodes", "split", "mode", "group_disjoint", "seed"),
}


@dataclass(frozen=True, eq=False)
class Chosen:
    """A record that takes part.

    Attributes:
        bank: that it lies in.
        entry: with its record.
    """

    bank: Bank
    entry: RecordEntry

    @property
    def record(self) -> RunRecord:
        """The record, which can be read."""
        assert self.entry.record is not None
        return self.entry.record


@dataclass(frozen=True, eq=False)
class Choice:
    """The records of a comparison.

    Attributes:
        evaluation: their kind.
        records: one for each model, at least two.
        names: of the models, all different.
        notes: records that were left out, a sentence each.
    """

    evaluation: str
    records: tuple[Chosen, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...]


def choose(
    sources: Sequence[str | PathLike[str]],
    evaluation: str | None = None,
    models: Sequence[str] = (),
    label: str | None = None,
) -> Choice:
    """Choose the records to compare.

    Of a bank it is the latest record of each model among those with the settings of the newest.

    Args:
        sources: banks; or records as `BANK/records/RECORD`, by the file's name, the id, or a beginning.
        evaluation: of `METRICS`; None for that of the newest records of two models.
        models: slugs or names; none for all.
        label: column that was probed.

    Raises:
        Refused: fewer than two models, named records of several evaluations, or no such bank or record.
        BankError: a record that was named is damaged.
    """
    if evaluation is not None and evaluation not in METRICS:
        known = ", ".join(METRICS)
        raise Refused(f"evaluation {evaluation!r}", f"Those with paired numbers are {known}", "name one")
    named, listed, damaged = _read([fspath(source) for source in sources], models)
    notes = [f"{damaged} damaged records were left out"] if damaged else []
    kind = evaluation or _newest_kind(named, listed, notes)
    for chosen in named:
        if chosen.record.kind != kind:
            raise Refused(
                f"record {chosen.entry.id} is of {chosen.record.kind}, not of {kind}",
                "Records of one evaluation are compared",
                "name records of one kind",
            )
    own = [chosen for chosen in listed if chosen.record.kind == kind]
    labels = dict.fromkeys(str(chosen.record.asked.get("label")) for chosen in own)
    own = [chosen for chosen in own if label in (None, chosen.record.asked.get("label"))]
    records = [*named, *_latest(own, kind, notes)]
    if label is not None and not own and not named:
        known = ", ".join(map(repr, labels)) or "no label"
        raise Refused(f"label {label!r}", f"The records of {kind} are of {known}", "name one of these")
    if len(records) < 2:
        raise _too_few(kind, records, label)
    if label is None and own and kind == "probe" and len(labels) > 1:
        taken = str(records[-1].record.asked.get("label"))
        others = ", ".join(repr(name) for name in labels if name != taken)
        notes.append(f"These are the newest records, of label {taken!r}; --label chooses {others}")
    return Choice(kind, tuple(records), _names(records), tuple(notes))


def source_of(word: str) -> tuple[Bank, str]:
    """Return the bank that a word names, and the record in it; "" where it names the bank alone.

    Raises:
        BankError: there is no bank.
    """
    root, slash, name = word.rpartition(f"/{FOLDER}/")
    if slash and name.strip("/"):
        with suppress(BankError):  # a bank may lie in a folder of this name
            return Bank.open(root), name
    return Bank.open(word), ""


def _read(words: Sequence[str], models: Sequence[str]) -> tuple[list[Chosen], list[Chosen], int]:
    """Return records that are named, those of banks, oldest first, and how many cannot be read."""
    named: list[Chosen] = []
    listed: list[Chosen] = []
    damaged, fitting = 0, set[str]()
    for word in words:
        bank, name = source_of(word)
        if name:
            named.append(Chosen(bank, record_of(bank.path, name)))
            continue
        entries = read_index(bank.path)
        damaged += sum(entry.record is None for entry in entries)
        own = {entry.id: entry for entry in entries if not models}
        for model in models:
            try:
                own |= {entry.id: entry for entry in select(bank.path, entries, None, model)}
            except Refused:
                continue  # another bank may have it
            fitting.add(model)
        listed += [Chosen(bank, entry) for entry in own.values() if entry.record is not None]
    if missing := [model for model in models if model not in fitting]:
        raise Refused(
            f"No record of model {missing[0]!r}",
            "Models are compared by their records",
            "name models that `embank records ls` lists, or evaluate this one first",
        )
    return named, sorted(listed, key=lambda chosen: chosen.entry.order), damaged


def _newest_kind(named: Sequence[Chosen], listed: Sequence[Chosen], notes: list[str]) -> str:
    """Return the kind of the named records, or the newest one that two models have records of."""
    if named:
        return named[0].record.kind
    models: dict[str, set[tuple[str, str]]] = {}
    for chosen in listed:
        if chosen.record.kind in METRICS:
            own = models.pop(chosen.record.kind, set())
            models[chosen.record.kind] = own | {_key(chosen)}  # the newest kind is last
    several = [kind for kind, own in models.items() if len(own) >= 2]
    if not several:
        raise Refused(
            "No evaluation has records of two models",
            f"Records of {', '.join(METRICS)} of two models and more are compared",
            "evaluate several models, for instance `embank probe BANK --model A --model B`",
        )
    *others, newest = several
    if others:
        notes.append(f"These are the newest records; --evaluation chooses {' or '.join(others)}")
    return newest


def question_of(record: RunRecord) -> JsonObject:
    """Return the settings that make records comparable."""
    return {name: record.asked.get(name) for name in _QUESTION[record.kind]}


def _latest(listed: Sequence[Chosen], kind: str, notes: list[str]) -> list[Chosen]:
    """Return the latest record of each model among those with the settings of the newest."""
    if not listed:
        return []
    newest = question_of(listed[-1].record)
    alike = {_key(chosen): chosen for chosen in listed if question_of(chosen.record) == newest}
    others = {_key(chosen): chosen for chosen in listed if _key(chosen) not in alike}
    for chosen in others.values():
        own = question_of(chosen.record)
        differ = [name for name in newest if own[name] != newest[name]]
        notes.append(
            f"{chosen.entry.model} was left out: its record has {differ[0]} {_shown(own[differ[0]])} where "
            f"the newest has {_shown(newest[differ[0]])}"
        )
    return list(alike.values())


def _key(chosen: Chosen) -> tuple[str, str]:
    return str(chosen.bank.path), chosen.entry.feature or chosen.entry.model


def _shown(value: Json) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _too_few(kind: str, records: Sequence[Chosen], label: str | None) -> Refused:
    of_label = f" of label {label!r}" if label is not None else ""
    one = f": {records[0].entry.model}" if records else ""
    return Refused(
        f"{len(records)} model{'' if len(records) == 1 else 's'} with a record of {kind}{of_label}{one}",
        "A comparison needs two",
        f"evaluate another model with the same settings by `embank {kind}`",
    )


def _names(records: Sequence[Chosen]) -> tuple[str, ...]:
    """Name the models; by their banks and records too where one name stands for several."""
    names = [chosen.entry.model or chosen.entry.id for chosen in records]
    with_bank = [
        f"{name} ({str(chosen.bank.path).rstrip('/').rpartition('/')[2]})" if names.count(name) > 1 else name
        for name, chosen in zip(names, records, strict=True)
    ]
    return tuple(
        f"{name} ({chosen.entry.id})" if with_bank.count(name) > 1 else name
        for name, chosen in zip(with_bank, records, strict=True)
    )
