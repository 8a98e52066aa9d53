"""Reading of a DICOM file up to its pixels: bounded inflation, and no warnings of pydicom."""

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import BadImage

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Tags of elements that hold pixels -> pydicom's keywords.
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_START = 132
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_EXPLICIT = b"1.2.840.10008.1.2.1"
#: Value representations whose length has 32 bits (PS3.5, 7.1.2).
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_UNDEFINED = 0xFFFFFFFF
#: Bytes inflated at a time, and bytes of a deflated file before its pixels, at most: deflate compresses by up
#: to a factor of 1032, and every element costs time.
_PIECE, _MAX_UNPACKED = 1 << 16, 1 << 24
#: Reads up to the pixels, at most: two or three per element or item, of which real data sets have hundreds.
_MAX_READS = 300_000
#: Pattern of pydicom's modules for `warnings`.
_QUIET = r"pydicom\b"


@dataclass(frozen=True)
class PartialDataset:
    """The part of a data set that was read.

    Attributes:
        dataset: its elements; `file_meta` holds only the transfer syntax.
        pixels: keyword of the element with the pixels; "" if there is none.
        complete: whether the file extends to the end of the last element read, pixels excepted.
        unpacked: inflated size of a deflated file up to the end of its pixels, in bytes; 0 for other files.
    """

    dataset: "Dataset"
    pixels: str
    complete: bool
    unpacked: int


def read_partial(data: bytes, *, room: int = 0, keywords: Sequence[str] = ()) -> PartialDataset:
    """Read a file that has DICM at byte 128.

    Args:
        data: the file, or enough of its beginning.
        room: upper bound of the size of the pixels in bytes; 0 reads no pixels. A deflated file is inflated
            only as far as it is read, and at most to 16 MiB more than this.
        keywords: of the elements to read; all by default.

    Raises:
        BadImage: truncated, corrupt, too_large.
        Exception: errors of pydicom, of almost any class, for damaged data sets.
    """
    import pydicom

    silence_pydicom()
    syntax, start = _transfer_syntax(data)
    head = _meta(_EXPLICIT if syntax == _DEFLATED else syntax)
    file: Any
    if syntax == _DEFLATED:
        file = _Inflated(head, data[start:], _MAX_UNPACKED + room)
    else:
        file = io.BytesIO(b"".join([head, memoryview(data)[start:]]))
    if not room:
        file = _ReadLimited(file)
    stop = _Stop(file, bool(room))
    tags = [pydicom.tag.Tag(keyword) for keyword in keywords]
    dataset = pydicom.filereader.read_partial(file, stop, specific_tags=[*tags] or None)
    if room:
        return PartialDataset(
            dataset, next((name for name in PIXELS.values() if name in dataset), ""), True, 0
        )
    if syntax == _DEFLATED and stop.pixels and not stop.end:
        raise BadImage("corrupt", "its deflated data set holds pixels of unknown length")
    return PartialDataset(
        dataset, stop.pixels, stop.is_complete(dataset), stop.end if syntax == _DEFLATED else 0
    )


def silence_pydicom() -> None:
    """Suppress pydicom's warnings: values that violate the standard are common, and not used here.

    The filter applies to the process, because a temporary one (`warnings.catch_warnings`) is not thread-safe.
    """
    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    if not any(getattr(entry[3], "pattern", "") == _QUIET for entry in warnings.filters):
        warnings.filterwarnings("ignore", module=_QUIET)


class _Stop:
    """Callback that makes pydicom stop at the pixels (or after them), and records the last element."""

    def __init__(self, file: Any, pixels: bool) -> None:
        self.file, self.wanted = file, pixels
        self.tag, self.pixels, self.end = 0, "", _START

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        if self.wanted:
            return tag > max(PIXELS)
        self.tag, self.pixels = tag, PIXELS.get(tag, "") if length else ""
        self.end = self.file.tell() + length if length != _UNDEFINED else 0
        return bool(self.pixels)

    def is_complete(self, dataset: "Dataset") -> bool:
        """Return True if nothing is missing before the pixels or, without pixels, before the file's end."""
        if self.pixels:
            return True
        size = self.file.seek(0, io.SEEK_END)
        # An element that pydicom gave up on is not in the data set; one whose value is cut off is.
        if self.tag < 0x00030000 or self.tag not in dataset or self.end > size:
            return False
        self.file.seek(self.end or size)
        return not any(self.file.read(8)) or size - self.end >= 8


def _transfer_syntax(data: bytes) -> tuple[bytes, int]:
    """Return the file's transfer syntax UID (b"" if none) and the offset of its data set (PS3.10, 7.1)."""
    syntax, position = b"", _START
    while data[position : position + 2] == b"\x02\x00":
        element, vr = data[position + 2 : position + 4], data[position + 4 : position + 6]
        code, value_start = ("<I", position + 8) if vr in _LONG else ("<H", position + 6)
        if not vr.isupper():  # written without VR, against the standard
            code, value_start = "<I", position + 4
        length = struct.unpack_from(code, data, value_start)[0]
        position = value_start + struct.calcsize(code) + length
        if position > len(data):
            raise BadImage("truncated", "DICOM that ends within its first elements")
        if element == b"\x10\x00":
            syntax = data[position - length : position].strip(b"\0 ")
    return syntax, position


def _meta(syntax: bytes) -> bytes:
    """Return the beginning of a file with only this transfer syntax as its meta information."""
    value = syntax + b"\0" * (len(syntax) % 2)
    element = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(value)) + value
    return bytes(_START - 4) + b"DICM" + (element if syntax else b"")


class _ReadLimited:
    """A file that can be read from a limited number of times."""

    def __init__(self, file: Any) -> None:
        self._read, self.tell, self.seek, self._reads = file.read, file.tell, file.seek, 0

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise BadImage("too_large", f"DICOM with over {_MAX_READS // 3} elements before its pixels")
        data: bytes = self._read(size)
        return data


class _Inflated:
    """A file of deflated data (RFC 1951) after a plain beginning, inflated only as far as it is read."""

    def __init__(self, head: bytes, packed: bytes, limit: int) -> None:
        self._data, self._packed, self._limit = bytearray(head), packed, limit
        self._unpacker, self._at = zlib.decompressobj(-zlib.MAX_WBITS), 0

    def read(self, size: int = -1) -> bytes:
        end = self._at + size if size >= 0 else self._limit + 1
        self._unpack(end)
        start, self._at = self._at, max(self._at, min(end, len(self._data)))
        return bytes(self._data[start:end])

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            self._unpack(self._limit + 1)
        self._at = offset + (0, self._at, len(self._data))[whence]
        return self._at

    def _unpack(self, end: int) -> None:
        while len(self._data) < end and not self._unpacker.eof:
            try:
                chunk = self._unpacker.decompress(self._packed, _PIECE)
            except zlib.error as error:
                raise BadImage("corrupt", "its deflated data are damaged") from error
            self._packed = self._unpacker.unconsumed_tail
            if not chunk:  # the data end early; further reads return nothing
                return
            self._data += chunk
            if len(self._data) > self._limit:
                needed = "far more than its pixels need"
                raise BadImage("too_large", f"deflated DICOM of over {self._limit} bytes unpacked, {needed}")
