"""What a bank's records say of a study's cells: which are done, and by which records.

A record of a cell carries `used.cell`, the cell's digest. The cell is done if such a record is there that was
made from the feature and the manifest that the bank has today. There is no other ledger: a run that is killed
leaves a cell done or missing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from engine.study.study import Cell
from stores.backends import files
from stores.backends.location import Place, place
from stores.bank.keys import FeatureKey
from stores.bank.layout import RUN_DOCUMENT
from stores.bank.names import Roster
from stores.bank.reader import Bank
from stores.bank.record_index import RecordEntry, read_index, text_of
from stores.bank.records import RunRecord
from stores.bank.seal import seal_path
from stores.json_types import Json


@dataclass(frozen=True)
class Ledger:
    """The records of a bank, by the cells that they are of.

    Attributes:
        bank: today's.
        entries: of all records that are of cells, and can be read, oldest first.
        embedded: records of embedding, oldest first.
    """

    bank: Bank
    entries: tuple[RecordEntry, ...]
    embedded: tuple[RecordEntry, ...] = ()

    @classmethod
    def of(cls, path: Place | str) -> "Ledger":
        """Read a bank's records. Raises BankError: there is no bank."""
        bank = Bank.open(path)
        readable = [entry for entry in read_index(bank.path) if entry.record is not None]
        return cls(
            bank,
            tuple(entry for entry in readable if text_of(_used(entry).get("cell"))),
            tuple(entry for entry in readable if entry.record is not None and entry.record.kind == "embed"),
        )

    @classmethod
    def if_there(cls, path: Place | str) -> "Ledger | None":
        """Read as `of` does; None where there is no bank yet. Raises BankError: it is damaged."""
        return None if files.stat_if_there(place(path) / RUN_DOCUMENT) is None else cls.of(path)

    @property
    def features(self) -> Mapping[str, str]:
        """Word by which a model can be named -> digest of the key of its finished feature."""
        return {word: key.digest for word, key in self.keys.items()}

    @cached_property
    def keys(self) -> Mapping[str, FeatureKey]:
        """Word by which a model can be named -> key of its finished feature."""
        words: dict[str, FeatureKey] = {}
        roster = Roster.of(self.bank.path)
        for entry in roster.entries:
            if entry.key is None or files.stat_if_there(seal_path(self.bank.path, entry.feature)) is None:
                continue
            for word in (entry.slug, roster.title(entry.feature), entry.name):
                if word is not None:
                    words[word] = entry.key
        return words

    @cached_property
    def _of_cells(self) -> Mapping[str, tuple[RecordEntry, ...]]:
        """Digest of a cell -> all records of it, oldest first."""
        own: dict[str, list[RecordEntry]] = {}
        for entry in self.entries:
            own.setdefault(text_of(_used(entry).get("cell")), []).append(entry)
        return {digest: tuple(entries) for digest, entries in own.items()}

    def record(self, cell: Cell, compared: Sequence[Cell] = ()) -> RecordEntry | None:
        """Return the newest record of a cell that is valid today; None unless the cell is done.

        Args:
            compared: of a comparison, the cells whose records it compares; it is done only if it is of the
                very records that they have today.
        """
        valid = [entry for entry in self._of_cells.get(cell.digest, ()) if self._holds(entry, cell)]
        if not valid or (compared and _used(valid[-1]).get("records") != self.basis(compared)):
            return None
        return valid[-1]

    def basis(self, cells: Iterable[Cell]) -> dict[str, Json]:
        """Return model -> file of its record, of the cells that are done: what a comparison is of."""
        own = ((cell.model, self.record(cell)) for cell in cells)
        return {model: entry.name for model, entry in own if entry is not None}

    def _holds(self, entry: RecordEntry, cell: Cell) -> bool:
        """Return whether a record was made from the manifest and the feature that the bank has today."""
        used = _used(entry)
        if used.get("manifest_digest") != self.bank.manifest_digest:
            return False
        return not cell.model or self._is_todays(cell.model, used.get("key"))

    def _is_todays(self, model: str, digest: Json) -> bool:
        """Return whether a digest is that of the key of a model's finished feature."""
        key = self.keys.get(model)
        return key is not None and key.digest == digest


def of_cell(record: RunRecord, cell: Cell) -> RunRecord:
    """Return a record that says what cell it is of."""
    return replace(record, used={**record.used, "cell": cell.digest})


def _used(entry: RecordEntry) -> Mapping[str, Json]:
    assert entry.record is not None
    return entry.record.used
