"""Checks of image files before anything is computed: that they exist, and are those of the bank.

Nothing here decodes an image or changes a bank.
"""
# A call per image: the functions of `os`, not `pathlib`.
# ruff: noqa: PTH116, PTH118

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from engine.decode.contents import Contents, changed_images
from engine.decode.formats.sniff import sniff
from engine.decode.source import ImageSource
from engine.embed.options import EmbedOptions, InputChecks, image_source
from engine.embed.plan import Plan
from engine.errors import BadImage, Refused
from engine.pipeline import PROGRESS_EVERY_S, PassProgress, new_clocks
from engine.recipes import Recipe
from stores.bank.amend import uncommitted_rows
from stores.bank.contents import (
    Table,
    contents_of_bank,
    contents_of_feature,
    differing_rows,
    fill,
    known,
    set_digest,
    unknown,
    write_set,
)
from stores.bank.layout import FeatureLayout
from stores.bank.reader import Bank
from stores.bank.writer import layout_in
from stores.manifest.manifest import Manifest
from stores.members import split

T = TypeVar("T")

#: Files of a finished feature that are read again to see that they are the same.
SAMPLE = 64
_THREADS = 8

#: Called with (files read, files in all).
FilesRead = Callable[[int, int], None]


@dataclass(frozen=True)
class InputFiles:
    """The image files of a run, and the checks that they exist and are those of the bank.

    Attributes:
        manifest: the images.
        options: which files are accepted.
        checks: how far they are trusted.
        bank: None if there is none yet.
        on_progress: shown while many files are read.
    """

    manifest: Manifest
    options: EmbedOptions
    checks: InputChecks
    bank: Bank | None
    on_progress: Callable[[PassProgress], None] | None

    @cached_property
    def _source(self) -> ImageSource:
        return image_source(self.manifest, self.options)

    @cached_property
    def _accepted(self) -> Table | None:
        """The contents of all files now, if changes are accepted and some files have changed.

        Raises:
            Refused: too many files are missing.
        """
        if not self.checks.accept_changed or self.bank is None:
            return None
        rows = range(len(self._source))
        refuse_missing(self._source, rows, self.checks.max_missing)
        now = digests(self._source, rows, self._show_reading())
        return now if len(differing_rows(contents_of_bank(self.bank), now)) else None

    @property
    def image_set(self) -> str:
        """Name of the image set, "" for the images that the bank saw first.

        Raises:
            Refused: changes are accepted, and too many files are missing.
        """
        return "" if self._accepted is None else set_digest(self._accepted)

    def write_image_set(self, bank: Bank) -> None:
        """Write the image set into the bank, if it is another than the bank's first."""
        if self._accepted is not None:
            write_set(bank.path, self._accepted)

    def refuse_unusable(self, plan: Plan) -> None:
        """Refuse missing files where there is something to do, and changed ones where something is done.

        Raises:
            Refused: too many files are missing.
            ChangedImage: files are others than those that the bank's rows were made from.
        """
        layouts = [self._layout(plan, position) for position in range(len(plan.specs))]
        rows = set[int]()
        for layout in layouts:
            rows.update(range(len(self._source)) if layout is None else uncommitted_rows(layout))
        if rows:
            refuse_missing(self._source, sorted(rows), self.checks.max_missing)
        if self.bank is not None and self._accepted is None:
            expected = contents_of_bank(self.bank) if rows else self._made_from(filter(None, layouts))
            if known(expected).any():
                refuse_changed(self._source, expected, every=self.checks.every, on_read=self._show_reading())

    def _layout(self, plan: Plan, position: int) -> FeatureLayout | None:
        spec = plan.specs[position]
        if self.bank is None:
            return None
        return layout_in(self.bank, plan.setup.key(spec), spec.dim, self.image_set)

    def _made_from(self, layouts: Iterable[FeatureLayout]) -> Table:
        """Return the digests of what the requested features were made from."""
        table = unknown(len(self._source))
        for layout in layouts:
            fill(table, contents_of_feature(layout))
        return table

    def _show_reading(self) -> FilesRead | None:
        """Show the reading of files as a pass is shown; a short reading is not shown."""
        callback, start = self.on_progress, time.perf_counter()
        last = start
        if callback is None:
            return None

        def show(done: int, total: int) -> None:
            nonlocal last
            now = time.perf_counter()
            if now - last >= PROGRESS_EVERY_S or (done == total and total > SAMPLE):
                last = now
                callback(PassProgress(("comparing files",), done, total, 0, now - start, *new_clocks()))

        return show


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
    except OSError:  # what prevents stat prevents reading as well
        return False
    except ValueError:  # a name that no file can have: an error of this row alone
        return True
    return True


def refuse_changed(
    source: ImageSource, expected: Table, *, every: bool = False, on_read: FilesRead | None = None
) -> int:
    """Compare files with what a bank's rows were made from; those that are missing now are skipped.

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
    now = digests(source, rows.tolist(), on_read)
    compared = int(known(now)[rows].sum())
    differing = differing_rows(expected, now)  # files that were not read now are unknown
    if len(differing):
        share = f"{len(differing):,} of {compared:,} compared"
        raise changed_images([source.uris[row] for row in differing.tolist()], share)
    return compared


def digests(source: ImageSource, rows: Sequence[int], on_read: FilesRead | None = None) -> Table:
    """Compute the digests of image files as they are now.

    Returns:
        uint8 [len(source), 32]; zeros of rows that cannot be read, and of those not asked for.

    Raises:
        MachineFault: the storage failed.
    """
    contents = Contents(unknown(len(source)))
    reading = replace(source, contents=contents, sha256=None)
    for done, _ in enumerate(_in_threads(lambda row: _read(reading, row), rows), 1):
        if on_read is not None:
            on_read(done, len(rows))
    return contents.read


def _read(source: ImageSource, row: int) -> bytes | BadImage:
    try:
        return source.read(row)
    except BadImage as error:
        return error.with_traceback(None)


def no_longer_pending(source: ImageSource, recipe: Recipe, rows: Sequence[int]) -> list[int]:
    """Choose the pending rows that can be embedded now, because the obstacle is gone.

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
        for start in range(0, len(rows), 64):  # so that Ctrl-C waits for few files, and little memory is used
            yield from pool.map(function, rows[start : start + 64])
