"""Looking at image files before anything is computed: are they there, and are they those of the bank?

Nothing here decodes an image or changes a bank.
"""
# A call per image: the functions of `os`, not `pathlib`.
# ruff: noqa: PTH116, PTH118

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from engine.decode.contents import Contents, changed
from engine.decode.formats.sniff import sniff
from engine.decode.source import ImageSource
from engine.errors import BadImage, Refused
from engine.recipes import Recipe
from stores.bank.contents import Table, differing_rows, known, unknown
from stores.members import split

T = TypeVar("T")

#: Files of a finished feature that are read again to see that they are the same.
SAMPLE = 64
_THREADS = 8

#: Called with (files looked at, files in all).
Looked = Callable[[int, int], None]


@dataclass(frozen=True)
class InputChecks:
    """How far the image files are trusted to be what they were.

    Attributes:
        max_missing: the largest share of missing files with which a run starts.
        every: compare every file of what was embedded before, not a random sample.
        accept_changed: if files have changed, make features of them as they are now, beside the old ones.
        retry_failed: try again the rows that failed because of their image.
    """

    max_missing: float = 0.01
    every: bool = False
    accept_changed: bool = False
    retry_failed: bool = False


def refuse_missing(source: ImageSource, rows: Sequence[int], max_missing: float) -> None:
    """Refuse to start where the folder is not there, or too many files are not.

    Args:
        rows: that are to be read.
        max_missing: the largest share of all images that may be missing.

    Raises:
        Refused: with the numbers.
    """
    if not source.root.is_dir():
        raise Refused(
            f"{source.root} is not a folder here",
            "The images lie below it",
            "mount or move it there, or give its place now with --root",
        )
    folder = {row: split(source.uris[row])[0] for row in rows}
    names = sorted(set(folder.values()))
    with ThreadPoolExecutor(_THREADS) as pool:
        absent = pool.map(lambda name: not _is_there(os.path.join(source.root, name)), names)
    gone = {name for name, missing in zip(names, absent, strict=True) if missing}
    missing = [row for row in rows if folder[row] in gone]
    if len(missing) > max_missing * len(source):
        examples = ", ".join(repr(source.uris[row]) for row in missing[:3])
        raise Refused(
            f"{len(missing):,} of {len(rows):,} image files are missing below {source.root}: {examples}",
            f"A run starts with at most {max_missing:.1%} missing, lest a disk that is not mounted pass for "
            "bad images",
            "check the folder (--root) and what is mounted; `embank embed --max-failed SHARE` allows more",
        )


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except OSError:  # whatever keeps it from being seen keeps it from being read
        return False
    except ValueError:  # a name that no file can have: the row's own fault
        return True
    return True


def refuse_changed(
    source: ImageSource, expected: Table, *, every: bool = False, looked: Looked | None = None
) -> int:
    """Compare files with what a bank's rows were made from; those that are not there now are passed over.

    Args:
        expected: uint8 [rows, 32]; rows of zeros are not compared.
        every: all of them, instead of `SAMPLE` drawn at random.

    Returns:
        How many were compared.

    Raises:
        ChangedImage: files differ; they are named.
    """
    rows = np.flatnonzero(known(expected))
    if not every and len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng().choice(rows, SAMPLE, replace=False))
    now = digests(source, rows.tolist(), looked)
    compared = int(known(now)[rows].sum())
    differing = differing_rows(expected, now)  # what was not read now is not known
    if len(differing):
        share = f"{len(differing):,} of {compared:,} compared"
        raise changed([source.uris[row] for row in differing.tolist()], share)
    return compared


def digests(source: ImageSource, rows: Sequence[int], looked: Looked | None = None) -> Table:
    """The contents of image files as they are now.

    Returns:
        uint8 [len(source), 32]; zeros of rows that cannot be read, and of those not asked for.

    Raises:
        MachineFault: the storage failed.
    """
    contents = Contents(unknown(len(source)))
    reading = replace(source, contents=contents, sha256=None)
    for done, _ in enumerate(_in_threads(lambda row: _read(reading, row), rows), 1):
        if looked is not None:
            looked(done, len(rows))
    return contents.read


def _read(source: ImageSource, row: int) -> bytes | BadImage:
    try:
        return source.read(row)
    except BadImage as error:
        return error.with_traceback(None)


def no_longer_pending(source: ImageSource, recipe: Recipe, rows: Sequence[int]) -> list[int]:
    """Of rows that the machine or a setting stood in the way of, those in whose way nothing stands now.

    Raises:
        ChangedImage: a file is not the one that other features were made from.
    """

    def ready(row: int) -> bool:
        try:
            sniff(source.read(row), recipe, source.limits)
        except BadImage as error:
            return not error.pending
        return True

    return [row for row, now in zip(rows, _in_threads(ready, rows), strict=True) if now]


def _in_threads(function: Callable[[int], T], rows: Sequence[int]) -> Iterator[T]:
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(rows), 64):  # so that Ctrl-C waits for few, and little is held
            yield from pool.map(function, rows[start : start + 64])
