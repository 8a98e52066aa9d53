"""Rows of the arrays in a NumPy archive (`.npz`), as MedMNIST has them; nothing is ever unpickled."""

import io
import math
import re
import threading
import tokenize
import zipfile
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stores.members.encode import png
from stores.members.parts import MemberError, Packed, check_size, no_member, read_at
from stores.members.zips import Zip

_ROW = re.compile(r"(?P<array>[^/]+)/(?P<row>[0-9]{1,12})")
#: NumPy's own limit of a header, and room for its magic.
_HEADER = 10_000 + 16
#: Pictures do not pack better than this; more than a GiB that does would take minutes to unpack.
_MAX_GAIN, _LARGE = 200, 1 << 30
#: A header is a Python literal: thousands of brackets or digits stop the parser in one of these ways.
_DAMAGED = (
    ValueError, KeyError, TypeError, SyntaxError, OverflowError, RecursionError, MemoryError,
    tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class _Array:
    """Where an array's samples are: `data` counts from the start of the member."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    data: int
    start: int
    packed: Packed | None

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self, file: int, row: int) -> bytes:
        at = self.data + row * self.row_bytes
        if self.packed:
            return self.packed.read(file, at, self.row_bytes)
        return read_at(file, self.start + at, self.row_bytes)


class Npz:
    """The index of an archive."""

    def __init__(self, file: int) -> None:
        self._zip = Zip(file)
        self._arrays: dict[str, _Array | MemberError] = {}
        self._lock = threading.Lock()
        for name in self._zip.entries:
            try:
                self._arrays[name.removesuffix(".npy")] = self._described(file, name)
            except MemberError as error:
                self._arrays[name.removesuffix(".npy")] = error.with_traceback(None)

    def _described(self, file: int, name: str) -> _Array:
        entry = self._zip.entry(name)
        if entry.size > max(_LARGE, _MAX_GAIN * entry.packed):
            raise MemberError("too_large", f"{entry.packed} bytes that would unpack to {entry.size}")
        start = self._zip.start(file, entry)
        packed = (
            Packed(start, entry.packed, entry.size, bits=-15, kept=8)
            if entry.method == zipfile.ZIP_DEFLATED
            else None
        )
        size = min(entry.size, _HEADER)
        shape, dtype, data = _header(packed.read(file, 0, size) if packed else read_at(file, start, size))
        found = _Array(shape, dtype, data, start, packed)
        if data + shape[0] * found.row_bytes != entry.size:
            raise MemberError("corrupt", "the array's header and size contradict each other")
        return found

    def describe(self) -> Any:
        """Shape and type of each array of pictures as JSON types, or why it is none."""
        return {
            name: [each.code, each.detail]
            if isinstance(each, MemberError)
            else [each.shape, each.dtype.str, each.data, each.start]
            for name, each in self._arrays.items()
        }

    @classmethod
    def described(cls, found: Any) -> Self:
        """What `describe` gave: says which rows there are and how large, but reads none."""
        self = cls.__new__(cls)
        self._arrays = {
            name: MemberError(*each)
            if len(each) == 2
            else _Array(tuple(each[0]), np.dtype(each[1]), each[2], each[3], None)
            for name, each in found.items()
        }
        return self

    def array(self, file: int, name: str, max_bytes: int) -> npt.NDArray[Any]:
        """A whole array of numbers.

        Raises:
            MemberError: missing, too_large, corrupt, undecodable.
        """
        data = io.BytesIO(self._zip.read(file, f"{name}.npy", max_bytes))
        try:
            found: npt.NDArray[Any] = np.lib.format.read_array(data, allow_pickle=False)
        except _DAMAGED as error:
            raise MemberError("corrupt", "not a NumPy array of numbers, or a damaged one") from error
        if found.dtype.kind not in "biuf":
            raise MemberError("undecodable", f"an array of {found.dtype}, not of numbers")
        return found

    def _found(self, member: str) -> tuple[_Array, int]:
        asked = _ROW.fullmatch(member)
        array = self._arrays.get(asked["array"]) if asked else None
        if isinstance(array, MemberError):
            raise MemberError(array.code, array.detail)
        if asked is None or array is None or int(asked["row"]) >= array.shape[0]:
            raise no_member()
        return array, int(asked["row"])

    def shape(self, array: str) -> tuple[int, ...]:
        """Of a named array of pictures.

        Raises:
            MemberError: there is none, or it holds no pictures.
        """
        return self._found(f"{array}/0")[0].shape

    def size(self, member: str) -> int:
        """See `Container.size`."""
        return self._found(member)[0].row_bytes

    def read(self, file: int, member: str, max_bytes: int) -> bytes:
        """The row as PNG. See `Container.read`."""
        array, row = self._found(member)
        check_size(array.row_bytes, max_bytes)
        pixels = np.frombuffer(array.read(file, row), array.dtype).reshape(array.shape[1:])
        return png(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)


def _header(head: bytes) -> tuple[tuple[int, ...], np.dtype[np.generic], int]:
    """Shape, type and offset of the samples, of an array whose rows are pictures."""
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read[version](stream)
    except _DAMAGED as error:
        raise MemberError("corrupt", "not a NumPy array, or a damaged one") from error
    pictures = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if not pictures or fortran or min(shape[1:]) < 1 or dtype.kind != "u" or dtype.itemsize > 2:
        raise MemberError(
            "undecodable",
            f"an array of {dtype} and shape {shape}; pictures are uint8 or uint16 [n, height, width(, 3)]",
        )
    return shape, dtype, stream.tell()
