"""The records of a bank by short ids: in order of time, chosen by kind and model, found by a beginning.

A record that cannot be read is an entry of the index like the others, with the error that says why.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stores.backends import files
from stores.backends.location import Place
from stores.bank.names import Roster
from stores.bank.reader import Bank
from stores.bank.records import FOLDER, RunRecord, read_record, record_files
from stores.errors import BankError, EmbankError, Refused

#: The beginning of the record's digest, with which its file's name ends.
_DIGEST = re.compile(r"-([0-9a-f]{8})\.json$")
#: Candidates that a message names.
_NAMED = 12


@dataclass(frozen=True)
class RecordEntry:
    """One record file.

    Attributes:
        id: first eight digits of the record's digest; its file's name where two share them.
        path: of the file, relative to the bank.
        record: what it holds; None where it cannot be read.
        error: why it cannot be read, else None.
        model: what its feature is called in the bank today, else the model as the record names it.
    """

    id: str
    path: str
    record: RunRecord | None
    error: EmbankError | None = None
    model: str = ""

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.rpartition("/")[2]

    @property
    def feature(self) -> str:
        """Full name of the feature that was used; empty where the record names none."""
        return "" if self.record is None else text_of(self.record.used.get("feature"))

    @property
    def order(self) -> tuple[str, str]:
        """When it was made, by the record or else by the file's name; and that name."""
        if self.record is None:
            return self.name.partition("Z")[0], self.name
        stamp = self.record.created.partition("+")[0]
        return "".join(c for c in stamp if c not in "-:"), self.name


def text_of(value: Any) -> str:
    """Return a text as it is and anything else as the empty text."""
    return value if isinstance(value, str) else ""


def read_index(bank: Place | str) -> list[RecordEntry]:
    """Read all records of a bank, oldest first; no embedding is read.

    Raises:
        BankError: no bank, or its own documents are damaged. MachineFault: I/O error.
    """
    root = Bank.open(bank).path
    paths = record_files(root)
    ids = _ids([path.name for path in paths])
    titles = Roster.of(root).titles if paths else {}
    entries = []
    for path, outcome in zip(paths, files.each(root, _read, paths), strict=True):
        where = f"{FOLDER}/{path.name}"
        if isinstance(outcome, RunRecord):
            entries.append(RecordEntry(ids[path.name], where, outcome, None, _model(outcome, titles)))
        else:
            entries.append(RecordEntry(ids[path.name], where, None, outcome))
    return sorted(entries, key=lambda entry: entry.order)


def _read(path: Place) -> RunRecord | EmbankError:
    try:
        return read_record(path)
    except Refused as error:  # damaged, of another version, or no plain file; a failing disk raises
        return error


def _ids(names: Sequence[str]) -> dict[str, str]:
    """Map each file name to its id."""
    matches = {name: _DIGEST.search(name) for name in names}
    short = {name: match[1] for name, match in matches.items() if match}
    uses = Counter(short.values())
    return {
        name: short[name] if uses[short.get(name, "")] == 1 else name.removesuffix(".json") for name in names
    }


def _model(record: RunRecord, titles: dict[str, str]) -> str:
    feature = text_of(record.used.get("feature"))
    return titles.get(feature) or text_of(record.asked.get("model")) or feature


def select(
    bank: Place | str, entries: Sequence[RecordEntry], kind: str | None = None, model: str | None = None
) -> list[RecordEntry]:
    """Choose records by kind and model; those that cannot be read stay, since their kind is unknown.

    Args:
        kind: as the record names it, e.g. `fewshot`; None takes all.
        model: slug, feature name, title or a beginning that fits one feature; None takes all.

    Raises:
        BankError: the word fits several features. Refused: no record fits.
    """
    if kind is None and model is None:
        return list(entries)
    words = _features(bank, model) if model is not None else None
    selected = [entry for entry in entries if entry.record is None or _fits(entry, kind, model, words)]
    if not selected:
        filters = " and ".join(
            f"{what} {word!r}" for what, word in (("kind", kind), ("model", model)) if word is not None
        )
        raise Refused(
            f"{bank} has no record of {filters}",
            f"It has records of {_counted(entries)}",
            f"choose among those that `embank records ls {bank}` lists",
        )
    return selected


def _features(bank: Place | str, model: str) -> set[str]:
    """Return the full names of features in the bank that a word fits; records may name others."""
    return {entry.feature for entry in Roster.of(Bank.open(bank).path).matching(model)}


def _fits(entry: RecordEntry, kind: str | None, model: str | None, features: set[str] | None) -> bool:
    assert entry.record is not None
    if kind is not None and entry.record.kind != kind:
        return False
    if features is None:
        return True
    return entry.feature in features or model in (
        entry.model,
        entry.feature,
        text_of(entry.record.asked.get("model")),
    )


def _counted(entries: Sequence[RecordEntry]) -> str:
    kinds = Counter(entry.record.kind for entry in entries if entry.record is not None)
    return ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items())) or "no kind"


def find(bank: Place | str, entries: Sequence[RecordEntry], word: str) -> RecordEntry:
    """Return the one record that is meant by the beginning of its id or of its file's name.

    Raises:
        Refused: no record, or several; naming the candidates.
    """
    name = word.removeprefix(f"{FOLDER}/")
    exact = [entry for entry in entries if name in (entry.id, entry.name)]
    begun = exact or [e for e in entries if name and (e.id.startswith(name) or e.name.startswith(name))]
    if len(begun) == 1:
        return begun[0]
    candidates = [f"{e.id} ({'unreadable' if e.record is None else e.record.kind})" for e in begun or entries]
    left = len(candidates) - _NAMED
    listed = ", ".join(candidates[-_NAMED:]) + (f" and {left} earlier ones" if left > 0 else "")
    raise Refused(
        f"record {word[:100]!r} is {'the beginning of several' if begun else 'none of the bank'}",
        "A record is named by its id, or by a beginning of it or of its file's name that fits no other",
        f"name one of {listed}" if listed else f"evaluate first: {bank} has no records",
    )


def record_of(bank: Place | str, word: str) -> RecordEntry:
    """Return the record that is meant, as `find`, if it can be read.

    Raises:
        Refused: as `find`. BankError: the record is damaged, or of another schema version.
    """
    entry = find(bank, read_index(bank), word)
    if entry.error is not None:
        raise BankError(entry.error.found, entry.error.rule, entry.error.remedy)
    return entry
