"""Folders and files of this user alone: what lies there was written by this user's programs.

A cache saves reading bytes again, so it is trusted only if nobody else can have written to it: owned by this
user, not writable by group or others, and no link in the place of a file.
"""

import contextlib
import functools
import os
import secrets
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

#: Environment variable with the cache folder; if set but empty, data are kept in memory only.
CACHE_VARIABLE = "EMBANK_CACHE"


def state_folder(name: str) -> Path | None:
    """Return a folder for what outlasts a run: `embank/NAME` in `XDG_STATE_HOME` or `~/.local/state`.

    Made if absent. None where there is no such place, or somebody else could write there.
    """
    try:
        home = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
        folder = Path(home, "embank", name).absolute()
        make_folder(folder)
        return None if objection(folder) else folder
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None


def cache_folder() -> Path | None:
    """Return the folder for copies of what can be fetched again, made if absent.

    It is `EMBANK_CACHE`, else `embank` below `XDG_CACHE_HOME` or `~/.cache`.

    None where it cannot be written, or where somebody else can write to it, which is said once.
    """
    stated = os.environ.get(CACHE_VARIABLE)
    if stated == "":
        return None
    try:
        folder = Path(
            stated or Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "embank")
        )
        make_folder(folder.absolute())
        if why := objection(folder, link=True):
            distrust_cache(why)
            return None
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    return folder.absolute() if folder.is_dir() and os.access(folder, os.W_OK) else None


def distrust_cache(why: str) -> None:
    """Say once that the cache folder is not used, and why."""
    warn(
        f"the cache is not used: {why}. Remove that, or run `chmod -R go-w` on it if all of it is yours; or "
        f"set {CACHE_VARIABLE} to a folder of your own."
    )


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, each for this user alone; existing ones stay as they are."""
    if not path.is_dir():
        make_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)


def read(path: Path) -> bytes | None:
    """Read a file; None if it is missing, unreadable or not trusted."""
    try:
        return None if objection(path) else path.read_bytes()
    except OSError:
        return None


def write(path: Path, data: bytes) -> None:
    """Write a file whole, for this user alone. It is not synced: a reader must notice a torn file.

    Raises:
        OSError: the disk is full or fails.
    """
    part = path.with_name(f"{path.name}~{secrets.token_hex(8)}")
    try:
        part.touch(mode=0o600, exist_ok=False)
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def objection(path: Path, *, link: bool = False) -> str:
    """Return why a file or folder is not trusted; "" if it is, or if nothing is there.

    Args:
        link: allow a link of this user's in its place; then what it leads to is judged as well.
    """
    try:
        state = path.lstat()
        if stat.S_ISLNK(state.st_mode):
            if not link or state.st_uid != os.geteuid():
                return f"{path} is a link"
            state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if state.st_uid != os.geteuid():
        return f"{path} belongs to another user"
    if stat.S_IMODE(state.st_mode) & 0o022:
        return f"{path} can be written by others"
    return "" if stat.S_ISDIR(state.st_mode) or stat.S_ISREG(state.st_mode) else f"{path} is no file"


def objection_below(base: Path, paths: Iterable[Path]) -> str:
    """Return the first objection to any of the paths, or to a folder between them and `base`, included."""
    seen: set[Path] = set()
    for path in paths:
        for part in (path, *path.parents):
            if part == base:
                break
            if part not in seen and (why := objection(part)):
                return why
            seen.add(part)
    return objection(base, link=True)


@functools.cache
def warn(text: str) -> None:
    """Say something on standard error, once a process."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"embank: {text}\n")
