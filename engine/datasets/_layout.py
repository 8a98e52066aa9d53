"""Find the parts of a download below the folder that the user named, and say which one is missing."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import Refused

if TYPE_CHECKING:
    import pandas as pd


def folder(root: Path, candidates: Sequence[str], name: str) -> str:
    """The first of some folders that is there, relative to the root (`.` for the root itself).

    Raises:
        Refused: the root is no folder, or none of them is there.
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
    """The first of some files that is there.

    Raises:
        Refused: none of them is there.
    """
    found = optional_file(root, candidates)
    if found is None:
        raise missing(root, candidates, name)
    return found


def optional_file(root: Path, candidates: Sequence[str]) -> Path | None:
    """The first of some files that is there, if any. A folder of that name counts: reading it is refused."""
    return next((root / candidate for candidate in candidates if (root / candidate).exists()), None)


def refuse_no_folder(root: Path, name: str) -> None:
    """Refuse a root that is no folder.

    Raises:
        Refused: naming it.
    """
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise Refused(
            f"{root} {found}",
            "ROOT is the folder that the data set was unpacked into",
            f"check the path; `embank datasets show {name}` shows the layout",
        )


def missing(root: Path, candidates: Sequence[str], name: str) -> Refused:
    """The error for a missing part of a download."""
    others = f", and so is {', '.join(candidates[1:])}" if len(candidates) > 1 else ""
    return Refused(
        f"{root / candidates[0]} is missing{others}",
        f"It is a part of {name} as downloaded",
        f"fetch or unpack it, or name the folder that holds it; see `embank datasets show {name}`",
    )


def files(root: Path, folders: Sequence[str], suffixes: Sequence[str]) -> dict[str, str]:
    """List files of some folders without entering their subfolders.

    Args:
        folders: relative to the root, those that are absent are passed over.
        suffixes: lower case, with the dot.

    Returns:
        stem in lower case -> uri. Letters' case is no part of a name here: archives unpacked on another
        system may hold `.JPG` for `.jpg`.

    Raises:
        Refused: two files have one name but for the case, the suffix or the folder.
    """
    found: dict[str, str] = {}
    for folder_ in folders:
        if not (root / folder_).is_dir():
            continue
        prefix = "" if folder_ == "." else f"{folder_}/"
        for name in entries(root / folder_):
            stem, dot, suffix = name.lower().rpartition(".")
            if dot + suffix not in suffixes:
                continue
            uri = prefix + name
            if stem in found:
                raise Refused(
                    f"{root / found[stem]} and {root / uri}",
                    "Each image is there once, whatever the case of its name and its folder",
                    "remove one of them",
                )
            found[stem] = uri
    return found


def entries(folder: Path) -> list[str]:
    """Names in a folder, sorted, hidden ones left out.

    Raises:
        Refused: it cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(entry.name for entry in found if not entry.name.startswith("."))
    except OSError as error:
        raise Refused(
            f"{folder}: {error.strerror}", "The folder of the images can be listed", "check the path"
        ) from error


def attach(
    frame: "pd.DataFrame",
    stems: "pd.Series[str]",
    found: dict[str, str],
    where: Path,
    name: str,
    *,
    others: bool = True,
) -> tuple["pd.DataFrame", list[str]]:
    """Give each row the uri of its file, and leave out rows that have none.

    Args:
        frame: one row an image.
        stems: file name without suffix of each row, in any case.
        found: of `files`.
        where: folder to name in messages.
        others: say how many files no row names.

    Returns:
        (rows with the column `uri`, notes on what was left out on either side).

    Raises:
        Refused: no row has a file.
    """
    lower = stems.str.lower()
    uris = lower.map(found)
    there = uris.notna().to_numpy()
    if not there.any():
        raise Refused(
            f"{where} holds none of the {len(frame):,} images of the label table, such as {stems.iloc[0]}",
            f"The images of {name} lie there under their own names",
            f"unpack the images; `embank datasets show {name}` shows the layout",
        )
    notes = []
    if absent := int((~there).sum()):
        first = stems[~there].iloc[0]
        notes.append(
            f"{absent:,} of {len(frame):,} rows of the label table left out: no file (first: {first})"
        )
    if others and (extra := len(set(found) - set(lower))):
        notes.append(f"{extra:,} files left out: they are not in the label table")
    kept = frame.assign(uri=uris.where(uris.notna(), ""))[there]
    return kept.reset_index(drop=True), notes
