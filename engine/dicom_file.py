"""How a DICOM file is read up to its pixels: its data set, unpacked within bounds, and pydicom kept quiet."""

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

#: Elements that hold pixels -> how pydicom calls them.
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_START = 132
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_EXPLICIT = b"1.2.840.10008.1.2.1"
#: Value representations whose length has 32 bits (PS3.5, 7.1.2).
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_UNDEFINED = 0xFFFFFFFF
#: Bytes unpacked at a time, and what of a deflated file may come before its pixels. Deflate gains a factor of
#: up to 1032, and each element costs time.
_PIECE, _MAX_UNPACKED = 1 << 16, 1 << 24
#: Reads from a file up to its pixels: two or three an element or item, of which real data sets have hundreds.
_MAX_READS = 300_000
#: What `warnings` takes for the modules of pydicom.
_QUIET = r"pydicom\b"


@dataclass(frozen=True)
class Opened:
    """A data set as far as it was read.

    Attributes:
        dataset: its elements, with the transfer syntax as the only one of its `file_meta`.
        pixels: keyword of the element at hand that holds pixels; "" if there is none.
        whole: whether the file goes on to the end of the last element that was met, pixels apart.
        unpacked: bytes of a deflated file up to the end of its pixels, once unpacked; 0 of another.
    """

    dataset: "Dataset"
    pixels: str
    whole: bool
    unpacked: int


def opened(data: bytes, *, room: int = 0, keywords: Sequence[str] = ()) -> Opened:
    """Read a file that has DICM at byte 128.

    Args:
        data: the file, or as much of its beginning as holds what is wanted.
        room: bytes that the pixels need at most; 0 reads no pixels. A deflated file is unpacked as far as it
            is read, and to 16 MiB more than this at most.
        keywords: the elements wanted; all, if left out.

    Raises:
        BadImage: truncated, corrupt, too_large.
        Exception: pydicom's, of nearly any kind, for damaged data sets.
    """
    import pydicom

    be_quiet()
    syntax, start = _transfer_syntax(data)
    head = _meta(_EXPLICIT if syntax == _DEFLATED else syntax)
    file: Any
    if syntax == _DEFLATED:
        file = _Inflated(head, data[start:], _MAX_UNPACKED + room)
    else:
        file = io.BytesIO(b"".join([head, memoryview(data)[start:]]))
    if not room:
        file = _Patient(file)
    stop = _Stop(file, bool(room))
    wanted = [pydicom.tag.Tag(keyword) for keyword in keywords]
    dataset = pydicom.filereader.read_partial(file, stop, specific_tags=[*wanted] or None)
    if room:
        return Opened(dataset, next((name for name in PIXELS.values() if name in dataset), ""), True, 0)
    if syntax == _DEFLATED and stop.pixels and not stop.end:
        raise BadImage("corrupt", "its deflated data set holds pixels of unknown length")
    return Opened(dataset, stop.pixels, stop.is_whole(dataset), stop.end if syntax == _DEFLATED else 0)


def be_quiet() -> None:
    """Keep pydicom's warnings off the terminal; values that break the standard are common, and not used here.

    A filter of the whole process: one for the moment (`warnings.catch_warnings`) is not safe between threads.
    """
    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    if not any(getattr(entry[3], "pattern", "") == _QUIET for entry in warnings.filters):
        warnings.filterwarnings("ignore", module=_QUIET)


class _Stop:
    """Tells pydicom where to stop, and notes what it met."""

    def __init__(self, file: Any, pixels: bool) -> None:
        self.file, self.wanted = file, pixels
        self.tag, self.pixels, self.end = 0, "", _START

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        if self.wanted:
            return tag > max(PIXELS)
        self.tag, self.pixels = tag, PIXELS.get(tag, "") if length else ""
        self.end = self.file.tell() + length if length != _UNDEFINED else 0
        return bool(self.pixels)

    def is_whole(self, dataset: "Dataset") -> bool:
        """Whether nothing is missing before the element at hand, or else before the end of the file."""
        if self.pixels:
            return True
        size = self.file.seek(0, io.SEEK_END)
        # What pydicom gave up is not in the data set; what is cut off within its value is.
        if self.tag < 0x00030000 or self.tag not in dataset or self.end > size:
            return False
        self.file.seek(self.end or size)
        return not any(self.file.read(8)) or size - self.end >= 8


def _transfer_syntax(data: bytes) -> tuple[bytes, int]:
    """The UID that the file states, b"" if none, and where its data set begins (PS3.10, 7.1)."""
    syntax, position = b"", _START
    while data[position : position + 2] == b"\x02\x00":
        element, vr = data[position + 2 : position + 4], data[position + 4 : position + 6]
        code, at = ("<I", position + 8) if vr in _LONG else ("<H", position + 6)
        if not vr.isupper():  # written without VR, against the standard
            code, at = "<I", position + 4
        length = struct.unpack_from(code, data, at)[0]
        position = at + struct.calcsize(code) + length
        if position > len(data):
            raise BadImage("truncated", "DICOM that ends within its first elements")
        if element == b"\x10\x00":
            syntax = data[position - length : position].strip(b"\0 ")
    return syntax, position


def _meta(syntax: bytes) -> bytes:
    """The beginning of a file of this transfer syntax, so that pydicom cannot read another one from it."""
    value = syntax + b"\0" * (len(syntax) % 2)
    element = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(value)) + value
    return bytes(_START - 4) + b"DICM" + (element if syntax else b"")


class _Patient:
    """A file that may be read from so many times, and no more."""

    def __init__(self, file: Any) -> None:
        self._read, self.tell, self.seek, self._reads = file.read, file.tell, file.seek, 0

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise BadImage("too_large", f"DICOM with over {_MAX_READS // 3} elements before its pixels")
        found: bytes = self._read(size)
        return found


class _Inflated:
    """A file of deflated data (RFC 1951) behind a plain beginning; unpacked as far as it is read."""

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
                more = self._unpacker.decompress(self._packed, _PIECE)
            except zlib.error as error:
                raise BadImage("corrupt", "its deflated data are damaged") from error
            self._packed = self._unpacker.unconsumed_tail
            if not more:  # it ends early; whoever reads on finds no more
                return
            self._data += more
            if len(self._data) > self._limit:
                needed = "far more than its pixels need"
                raise BadImage("too_large", f"deflated DICOM of over {self._limit} bytes unpacked, {needed}")
