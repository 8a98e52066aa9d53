"""Parquet files as tables of text; those that embank writes keep the root of their images."""

import io
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

from stores.backends import files
from stores.backends.location import Place
from stores.errors import ManifestError
from stores.manifest.atomic_file import atomic_file
from stores.manifest.text import clean_names
from stores.manifest.text_table import TextTable, folder_of, refuse_bad_names
from stores.manifest.typed_columns import as_text

if TYPE_CHECKING:
    import pyarrow as pa

_ROOT_KEY = b"embank.root"
#: Metadata that Arrow adds to a file it writes, and `write` leaves out. If another program reads a file of
#: ours with Arrow and writes it again, the new file has this key as well as our root.
_FOREIGN_KEY = b"ARROW:schema"


def read(path: Place) -> TextTable:
    """Read a Parquet file or object.

    Raises:
        ManifestError: the file is malformed, without rows, or holds columns that have no text form.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # `ParquetFile` rather than `read_table`: no partition columns invented from folder names.
        local = files.local_path(path)
        source = pa.BufferReader(files.read(path)) if local is None else local
        with pq.ParquetFile(source) as file:
            if local is not None and file.metadata.num_rows > _most_rows(local):
                raise ManifestError(
                    f"{path} states {file.metadata.num_rows} rows in {local.stat().st_size} bytes",
                    "Every image has an id of its own, which takes room",
                    "write it again",
                )
            metadata = file.metadata.metadata or {}
            table, root_text = file.read(), metadata.get(_ROOT_KEY)
        table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ManifestError(
            f"{path} cannot be read as Parquet ({reason})", "A manifest is a sound file", "write it again"
        ) from error
    if not table.num_rows or not table.num_columns:
        raise ManifestError(f"{path} has no rows", "A manifest lists images", "add rows")
    written_by_embank = root_text is not None and _FOREIGN_KEY not in metadata
    names, name_notes = (table.column_names, ()) if written_by_embank else clean_names(table.column_names)
    refuse_bad_names(path, names)
    text, notes = as_text(table.rename_columns(names), str(path))
    root = None if root_text is None else Path(os.path.normpath(folder_of(path) / os.fsdecode(root_text)))
    return TextTable(text, None, root, name_notes + notes, written_by_embank)


def _most_rows(path: Path) -> int:
    """Bound the rows of a file of this size, generously: ids are unique, so every row takes some bytes."""
    return 1_000_000 + 100 * path.stat().st_size


def write(path: Place, table: "pa.Table", root: Path) -> None:
    """Write a text table with its root, atomically; the same table and root give the same bytes.

    The root is kept relative to the file's folder, unless they share nothing but `/`, as with an object.

    Raises:
        Refused: the folder is missing or not writable.
        MachineFault: the disk is full or fails.
    """
    home = folder_of(path)
    absolute = Path(os.path.normpath(root.absolute()))
    share_nothing = os.path.commonpath([absolute, os.path.normpath(home)]) == os.sep
    root_text = str(absolute) if share_nothing else os.path.relpath(absolute, home)
    local = files.local_path(path)
    if local is None:
        buffer = io.BytesIO()
        _write(buffer, table, root_text)
        files.replace(path, buffer.getvalue(), path)
    else:
        with atomic_file(local) as file:
            _write(file, table, root_text)


def _write(file: IO[bytes], table: "pa.Table", root: str) -> None:
    import pyarrow.parquet as pq

    plain = table.combine_chunks().replace_schema_metadata(None)
    # `store_schema` would add Arrow's own serialisation, whose bytes change with its version.
    options = {"compression": "zstd", "version": "2.6", "store_schema": False}
    with pq.ParquetWriter(file, plain.schema, **options) as writer:
        writer.write_table(plain, row_group_size=1 << 20)
        writer.add_key_value_metadata({_ROOT_KEY: os.fsencode(root)})
