"""Reading a sealed feature out of a bucket: fetched at once, checked against the seal, mapped as from disk.

What was fetched stays in a cache folder, one folder a seal, so that the next evaluation reads from disk;
where there is no such folder, or others can write to it, in memory.
"""

import hashlib
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.backends import deadlines, files, object_store, private
from stores.backends.location import ObjectPath
from stores.backends.mmap import map_chunks
from stores.bank import integrity
from stores.bank.layout import SIDE
from stores.errors import BankError

#: Names the cache folder; set but empty, what is read is kept in memory only.
CACHE_VARIABLE = "EMBANK_CACHE"
#: Chunks held in memory at once while they are checked and written.
_AT_ONCE = 8


def cache_folder() -> Path | None:
    """`EMBANK_CACHE`, else `embank` below `XDG_CACHE_HOME` or `~/.cache`.

    None where it cannot be written, or where somebody else can write to it, which is said once.
    """
    stated = os.environ.get(CACHE_VARIABLE)
    if stated == "":
        return None
    try:
        folder = Path(
            stated or Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "embank")
        )
        private.make_folder(folder.absolute())
        if why := private.objection(folder, link=True):
            _distrust(why)
            return None
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    return folder.absolute() if folder.is_dir() and os.access(folder, os.W_OK) else None


def _distrust(why: str) -> None:
    private.warn(
        f"the cache is not used: {why}. Remove that, or run `chmod -R go-w` on it if all of it is yours; or "
        f"set {CACHE_VARIABLE} to a folder of your own."
    )


def read_promised(root: ObjectPath, relative: str, promise: Mapping[str, Any]) -> bytes:
    """An object's bytes, if they are what was sealed. Raises BankError if they are not, or gone."""
    for _ in range(2):  # What was spoilt on its way is whole at the second attempt.
        data = files.read(root / relative)
        if (reason := integrity.difference((len(data), hashlib.sha256(data).hexdigest()), promise)) == "":
            return data
    raise BankError(
        f"{integrity.describe(relative)} is damaged: {root / relative}: {reason}",
        "Nothing is evaluated that differs from what was sealed",
        f"run `embank bank repair {root}`",
    )


def fetch_chunks(
    root: ObjectPath,
    relatives: Sequence[str],
    promises: integrity.Promises,
    seal: bytes,
    payload: int,
    dtype: np.dtype[Any],
    tail: tuple[int, ...],
) -> npt.NDArray[Any]:
    """The payloads of chunk objects, one after another, as `mmap.map_chunks` gives those of files.

    Args:
        relatives: the chunks, in order, relative to the bank.
        promises: of the seal.
        seal: its bytes.

    Raises:
        BankError: a chunk is missing or damaged. MachineFault: the store fails, or the disk is full.
    """
    wanted = {relative: promises[relative] for relative in relatives}
    if (folder := cache_folder()) is not None:
        home = folder / "banks" / hashlib.sha256(seal).hexdigest()
        copies = [home / relative for relative in relatives]
        if why := private.objection_below(folder, copies):
            _distrust(why)
        else:
            _fill(home, root, wanted, seal)
            return map_chunks(copies, payload, dtype, tail)
    buffer = mmap.mmap(-1, payload * len(relatives))

    def fetch(index: int) -> None:
        data = read_promised(root, relatives[index], wanted[relatives[index]])
        buffer[index * payload : (index + 1) * payload] = data[:payload]

    _in_threads(fetch, range(len(relatives)))
    array = np.frombuffer(buffer, dtype=dtype).reshape(-1, *tail)
    array.flags.writeable = False
    return array


def _fill(home: Path, root: ObjectPath, wanted: integrity.Promises, seal: bytes) -> None:
    """Make sure of the cached copies, as of any bank's files; fetch those that are missing or damaged."""
    feature = next(iter(wanted)).partition("/")[0]
    temporaries = home / SIDE / "tmp"

    def fetch(relative: str) -> None:
        data = read_promised(root, relative, wanted[relative])
        with files.faults(home / relative):
            private.make_folder((home / relative).parent)
            files.replace(home / relative, data, files.temporary(temporaries, "fetched"))
            (home / relative).chmod(0o600)

    with files.faults(temporaries):
        private.make_folder(temporaries)
    integrity.ensure(home, feature, seal, wanted, lambda broken: _in_threads(fetch, broken))


def _in_threads(function: Callable[[Any], None], items: Any) -> None:
    list(deadlines.at_once(min(_AT_ONCE, object_store.THREADS), function, items))
