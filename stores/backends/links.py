"""A bank stays inside its own directory: no folder of it is a link that leads elsewhere.

A bank from elsewhere may hold any files. One link among its folders, and reading or mending it would read,
write or remove what lies where the link leads. That the whole bank is reached by a link is its owner's
choice, and hard links are files like any other. Single files are looked at when they are opened
(`stores.backends.files`).
"""

import os
from collections.abc import Iterator
from pathlib import Path

from stores.backends.location import Place
from stores.bank.layout import SIDE, is_feature_name
from stores.errors import PathRefused

#: Deeper than any folder of a bank.
_DEPTH = 8


def refuse_links(root: Place) -> None:
    """Look at the names at the top of a bank.

    Raises:
        PathRefused: one that the bank itself would use is a link.
    """
    if not isinstance(root, Path):
        return
    own = (SIDE, "records")
    for folder, every in (("", False), (SIDE, True)):
        for entry in _entries(f"{root}/{folder}"):
            if entry.is_symlink() and (every or entry.name in own or is_feature_name(entry.name)):
                raise refused(Path(entry.path))


def refuse_feature_links(root: Place, feature: str) -> None:
    """Look at all folders of a feature.

    Raises:
        PathRefused: one is a link, or chunk files or markers are.
    """
    if not isinstance(root, Path):
        return
    pending = [(f"{root}/{feature}", 0), (f"{root}/{SIDE}/{feature}", 0)]
    while pending:
        folder, depth = pending.pop()
        for entry in _entries(folder):
            if entry.is_symlink():
                raise refused(Path(entry.path))
            # A chunk's own folder holds one file, which is looked at when it is opened.
            if depth < _DEPTH and not folder.endswith("/c") and entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, depth + 1))


def refused(path: Path) -> PathRefused:
    """The error for a link inside a bank."""
    return PathRefused(
        f"{path} is a link",
        "A bank holds its own files, and no links that lead elsewhere; the whole bank may be linked to",
        "put what it leads to in its place if you trust it, or remove the link and run `embank bank verify`",
    )


def _entries(folder: str) -> "Iterator[os.DirEntry[str]]":
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:  # none there, or unreadable: opening what is in it says so
        return
