"""CSV and Parquet files as tables of text, read strictly: nothing is guessed or silently converted."""

import stat
from pathlib import Path

from stores.backends import files
from stores.backends.location import Place
from stores.errors import ManifestError
from stores.manifest import csv_file, parquet_file
from stores.manifest.text_table import TextTable


def read_table(path: Place) -> TextTable:
    """Read a Parquet or CSV file, told apart by their first bytes.

    Raises:
        ManifestError: the file is absent, empty or malformed; with the line number where there is one.
    """
    local = files.local_path(path)
    if local is None:
        return parquet_file.read(path)
    refuse_special(local)
    try:
        with local.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ManifestError(
            f"{path}: {error.strerror}",
            "A manifest is a readable CSV or Parquet file",
            "check the path; for a folder of images run `embank manifest folder`",
        ) from error
    if magic == b"PAR1":
        return parquet_file.read(path)
    if local.suffix.lower() in (".parquet", ".pq"):
        raise ManifestError(
            f"{path} does not start as a Parquet file", "Its first bytes are PAR1", "write it again"
        )
    return csv_file.read(local, magic)


def refuse_special(path: Path) -> None:
    """Refuse a table that is a FIFO, socket or device: opening or reading one can wait for ever.

    A path that cannot be inspected is accepted here: opening it names the reason.

    Raises:
        ManifestError: it is one.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ManifestError(
            f"{path} is no regular file",
            "A table is a file, not a FIFO, a socket or a device",
            "write it to a file first",
        )
