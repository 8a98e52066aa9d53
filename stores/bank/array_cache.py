"""Array files with their own checksum: one line of sealed JSON, then bytes. For data that can be made again.

A file is put in its place whole or not at all; a flipped bit anywhere in it is found when it is read.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.backends import files
from stores.backends.location import Place
from stores.bank import document_schemas, documents
from stores.bank.layout import SIDE
from stores.errors import BankError, MachineFault

#: Kinds of numbers that a file may hold.
DTYPES = document_schemas.NUMBERS


@dataclass(frozen=True, eq=False, repr=False)
class ArrayFile:
    """Arrays that a bank is to keep; fields as the arguments of `write`."""

    relative: str
    key: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]

    def keep(self, root: Place) -> bool:
        """Keep them in a bank as `keep` does."""
        return keep(root, self.relative, self.key, self.arrays)


def write(root: Place, relative: str, key: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays into a bank's side folder, atomically and durably.

    Args:
        root: of the bank.
        relative: path below the side folder, e.g. `statistics/0123.arrays`.
        key: what the arrays are: JSON values, given back by `read`.
        arrays: name -> array of one of `DTYPES`, any shape.

    Raises:
        MachineFault: disk full or I/O error. ValueError: another dtype.
    """
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.name not in DTYPES:
            raise ValueError(f"{name} is {array.dtype}, not one of {', '.join(DTYPES)}")
    facts = {
        name: {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "sha256": hashlib.sha256(_bytes(array)).hexdigest(),
        }
        for name, array in plain.items()
    }
    head = documents.encode({"key": dict(key), "arrays": facts})
    path = root / SIDE / relative
    for folder in (path.parent, root / SIDE / "tmp"):
        files.make_directory(folder)
    data = b"".join([head, *(_bytes(plain[name]) for name in sorted(plain))])
    files.replace(path, data, files.temporary(root / SIDE / "tmp", "arrays"))


def keep(root: Place, relative: str, key: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bool:
    """Write as `write` does, but return False where the bank cannot be written to or the disk is full.

    For data that the caller uses in any case, and keeps to save time later.
    """
    try:
        write(root, relative, key, arrays)
    except (BankError, MachineFault):
        return False
    return True


def read(root: Place, relative: str, key: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]] | None:
    """Read the arrays that `write` stored under this very key; return None if there is no such file.

    Raises:
        BrokenDocument: the bytes are not those that were written, or those of another key.
    """
    stored = read_stored(root, relative)
    if stored is None:
        return None
    if stored.key != json.loads(documents.canonical(dict(key))):
        raise broken(root / SIDE / relative)
    return dict(stored.arrays)


def read_stored(root: Place, relative: str) -> ArrayFile | None:
    """Read the arrays that `write` stored, with their key; return None if there is no such file.

    Raises:
        BrokenDocument: the bytes are not those that were written.
    """
    path = root / SIDE / relative
    data = files.read_if_there(path)
    if data is None:
        return None
    end = data.find(b"\n") + 1
    head = documents.decode(data[:end], path)
    if not document_schemas.ARRAYS(head):
        raise broken(path)
    arrays, view = {}, memoryview(data)[end:]
    for name in sorted(head["arrays"]):
        about = head["arrays"][name]
        size = np.dtype(about["dtype"]).itemsize * math.prod(about["shape"])
        part, view = view[:size], view[size:]
        if len(part) != size or hashlib.sha256(part).hexdigest() != about["sha256"]:
            raise broken(path)
        arrays[name] = np.frombuffer(part, np.dtype(about["dtype"]).newbyteorder("<")).reshape(about["shape"])
    if len(view):
        raise broken(path)
    return ArrayFile(relative, head["key"], arrays)


def broken(path: Place) -> documents.BrokenDocument:
    """Return the error for an array file that cannot be used."""
    return documents.BrokenDocument(
        f"{path} is damaged", "An array file must match its own SHA-256", "delete it; it will be made again"
    )


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return little.reshape(-1).view(np.uint8).data
