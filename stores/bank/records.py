"""RunRecords: one sealed JSON document a run or evaluation. Reports read these and nothing else.

Predictions of single images lie beside a record, in Parquet files of the same stem; the record has their
digests (`stores.bank.predictions`).
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from stores.backends import files
from stores.backends.location import Place, place
from stores.bank import document_schemas, documents
from stores.bank.array_cache import ArrayFile
from stores.bank.image_ids import keep_image_ids
from stores.bank.keys import SCHEMA_VERSION
from stores.bank.layout import SIDE
from stores.errors import BankError, EmbankError, MachineFault
from stores.json_types import Json, JsonObject

FOLDER = "records"
_TABLE_ENDING = re.compile(r"(\.[a-z0-9_]+)?\.parquet$")


@dataclass(frozen=True, eq=False, repr=False)
class Attachment:
    """A table that is to lie beside a record.

    Attributes:
        data: its Parquet file.
        rows: of it.
    """

    data: bytes
    rows: int


def attached_name(record: str, table: str) -> str:
    """Return the name of the file with a table of a record.

    Args:
        record: name of the record's file.
        table: its name; the only table of a record has none: "".
    """
    return f"{record.removesuffix('.json')}{'.' * bool(table)}{table}.parquet"


def record_stem(name: str) -> str:
    """Return the common stem of the names of a record and of the tables beside it."""
    if name.endswith(".json"):
        return name.removesuffix(".json")
    return _TABLE_ENDING.sub("", name)


@dataclass(frozen=True)
class RunRecord:
    """Settings, inputs and results of a run. Values become plain JSON; non-finite numbers become None.

    Attributes:
        kind: of the run, e.g. `embed`, `fewshot`.
        asked: the settings as given.
        used: keys, digests, device, seed.
        metrics: results, fractions with their intervals.
        seconds: by stage.
        versions: of the packages that can change a number.
        failures: code -> number of rows, or whatever else went wrong.
        convergence: of the solver, where there is one.
        validity: issues that limit what the numbers mean, `{code, severity, sentence, value, rule, remedy,
            subject}` each; None where none were looked for, as in records of earlier versions.
        created: UTC, ISO 8601.
        predictions: table -> `{size, sha256, rows}` of its file beside the record (`attached_name`).
        attached: table -> what is written there with the record; a record that was read has none.
        manifest_file: SHA-256 of the manifest's file that the image ids of these tables come from; no part
            of the document.
        caches: array files that the bank is to keep from now on; no part of the document.
    """

    kind: str
    asked: Mapping[str, Json]
    used: Mapping[str, Json]
    metrics: Mapping[str, Json]
    seconds: Mapping[str, Json]
    created: str
    versions: Mapping[str, Json] = field(default_factory=dict)
    failures: Mapping[str, Json] = field(default_factory=dict)
    convergence: Mapping[str, Json] = field(default_factory=dict)
    validity: Sequence[Json] | None = None
    predictions: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    attached: Mapping[str, Attachment] = field(default_factory=dict, compare=False, repr=False)
    manifest_file: str = field(default="", compare=False, repr=False)
    caches: tuple[ArrayFile, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        for member in fields(self):
            if member.name not in _ASIDE:
                object.__setattr__(self, member.name, _plain(getattr(self, member.name)))
        if self.attached:
            object.__setattr__(self, "predictions", {n: _promise(a) for n, a in self.attached.items()})

    def to_dict(self) -> JsonObject:
        """Return the document, less its schema version; `predictions` and `validity` only where there are."""
        body: JsonObject = {name: value for name, value in self.__dict__.items() if name not in _ASIDE}
        if not self.predictions:
            del body["predictions"]
        if self.validity is None:
            del body["validity"]
        return body

    @classmethod
    def now(cls, kind: str, **parts: Any) -> "RunRecord":
        """Return a record created at this moment; `parts` are the other fields."""
        return cls(kind=kind, created=datetime.now(UTC).isoformat(), **parts)

    def write(self, bank: Place | str) -> Place:
        """Keep the record in the bank's `records`, after what is attached to it; returns its path.

        Raises:
            MachineFault, BankError: nothing is kept.
        """
        root = place(bank)
        body = {"schema": SCHEMA_VERSION, **self.to_dict()}
        digest = documents.digest(body)
        stamp = "".join(c for c in self.created.partition("+")[0] if c not in "-:")
        kind = "".join(c if c.isalnum() else "-" for c in self.kind)
        path = root / FOLDER / f"{stamp}Z-{kind}-{digest[:8]}.json"
        for folder in (path.parent, root / SIDE / "tmp"):
            files.make_directory(folder)
        beside = {path.parent / attached_name(path.name, name): a for name, a in self.attached.items()}
        try:
            for target, attachment in beside.items():
                files.create(target, attachment.data, files.temporary(root / SIDE / "tmp", "record"))
            documents.create(path, body, files.temporary(root / SIDE / "tmp", "record"))
        except (BankError, MachineFault):
            with suppress(BankError, MachineFault):
                if files.stat_if_there(path) is None:  # its tables remain without a record
                    files.each(root, files.remove, list(beside))
            raise
        if self.manifest_file:
            keep_image_ids(root, self.manifest_file)
        for file in self.caches:
            file.keep(root)
        return path


#: Members that are no part of the document.
_ASIDE = ("attached", "manifest_file", "caches")


def _promise(attachment: Attachment) -> JsonObject:
    digest = hashlib.sha256(attachment.data).hexdigest()
    return {"size": len(attachment.data), "sha256": digest, "rows": attachment.rows}


@dataclass
class Batch:
    """Records of one command, written when all of it has been computed.

    Attributes:
        waiting: (record, bank, result) of each, in order.
        lost: why records could not be kept, one error each.
        made: all records of the command in order, also those that could not be kept; figures are drawn from
            them.
    """

    waiting: list[tuple[RunRecord, Place, MutableMapping[str, Any]]] = field(default_factory=list)
    lost: list[EmbankError] = field(default_factory=list)
    made: list[RunRecord] = field(default_factory=list)

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
    """Delay the records of `keep` until the body is done; if it raises, write none.

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
            outer.lost += batch.lost
            outer.made += batch.made
        else:
            batch.write()


def keep(record: RunRecord, bank: Place | str, result: MutableMapping[str, Any]) -> None:
    """Write the record of a result that is there already, and must not be lost with it.

    The result gets the record's `validity`. Where the bank cannot be written to, or its disk is full, it gets
    `record` None and a `record_reason`. Inside `together` the record waits.
    """
    _add_validity(record, result)
    batch = _batch.get()
    if batch is not None:
        batch.waiting.append((record, place(bank), result))
        batch.made.append(record)
    else:
        Batch([(record, place(bank), result)]).write()


def not_kept(error: EmbankError, result: MutableMapping[str, Any], record: RunRecord) -> None:
    """Say in a result that is there already why its record cannot be kept.

    Args:
        record: without the predictions that could not be made.
    """
    _add_validity(record, result)
    result.update(record=None, record_reason=error.found)
    if batch := _batch.get():
        batch.lost.append(error)
        batch.made.append(record)


def _add_validity(record: RunRecord, result: MutableMapping[str, Any]) -> None:
    if record.validity is not None:
        result["validity"] = list(record.validity)


def read_all(bank: Place | str) -> list[RunRecord]:
    """Read all records of a bank, oldest first.

    Raises:
        BankError: a record is damaged, or of another schema version.
    """
    records = [read_record(path) for path in record_files(place(bank))]
    return sorted(records, key=lambda record: record.created)


def read_record(path: Place) -> RunRecord:
    """Read one record.

    Raises:
        BankError: it is missing, damaged, or of another schema version.
    """
    body = document_schemas.check(documents.read(path), document_schemas.RECORD, path)
    return RunRecord(**{name: value for name, value in body.items() if name != "schema"})


def record_files(root: Place) -> list[Place]:
    """List the paths of a bank's records."""
    return [root / FOLDER / name for name in files.names(root / FOLDER) if name.endswith(".json")]


def _plain(value: Any) -> Json:
    """Convert a value to JSON values, so that a record read back equals the one written."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
