"""The markers of a feature's chunks: which are done, and what each promises."""

from typing import TypedDict, cast

from stores.backends import files
from stores.backends.location import Place
from stores.bank import document_schemas, documents
from stores.bank.integrity import FilePromise
from stores.bank.keys import FailedRow
from stores.bank.layout import FeatureLayout


class Marker(TypedDict):
    """Body of a marker, once its form has been checked.

    Attributes:
        schema: version of the feature's layout.
        feature: digest of its key.
        chunk: index.
        start: first row of the chunk.
        stop: row after its last.
        files: relative path -> size and SHA-256 of the chunk's files.
        failures: the rows without embedding, in order.
    """

    schema: int
    feature: str
    chunk: int
    start: int
    stop: int
    files: dict[str, FilePromise]
    failures: list[FailedRow]


def committed_chunks(layout: FeatureLayout) -> list[int]:
    """List the indices of the chunks with a marker, ascending; markers are not read."""
    names = set(files.names(layout.side / "markers"))
    return [index for index in range(layout.grid.chunks) if f"{index:06d}.json" in names]


def missing_chunks(layout: FeatureLayout) -> list[int]:
    """List the indices of the chunks without marker, ascending."""
    committed = set(committed_chunks(layout))
    return [index for index in range(layout.grid.chunks) if index not in committed]


def read_marker(path: Place) -> Marker:
    """Read one marker. Raises BankError if it is missing or damaged, or of another schema version."""
    return decode_marker(files.read(path, documents.MAX_BYTES), path)


def read_marker_if_there(path: Place) -> Marker | None:
    """Read one marker as `read_marker` does; None where there is no file."""
    data = files.read_if_there(path, documents.MAX_BYTES)
    return None if data is None else decode_marker(data, path)


def decode_marker(data: bytes, path: Place) -> Marker:
    """Decode the bytes of a marker, and check its form. Raises as `read_marker`."""
    body = document_schemas.check(documents.decode(data, path), document_schemas.MARKER, path)
    return cast(Marker, body)
