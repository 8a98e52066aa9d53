"""Files that appear under their name complete and on the disk, or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from stores.errors import MachineFault, Refused

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the given name once it is complete and on the disk.

    Raises:
        Refused: the folder is missing or not writable.
        MachineFault: the disk is full or fails.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(temporary, _CREATE, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - a point at which the tests inject faults
        _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_error(path: Path, error: OSError) -> Refused | MachineFault:
    """Return the user's error for a file that could not be written."""
    refused = FileNotFoundError | PermissionError | NotADirectoryError | IsADirectoryError | FileExistsError
    if isinstance(error, refused):
        return Refused(
            f"{path}: {error.strerror}",
            "The folder of the file exists and can be written to",
            "choose another",
        )
    return MachineFault(
        f"{path}: {error.strerror}", "The file must be written whole", "make room and run the command again"
    )
