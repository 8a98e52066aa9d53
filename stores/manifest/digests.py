"""Digests of Arrow tables of text, independent of how Arrow stores them."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def table_digest(purpose: bytes, table: "pa.Table", names: Sequence[str]) -> str:
    """Return the SHA-256, in hex, of the named columns.

    Every text is hashed with its length, so that two different tables never give the same bytes. These are
    the purpose, the number of columns and the number of rows; then for each column its name, the UTF-8
    lengths of all cells, and the cells. Purpose and names are preceded by their lengths; numbers take 8
    bytes, little endian.

    Args:
        purpose: keeps digests of different things apart.
        table: `large_string` columns without nulls.
        names: the columns, in the order in which they are hashed.
    """
    digest = hashlib.sha256(_with_length(purpose) + _uint64(len(names)) + _uint64(table.num_rows))
    for name in names:
        lengths, text = _cell_bytes(table[name])
        digest.update(_with_length(name.encode()))
        digest.update(lengths.tobytes())
        digest.update(text)
    return digest.hexdigest()


def _uint64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _with_length(text: bytes) -> bytes:
    return _uint64(len(text)) + text


def _cell_bytes(column: "pa.ChunkedArray") -> "tuple[np.ndarray[Any, np.dtype[np.int64]], memoryview]":
    """Return the UTF-8 length of every cell, and all cells concatenated."""
    import pyarrow as pa

    array = pa.concat_arrays(column.chunks)
    _, offset_buffer, data = array.buffers()
    offsets = np.frombuffer(offset_buffer, "<i8")[array.offset : array.offset + len(array) + 1]
    text = memoryview(data if data is not None else b"")[int(offsets[0]) : int(offsets[-1])]
    return np.diff(offsets).astype("<i8"), text
