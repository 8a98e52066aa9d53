"""The SHA-256 of the image file that each row of a bank was made from, kept beside each feature.

A manifest without digests names files, and a file can be replaced under its name. So each feature keeps the
digest of the bytes that each row was made from (array `content`), and whoever reads the images of a bank
later compares.

The images that a bank saw first are its own. Others under the same names become, if the user wants it, an
image set: the table of the digests of all files, kept in `.embank/sets` under its own SHA-256, from which the
keys of the features that are made of it follow.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from stores.backends import files
from stores.backends.location import Place
from stores.bank import integrity
from stores.bank.keys import CONTENT_BYTES, STATUS_OK
from stores.bank.layout import SIDE, FeatureLayout
from stores.bank.markers import Marker, committed_chunks, read_marker
from stores.bank.reader import Bank
from stores.bank.seal import definition, feature_names
from stores.errors import BankError

Table = npt.NDArray[np.uint8]
_SETS = f"{SIDE}/sets"


def unknown(rows: int) -> Table:
    """Return contents of which nothing is known: zeros, uint8 [rows, 32]."""
    return np.zeros((rows, CONTENT_BYTES), np.uint8)


def known(contents: Table) -> npt.NDArray[np.bool_]:
    """Return which rows have a known content, bool [rows]."""
    return np.asarray(contents.any(axis=1))


def contents_of_bank(
    bank: Bank, image_set: str = "", *, without: str = "", pass_damaged: bool = False
) -> Table:
    """Gather the contents that the finished chunks of a bank were made from.

    Only rows with an embedding count: a file that could not be used may be replaced by a better one.

    Args:
        image_set: "" for the images that the bank saw first.
        without: name of a feature to leave out.
        pass_damaged: treat the contents of a damaged chunk as unknown, instead of raising an error.

    Returns:
        uint8 [rows, 32]; zeros where no feature has an embedding of the row, or none that says of what.

    Raises:
        BankError: a chunk that is not what its marker says. MachineFault: I/O error.
    """
    if image_set:
        return read_set(bank.path, image_set, bank.rows)
    table = unknown(bank.rows)
    for name in feature_names(bank.path):
        layout = definition(bank.path, name)
        if layout is not None and name != without and not layout.image_set and bank.holds(layout):
            fill(table, contents_of_feature(layout, pass_damaged=pass_damaged))
    return table


def contents_of_feature(
    layout: FeatureLayout, *, failed_too: bool = False, pass_damaged: bool = False
) -> Table:
    """Gather the contents that a feature's embeddings were made from.

    Args:
        failed_too: also of rows without embedding whose file was read.
        pass_damaged: as for `contents_of_bank`.

    Returns:
        uint8 [rows, 32]; zeros where there is no embedding, or the feature keeps no contents.

    Raises:
        BankError: a chunk that is not what its marker says. MachineFault: I/O error.
    """
    table = unknown(layout.grid.rows)
    if not layout.has_contents:
        return table

    def read(index: int) -> None:
        try:
            take(index)
        except BankError:
            if not pass_damaged:
                raise

    def take(index: int) -> None:
        start, stop = layout.grid.bounds(index)
        path = layout.root / layout.marker(index)
        marker = read_marker(path)
        content = _payload(layout, index, "content", marker).reshape(-1, CONTENT_BYTES)
        status = _payload(layout, index, "status", marker)
        ok = (status[: stop - start] == STATUS_OK) | failed_too
        table[start:stop][ok] = content[: stop - start][ok]

    files.each(layout.root, read, committed_chunks(layout))
    return table


def _payload(layout: FeatureLayout, index: int, array: str, marker: Marker) -> Table:
    relative = layout.chunk_file(array, index)
    data = files.read(layout.root / relative)
    promise = marker["files"].get(relative)
    if promise is None or integrity.promise_of(data) != promise:
        raise BankError(
            f"{integrity.describe(relative)} of feature {layout.name} is damaged: {relative}",
            "What the rows were made from must be known before more are made",
            f"run `embank bank repair {layout.root}`",
        )
    return np.frombuffer(data, np.uint8)[: layout.payload(array)]


def refuse_conflict(bank: Bank, layout: FeatureLayout) -> None:
    """Refuse to finish a feature that was made from other images than the bank's other features.

    Two runs that read a file before and after it changed would each be consistent, but not with each other.

    Raises:
        BankError: rows differ.
    """
    mine = contents_of_feature(layout)
    theirs = contents_of_bank(bank, layout.image_set, without=layout.name)
    rows = differing_rows(mine, theirs)
    if len(rows):
        raise BankError(
            f"{layout.name} was made from other images than the features beside it ({len(rows)} rows, row "
            f"{rows[0]} first): files were changed while two runs read them",
            "A row is one image in all features",
            f"remove one of them with `embank bank rm {bank.path} FEATURE` and embed it again",
        )


def differing_rows(before: Table, now: Table) -> npt.NDArray[np.intp]:
    """Find the rows whose content is known in both tables and differs."""
    return np.flatnonzero(known(before) & known(now) & (before != now).any(axis=1))


def fill(table: Table, source: Table) -> None:
    """Copy the contents of rows that are not known yet from another table."""
    missing = ~known(table)
    table[missing] = source[missing]


def set_digest(table: Table) -> str:
    """Return the SHA-256, in hex, of a table of contents: the name of an image set."""
    return hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest()


def write_set(root: Place, table: Table) -> str:
    """Keep an image set in a bank, if it is not there yet; return its name."""
    name = set_digest(table)
    path = root / f"{_SETS}/{name}"
    for folder in (path.parent, root / SIDE / "tmp"):
        files.make_directory(folder)
    data = np.ascontiguousarray(table).tobytes()
    if integrity.difference(files.digest(path), integrity.promise_of(data)):  # its name is its digest
        files.replace(path, data, files.temporary(root / SIDE / "tmp", "bank"))
    return name


def damaged_sets(root: Place) -> dict[str, str]:
    """Find the image sets that are not what their names say: relative path -> what is wrong."""
    wanted = {layout.image_set for layout in _features_of_sets(root)} | set(files.names(root / _SETS))
    damaged = {}
    for name in sorted(wanted):
        digest = files.digest(root / f"{_SETS}/{name}")
        if digest is None or digest[1] != name:
            reason = "missing" if digest is None else "content differs from its SHA-256"
            damaged[f"{_SETS}/{name}"] = reason
    return damaged


def restore_sets(root: Place) -> None:
    """Write damaged image sets again from a feature that was made of them, if one has all its chunks."""
    damaged = {path.rpartition("/")[2] for path in damaged_sets(root)}
    for layout in _features_of_sets(root):
        if layout.image_set in damaged:
            table = contents_of_feature(layout, failed_too=True, pass_damaged=True)
            if set_digest(table) == layout.image_set:
                write_set(root, table)


def _features_of_sets(root: Place) -> list[FeatureLayout]:
    layouts = [definition(root, name) for name in feature_names(root)]
    return [layout for layout in layouts if layout is not None and layout.image_set]


def read_set(root: Place, name: str, rows: int) -> Table:
    """Read the contents of an image set, uint8 [rows, 32]. Raises BankError if it is missing or damaged."""
    path = root / f"{_SETS}/{name}"
    data = files.read_if_there(path)
    if data is None or len(data) != rows * CONTENT_BYTES or hashlib.sha256(data).hexdigest() != name:
        raise BankError(
            f"{path} is {'missing' if data is None else 'damaged'}",
            "An image set names the files that its features were made from",
            f"run `embank bank repair {root}`, which makes it from its features; or, while the files are the "
            "same, the same `embank embed --accept-changed` command",
        )
    return np.frombuffer(data, np.uint8).reshape(rows, CONTENT_BYTES)


def copy_set(source: Place, target: Place, name: str) -> None:
    """Take an image set over from another bank. Raises BankError, MachineFault."""
    data = files.read(source / f"{_SETS}/{name}")
    write_set(target, np.frombuffer(data, np.uint8).reshape(-1, CONTENT_BYTES))
