"""RunRecords: one sealed JSON document a run or evaluation. Reports read these and nothing else."""

import math
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from stores.backends import files
from stores.backends.location import Place, place
from stores.bank import document_schemas, documents
from stores.bank.keys import SCHEMA_VERSION
from stores.bank.layout import SIDE
from stores.errors import BankError, EmbankError, MachineFault

FOLDER = "records"


@dataclass(frozen=True)
class RunRecord:
    """What was asked, what was used, what came out. Values become plain JSON; non-finite numbers become None.

    Attributes:
        kind: of the run, e.g. `embed`, `fewshot`.
        asked: the settings as given.
        used: keys, digests, device, seed.
        metrics: results, fractions with their intervals.
        seconds: by stage.
        versions: of the packages that can change a number.
        failures: code -> number of rows, or whatever else went wrong.
        convergence: of the solver, where there is one.
        created: UTC, ISO 8601.
    """

    kind: str
    asked: Mapping[str, Any]
    used: Mapping[str, Any]
    metrics: Mapping[str, Any]
    seconds: Mapping[str, Any]
    created: str
    versions: Mapping[str, Any] = field(default_factory=dict)
    failures: Mapping[str, Any] = field(default_factory=dict)
    convergence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, _plain(getattr(self, each.name)))

    @classmethod
    def now(cls, kind: str, **parts: Any) -> "RunRecord":
        """A record created at this moment; `parts` are the other fields."""
        return cls(kind=kind, created=datetime.now(UTC).isoformat(), **parts)

    def write(self, bank: Place | str) -> Place:
        """Keep the record in the bank's `records`; returns its path. Raises MachineFault, BankError."""
        root = place(bank)
        body = {"schema": SCHEMA_VERSION, **asdict(self)}
        digest = documents.digest(body)
        stamp = "".join(c for c in self.created.partition("+")[0] if c not in "-:")
        kind = "".join(c if c.isalnum() else "-" for c in self.kind)
        path = root / FOLDER / f"{stamp}Z-{kind}-{digest[:8]}.json"
        for folder in (path.parent, root / SIDE / "tmp"):
            files.make_directory(folder)
        documents.create(path, body, files.temporary(root / SIDE / "tmp", "record"))
        return path


@dataclass
class Batch:
    """Records of one command, written when all of it has been computed.

    Attributes:
        waiting: (record, bank, result) of each, in order.
        lost: why records could not be kept, one error each.
    """

    waiting: list[tuple[RunRecord, Place, MutableMapping[str, Any]]] = field(default_factory=list)
    lost: list[EmbankError] = field(default_factory=list)

    def write(self) -> None:
        """Write what is waiting; a result whose record cannot be kept says so in `record_reason`."""
        for record, bank, result in self.waiting:
            try:
                record.write(bank)
            except (BankError, MachineFault) as error:
                result.update(record=None, record_reason=error.found)
                self.lost.append(error)
        self.waiting.clear()


_batch: ContextVar[Batch | None] = ContextVar("batch", default=None)


@contextmanager
def together(write: bool = True) -> Iterator[Batch]:
    """Have `keep` wait until the body is done; where the body raises, no record is written.

    Args:
        write: False leaves the records in the batch, for a caller that writes them elsewhere.
    """
    batch = Batch()
    token = _batch.set(batch)
    try:
        yield batch
    finally:
        _batch.reset(token)
    if write:
        if outer := _batch.get():
            outer.waiting += batch.waiting
        else:
            batch.write()


def keep(record: RunRecord, bank: Place | str, result: MutableMapping[str, Any]) -> None:
    """Write the record of a result that is there already, and must not be lost with it.

    Where the bank cannot be written to, or its disk is full, the result gets `record` None and a
    `record_reason`. Inside `together` the record waits.
    """
    batch = _batch.get()
    if batch is not None:
        batch.waiting.append((record, place(bank), result))
    else:
        Batch([(record, place(bank), result)]).write()


def read_all(bank: Place | str) -> list[RunRecord]:
    """All records of a bank, oldest first.

    Raises:
        BankError: a record is damaged, or of another schema version.
    """
    found = []
    for path in record_files(place(bank)):
        body = document_schemas.check(documents.read(path), document_schemas.RECORD, path)
        found.append(RunRecord(**{name: value for name, value in body.items() if name != "schema"}))
    return sorted(found, key=lambda record: record.created)


def record_files(root: Place) -> list[Place]:
    """Paths of a bank's records."""
    return [root / FOLDER / name for name in files.names(root / FOLDER) if name.endswith(".json")]


def _plain(value: Any) -> Any:
    """The value as JSON knows it, so that a record read back equals the one written."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
