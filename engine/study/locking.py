"""One run of a study at a time: a lock that ends with its process, however that ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.study.folder import LOCK
from stores.backends import locks
from stores.backends.base import Lock
from stores.backends.location import place
from stores.errors import Refused

#: Tries, and seconds between them: a look at the lock (`is_running`) holds it for an instant.
_TRIES, _PAUSE_S = 3, 0.05


@contextmanager
def only_run(directory: Path) -> Iterator[None]:
    """Hold the lock of a study's folder for the body. A lock whose holder has died is free.

    Raises:
        Refused: another run holds it; naming its process.
    """
    lock = _taken(directory)
    try:
        yield
    finally:
        lock.unsign()
        lock.release()


def _taken(directory: Path) -> Lock:
    path = place(directory / LOCK)
    for left in reversed(range(_TRIES)):
        try:
            return locks.coordinate(path, f"The study {directory}")
        except Refused as error:
            if not left:
                raise _refused(directory, error) from error
        time.sleep(_PAUSE_S)
    raise AssertionError("unreachable")


def _refused(directory: Path, error: Refused) -> Refused:
    holder = holder_of(directory)
    if holder is None:  # no lock of another run, but a folder that cannot be written to, or a link
        return error
    return Refused(
        f"{directory} is being written by process {holder}",
        "One run at a time makes a study",
        f"wait for process {holder} to end, or stop it (finished cells are kept); then run this again",
    )


def holder_of(directory: Path) -> str | None:
    """Return the number of the process that runs a study at this moment; None if none does."""
    path = directory / LOCK
    if not path.is_file():
        return None
    try:
        locks.refuse_taken(place(path), str(directory))
    except Refused:
        with path.open("rb") as file:
            return file.read(32).decode("ascii", "replace").strip() or "unknown"
    return None
