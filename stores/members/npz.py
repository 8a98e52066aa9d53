"""Images in the arrays of a NumPy archive (`.npz`), as in MedMNIST; nothing is ever unpickled."""

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
from stores.members.parts import DeflateStream, MemberError, check_size, no_member, read_at
from stores.members.zips import Zip

_ROW = re.compile(r"(?P<array>[^/]+)/(?P<row>[0-9]{1,12})")
#: NumPy's own limit of a header, and the length of its magic.
_HEADER = 10_000 + 16
#: Images do not compress better than this ratio; more than a GiB that does would take minutes to inflate.
_MAX_RATIO, _LARGE = 200, 1 << 30
#: Errors of parsing a damaged header, a Python literal that may have thousands of brackets or digits.
_DAMAGED = (
    ValueError, KeyError, TypeError, SyntaxError, OverflowError, RecursionError, MemoryError,
    tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class _Array:
    """The place of an array's samples.

    Attributes:
        shape, dtype: of the array.
        data: offset of the samples from the start of the member.
        start: offset of the member in the file.
        stream: of a compressed member.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    data: int
    start: int
    stream: DeflateStream | None

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self, file: int, row: int) -> bytes:
        offset = self.data + row * self.row_bytes
        if self.stream:
            return self.stream.read(file, offset, self.row_bytes)
        return read_at(file, self.start + offset, self.row_bytes)


class Npz:
    """The index of a NumPy archive."""

    def __init__(self, file: int) -> None:
        self._zip = Zip(file)
        self._arrays: dict[str, _Array | MemberError] = {}
        self._lock = threading.Lock()
        for name in self._zip.entries:
            try:
                self._arrays[name.removesuffix(".npy")] = self._locate(file, name)
            except MemberError as error:
                self._arrays[name.removesuffix(".npy")] = error.with_traceback(None)

    def _locate(self, file: int, name: str) -> _Array:
        entry = self._zip.entry(name)
        if entry.size > max(_LARGE, _MAX_RATIO * entry.packed):
            raise MemberError("too_large", f"{entry.packed} bytes that would unpack to {entry.size}")
        start = self._zip.start(file, entry)
        stream = (
            DeflateStream(start, entry.packed, entry.size, bits=-15, kept=8)
            if entry.method == zipfile.ZIP_DEFLATED
            else None
        )
        size = min(entry.size, _HEADER)
        shape, dtype, data = _header(stream.read(file, 0, size) if stream else read_at(file, start, size))
        array = _Array(shape, dtype, data, start, stream)
        if data + shape[0] * array.row_bytes != entry.size:
            raise MemberError("corrupt", "the array's header and size contradict each other")
        return array

    def describe(self) -> Any:
        """Return the place of each array of images as JSON types, or the error of any other array."""
        return {
            name: [array.code, array.detail]
            if isinstance(array, MemberError)
            else [array.shape, array.dtype.str, array.data, array.start]
            for name, array in self._arrays.items()
        }

    @classmethod
    def from_description(cls, description: Any) -> Self:
        """Make an index of what `describe` returned; it lists rows and sizes, but cannot read images."""
        self = cls.__new__(cls)
        self._arrays = {
            name: MemberError(*fields)
            if len(fields) == 2
            else _Array(tuple(fields[0]), np.dtype(fields[1]), fields[2], fields[3], None)
            for name, fields in description.items()
        }
        return self

    def array(self, file: int, name: str, max_bytes: int) -> npt.NDArray[Any]:
        """Read a complete array of numbers.

        Raises:
            MemberError: missing, too_large, corrupt, undecodable.
        """
        data = io.BytesIO(self._zip.read(file, f"{name}.npy", max_bytes))
        try:
            array: npt.NDArray[Any] = np.lib.format.read_array(data, allow_pickle=False)
        except _DAMAGED as error:
            raise MemberError("corrupt", "not a NumPy array of numbers, or a damaged one") from error
        if array.dtype.kind not in "biuf":
            raise MemberError("undecodable", f"an array of {array.dtype}, not of numbers")
        return array

    def _row(self, member: str) -> tuple[_Array, int]:
        """Return the array and the row that a member's name means. Raises MemberError."""
        match = _ROW.fullmatch(member)
        array = self._arrays.get(match["array"]) if match else None
        if isinstance(array, MemberError):
            raise MemberError(array.code, array.detail)
        if match is None or array is None or int(match["row"]) >= array.shape[0]:
            raise no_member()
        return array, int(match["row"])

    def shape(self, array: str) -> tuple[int, ...]:
        """Return the shape of a named array of images.

        Raises:
            MemberError: there is no such array, or it holds no images.
        """
        return self._row(f"{array}/0")[0].shape

    def size(self, member: str) -> int:
        """See `Container.size`."""
        return self._row(member)[0].row_bytes

    def read(self, file: int, member: str, max_bytes: int) -> bytes:
        """Return the row as PNG. See `Container.read`."""
        array, row = self._row(member)
        check_size(array.row_bytes, max_bytes)
        pixels = np.frombuffer(array.read(file, row), array.dtype).reshape(array.shape[1:])
        return png(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)


def _header(head: bytes) -> tuple[tuple[int, ...], np.dtype[np.generic], int]:
    """Return shape, type and offset of the samples of an array whose rows are images. Raises MemberError."""
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read[version](stream)
    except _DAMAGED as error:
        raise MemberError("corrupt", "not a NumPy array, or a damaged one") from error
    has_images = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if not has_images or fortran or min(shape[1:]) < 1 or dtype.kind != "u" or dtype.itemsize > 2:
        raise MemberError(
            "undecodable",
            f"an array of {dtype} and shape {shape}; pictures are uint8 or uint16 [n, height, width(, 3)]",
        )
    return shape, dtype, stream.tell()
