"""The parts of a download below the user's folder, with errors that name a missing one."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import Refused

if TYPE_CHECKING:
    import pandas as pd


def folder(root: Path, candidates: Sequence[str], name: str) -> str:
    """Return the first candidate that is a folder, relative to the root (`.` is the root itself).

    Args:
        root: the user's folder.
        candidates: relative to the root.
        name: of the data set, for messages.

    Raises:
        Refused: the root is not a folder, a candidate is a file, or none exists.
    """
    refuse_no_folder(root, name)
    for candidate in candidates:
        path = root / candidate
        if path.is_dir():
            return candidate
        if path.exists():
            raise Refused(
                f"{path} is a file",
                f"In {name} this is a folder",
                "unpack the archive into a folder of this name",
            )
    raise missing(root, candidates, name)


def file(root: Path, candidates: Sequence[str], name: str) -> Path:
    """Return the path of the first candidate that exists.

    Args:
        root, candidates, name: as for `folder`.

    Raises:
        Refused: none exists.
    """
    path = optional_file(root, candidates)
    if path is None:
        raise missing(root, candidates, name)
    return path


def optional_file(root: Path, candidates: Sequence[str]) -> Path | None:
    """Return the path of the first candidate that exists, if any; a folder counts: reading it is refused."""
    return next((root / candidate for candidate in candidates if (root / candidate).exists()), None)


def refuse_no_folder(root: Path, name: str) -> None:
    """Refuse a root that is not a folder. Raises Refused."""
    if not root.is_dir():
        fault = "is a file" if root.exists() else "does not exist"
        raise Refused(
            f"{root} {fault}",
            "ROOT is the folder that the data set was unpacked into",
            f"check the path; `embank datasets show {name}` shows the layout",
        )


def missing(root: Path, candidates: Sequence[str], name: str) -> Refused:
    """Return the error for a missing part of a download."""
    others = f", and so is {', '.join(candidates[1:])}" if len(candidates) > 1 else ""
    return Refused(
        f"{root / candidates[0]} is missing{others}",
        f"It is a part of {name} as downloaded",
        f"fetch or unpack it, or name the folder that holds it; see `embank datasets show {name}`",
    )


def files(root: Path, folders: Sequence[str], suffixes: Sequence[str]) -> dict[str, str]:
    """List the files of folders, without those of their subfolders.

    Args:
        root: the user's folder.
        folders: relative to the root; absent ones are skipped.
        suffixes: lower case, with the dot.

    Returns:
        Stem in lower case -> uri. The case of letters is ignored, because archives unpacked on another system
        may have `.JPG` for `.jpg`.

    Raises:
        Refused: the names of two files differ only in case, suffix or folder.
    """
    uris: dict[str, str] = {}
    for parent in folders:
        if not (root / parent).is_dir():
            continue
        prefix = "" if parent == "." else f"{parent}/"
        for name in entries(root / parent):
            stem, dot, suffix = name.lower().rpartition(".")
            if dot + suffix not in suffixes:
                continue
            uri = prefix + name
            if stem in uris:
                raise Refused(
                    f"{root / uris[stem]} and {root / uri}",
                    "Each image is there once, whatever the case of its name and its folder",
                    "remove one of them",
                )
            uris[stem] = uri
    return uris


def entries(folder: Path) -> list[str]:
    """Return the names in a folder, sorted, without hidden ones.

    Raises:
        Refused: it cannot be listed.
    """
    try:
        with os.scandir(folder) as listing:
            return sorted(entry.name for entry in listing if not entry.name.startswith("."))
    except OSError as error:
        raise Refused(
            f"{folder}: {error.strerror}", "The folder of the images can be listed", "check the path"
        ) from error


def attach(
    frame: "pd.DataFrame",
    stems: "pd.Series[str]",
    uri_of: dict[str, str],
    where: Path,
    name: str,
    *,
    others: bool = True,
) -> tuple["pd.DataFrame", list[str]]:
    """Give each row the uri of its file, and leave out rows that have none.

    Args:
        frame: one row for each image.
        stems: file name without suffix of each row, in any case.
        uri_of: as `files` returns it.
        where: folder of the images, for messages.
        name: of the data set, for messages.
        others: note how many files no row names.

    Returns:
        (rows with the column `uri`, notes on rows and files that were left out).

    Raises:
        Refused: no row has a file.
    """
    lower = stems.str.lower()
    uris = lower.map(uri_of)
    has_file = uris.notna().to_numpy()
    if not has_file.any():
        raise Refused(
            f"{where} holds none of the {len(frame):,} images of the label table, such as {stems.iloc[0]}",
            f"The images of {name} lie there under their own names",
            f"unpack the images; `embank datasets show {name}` shows the layout",
        )
    notes = []
    if absent := int((~has_file).sum()):
        first = stems[~has_file].iloc[0]
        notes.append(
            f"{absent:,} of {len(frame):,} rows of the label table left out: no file (first: {first})"
        )
    if others and (unnamed := len(set(uri_of) - set(lower))):
        notes.append(f"{unnamed:,} files left out: they are not in the label table")
    remaining = frame.assign(uri=uris.where(uris.notna(), ""))[has_file]
    return remaining.reset_index(drop=True), notes
