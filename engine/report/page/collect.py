"""The records of a bank that a page shows: of each question the latest answer of each model."""

from collections.abc import Iterable, Sequence

from engine.report.page.inputs import Gap, Source
from engine.report.page.settings import key_of, settings_of
from stores.backends.location import Place, place
from stores.bank.reader import Bank
from stores.bank.record_index import RecordEntry, read_index

#: Kinds of records that no page shows: they answer questions about single images, or change labels.
_ASIDE = ("search", "relabel")


def bank_source(bank: Place | str) -> tuple[Source, tuple[Gap, ...]]:
    """Return the records of a bank that a page shows, and those that cannot be read as gaps.

    Raises:
        BankError: no bank, or its own documents are damaged. MachineFault: I/O error.
    """
    root = Bank.open(place(bank)).path
    entries = read_index(root)
    name = root.name.removesuffix(".bank") or "bank"
    shown = latest(entry for entry in entries if entry.record is not None)
    return Source(name, root, tuple(shown)), unreadable(name, entries)


def latest(entries: Iterable[RecordEntry]) -> list[RecordEntry]:
    """Return the latest entry of each kind, model and settings, in the order of time.

    Args:
        entries: that can be read, oldest first.
    """
    newest: dict[tuple[str, str, str], RecordEntry] = {}
    for entry in entries:
        assert entry.record is not None
        if entry.record.kind not in _ASIDE:
            key = entry.record.kind, entry.feature or entry.model, key_of(settings_of(entry.record))
            newest.pop(key, None)
            newest[key] = entry
    return list(newest.values())


def unreadable(dataset: str, entries: Sequence[RecordEntry]) -> tuple[Gap, ...]:
    """Return the records of a data set that cannot be read."""
    return tuple(
        Gap(
            dataset,
            "",
            f"record {entry.id}",
            "",
            0,
            "failed",
            f"{entry.error.found}. {entry.error.rule}",
            entry.error.remedy,
        )
        for entry in entries
        if entry.error is not None
    )
