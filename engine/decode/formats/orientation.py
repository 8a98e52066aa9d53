"""Which way up a picture is: what its file asks for, read from the bytes, and the turn itself.

One rule for every format, whatever its library would do. A recipe without `exif` turns nothing; one with it
turns as EXIF's tag 274 says, or, where the EXIF block has no such tag or there is no block, as XMP's
`tiff:Orientation` says. A PNG's `eXIf` chunk comes before its raw profiles, and a TIFF's own tag 274 is its
EXIF. An AVIF's `irot` and `imir` are read by `engine.decode.formats.avif`; HEIF lets nothing else turn a
picture. Numbers other than 1 to 8, and blocks too damaged to be read, turn nothing. As Pillow's
`exif_transpose`.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

#: EXIF's number of an orientation -> what makes the picture upright. 1 and all others: nothing.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION, _XMP = 274, 700
#: TIFF's number of a type -> its `struct` code; the bytes of the others are not needed.
_CODES = {1: "B", 3: "H", 4: "I"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1}
_IN_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([0-9]+)")
_PREFIXES = re.compile(rb"\A(?:Exif\0\0)*")
_XMP_NAMESPACE = b"http://ns.adobe.com/xap/1.0/\0"
#: Bytes of a block: of a PNG's text when unpacked (`sniff` refuses more), of EXIF in a JPEG's segments.
_MAX_BLOCK = 1 << 20
_MAX_PARTS = 200_000

#: An EXIF block and an XMP packet; empty where there is none.
_Blocks = tuple[bytes, bytes]


def read(data: bytes, format: str) -> int:
    """Find the orientation that a file asks for, 1 to 8; 1 if it asks for none.

    Args:
        data: a file that `sniff` has walked through.
        format: of `header.Header`.
    """
    reader = _READERS.get(format)
    if reader is None:
        return 1
    try:
        exif, xmp = reader(data)
    except (struct.error, IndexError, ValueError, OverflowError):
        return 1
    value = _in_exif(exif)
    if value is None and (match := _IN_XMP.search(xmp)):
        value = int(match[1][:3])
    return value if value in _TURNS else 1


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Make a picture upright that was stored in an orientation, 1 to 8."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def without(data: bytes) -> bytes:
    """Give a TIFF that asks for no orientation, else the same: Pillow turns TIFFs whenever it decodes one."""
    patched: bytearray | None = None
    try:
        for entry in _directory(data):
            if entry.tag == _ORIENTATION:
                patched = patched or bytearray(data)
                one = struct.pack(f"{entry.order}HH{entry.count_code}H", _ORIENTATION, 3, 1, 1)
                patched[entry.at : entry.at + len(one)] = one
            elif entry.tag == _XMP:
                for match in _IN_XMP.finditer(data, *entry.span(data)):
                    patched = patched or bytearray(data)
                    patched[match.start(1) : match.end(1)] = b"1".rjust(len(match[1]), b"0")
    except (struct.error, IndexError, OverflowError):
        pass  # whatever reads the directory next will meet the same
    return data if patched is None else bytes(patched)


# ---- EXIF blocks, which are TIFF files without a picture, and TIFF files


class _Entry:
    """One tag of a directory, at an offset of the file."""

    def __init__(self, data: bytes, order: str, big: bool, at: int) -> None:
        self.order, self.at = order, at
        self.count_code, self._inline = ("Q", 8) if big else ("I", 4)
        self.tag, self.kind, self.number = struct.unpack_from(f"{order}HH{self.count_code}", data, at)

    def span(self, data: bytes) -> tuple[int, int]:
        """Where its values begin and end."""
        size = self.number * _SIZES.get(self.kind, 8)
        at = self.at + 4 + self._inline
        if size > self._inline:
            at = struct.unpack_from(self.order + self.count_code, data, at)[0]
        return at, at + size

    def value(self, data: bytes) -> int | None:
        """Its number, if it is one whole number."""
        code = _CODES.get(self.kind)
        if code is None or self.number != 1:
            return None
        return int(struct.unpack_from(self.order + code, data, self.span(data)[0])[0])


def _directory(data: bytes) -> Iterator[_Entry]:
    """The tags of the first directory."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    code, entry, first = ("Q", 20, 8) if big else ("H", 12, 4)
    at = struct.unpack_from(order + ("Q" if big else "I"), data, first)[0]
    count = struct.unpack_from(order + code, data, at)[0]
    at += struct.calcsize(code)
    for i in range(min(count, _MAX_PARTS)):
        yield _Entry(data, order, big, at + i * entry)


def _in_exif(block: bytes) -> int | None:
    """The value of tag 274; None without one. One that is no number is 0, and still goes before XMP's."""
    block = _PREFIXES.sub(b"", block, 1)
    value = None
    try:
        for entry in _directory(block):
            if entry.tag == _ORIENTATION:
                value = entry.value(block) or 0
    except (struct.error, IndexError, OverflowError):
        pass
    return value


# ---- where the formats keep them


def _tiff(data: bytes) -> _Blocks:
    xmp = b""
    for entry in _directory(data):
        if entry.tag == _XMP:
            start, stop = entry.span(data)
            xmp = data[start:stop]
    return data, xmp


def _jpeg(data: bytes) -> _Blocks:
    """Of the segments before the first scan; EXIF of more than 64 kB goes on in the next segment."""
    exif, xmp, position = b"", b"", 2
    for _ in range(_MAX_PARTS):
        position = data.find(b"\xff", position)
        marker = data[position + 1] if position >= 0 else 0xDA
        if marker == 0xFF or marker in range(0xD0, 0xD9) or marker < 0x02:
            position += 1
            continue
        if marker in (0xDA, 0xD9):
            break
        stop = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        segment = data[position + 4 : stop]
        if marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            exif += segment[6:] if len(exif) < _MAX_BLOCK else b""
        elif marker == 0xE1 and segment.startswith(_XMP_NAMESPACE):
            xmp = segment[len(_XMP_NAMESPACE) :]
        position = max(stop, position + 4)
    return exif, xmp


_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PROFILES = tuple(b"Raw profile type " + name for name in (b"exif", b"APP1", b"xmp"))
_PNG_XMP = b"XML:com.adobe.xmp"


def _png(data: bytes) -> _Blocks:
    chunk = b""
    texts: dict[bytes, tuple[bytes, bytes]] = {}
    for kind, payload in _png_chunks(data):
        if kind == b"eXIf":
            chunk = payload
        elif payload.startswith((*_PROFILES, _PNG_XMP)):
            key, _, rest = payload.partition(b"\0")
            texts[key] = kind, rest
    # Unpacked only now: at most one text of each keyword.
    plain = {key: _png_text(*texts[key]) for key in (*_PROFILES, _PNG_XMP) if key in texts}
    exif, app1, xmp = (_raw_profile(plain.get(key, b"")) for key in _PROFILES)
    if app1.startswith(_XMP_NAMESPACE):
        xmp, app1 = app1[len(_XMP_NAMESPACE) :], b""
    return chunk or exif or app1, plain.get(_PNG_XMP, b"") or xmp


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the chunks that may be wanted."""
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        if kind == b"eXIf" or kind in _PNG_TEXTS:
            yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length


def _png_text(kind: bytes, rest: bytes) -> bytes:
    """The text of a chunk, after its keyword."""
    if kind == b"tEXt":
        return rest
    packed = True
    if kind == b"zTXt":
        rest = rest[1:]
    else:
        packed, rest = bool(rest[0]), rest[2:].split(b"\0", 2)[2]
    try:
        return zlib.decompressobj().decompress(rest, _MAX_BLOCK) if packed else rest
    except zlib.error:
        return b""


def _raw_profile(text: bytes) -> bytes:
    """ImageMagick's way: a line feed, a name, a length, then hexadecimal digits in lines."""
    lines = text.split(b"\n", 3)
    try:
        return bytes.fromhex(lines[3].decode("ascii")) if len(lines) == 4 else b""
    except ValueError:
        return b""


def _webp(data: bytes) -> _Blocks:
    flags = data[20] if data[12:16] == b"VP8X" else 0
    blocks = {b"EXIF": b"", b"XMP ": b""}
    position = 12
    while position + 8 <= len(data) and flags & 0x0C:
        kind = data[position : position + 4]
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if kind in blocks and not blocks[kind]:
            blocks[kind] = data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    return blocks[b"EXIF"] if flags & 0x08 else b"", blocks[b"XMP "] if flags & 0x04 else b""


_JP2_EXIF = b"JpgTiffExif->JP2"
_JP2_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def _jpeg2000(data: bytes) -> _Blocks:
    blocks = {_JP2_EXIF: b"", _JP2_XMP: b""}
    for kind, start, stop in boxes(data, 0, len(data)):
        name = data[start : start + 16]
        if kind == b"uuid" and name in blocks:
            blocks[name] = data[start + 16 : stop]
    return blocks[_JP2_EXIF], blocks[_JP2_XMP]


def boxes(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Walk over the boxes of JPEG 2000 and HEIF: kind, where the content begins, where the box ends.

    The last one's end may lie beyond `end`: the file is truncated.
    """
    for _ in range(_MAX_PARTS):
        if position + 8 > end:
            return
        length, kind = int.from_bytes(data[position : position + 4]), data[position + 4 : position + 8]
        start = position + 8
        if length == 1:
            length, start = int.from_bytes(data[start : start + 8]), start + 8
        elif length == 0:
            length = end - position
        if position + length < start:
            return
        yield kind, start, position + length
        position += length


_READERS = {
    "TIFF": _tiff, "JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "JPEG2000": _jpeg2000,
}  # fmt: skip
