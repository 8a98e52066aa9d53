"""PNG: the header, a walk through the chunks, and a count of the rows."""

import struct
import zlib
from dataclasses import replace

from engine.decode.formats.header import Colour, Header, check_size
from engine.decode.source import Limits
from engine.errors import BadImage

_COLOURS: dict[int, Colour] = {0: "grey", 2: "rgb", 3: "palette", 4: "grey", 6: "rgb"}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
#: Chunks, at most: four times as many as the largest PNG in chunks of 8 kB.
_MAX_CHUNKS = 200_000
#: Colour type -> samples per pixel.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: Passes of an interlaced PNG: first row, first column, steps between rows and columns.
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
#: Unpacked size of text and colour profiles, at most, as in Pillow; and deflate's maximum compression factor.
_MAX_UNPACKED = 1 << 20
_MAX_GAIN = 1032


def read(data: bytes, limits: Limits) -> Header:
    """Check a PNG and return its header.

    Raises:
        BadImage: truncated, corrupt, too_large, multi_frame.
    """
    header = check_size(_ihdr(data), limits)
    view = memoryview(data)
    position, end = 8, len(data)
    seen = set()
    exif = False
    for _ in range(_MAX_CHUNKS):
        if position + 12 > end:
            break
        length = int.from_bytes(view[position : position + 4])
        kind = data[position + 4 : position + 8]
        after = position + 12 + length
        if after > end:
            break
        if zlib.crc32(view[position + 4 : after - 4]) != int.from_bytes(view[after - 4 : after]):
            raise BadImage("corrupt", f"wrong checksum in PNG chunk {_printable(kind)}")
        seen.add(kind)
        if kind == b"IEND":
            _check_complete(seen, header)
            return replace(header, exif=exif)
        if kind in _CHUNK_CHECKS:
            _CHUNK_CHECKS[kind](view[position + 8 : after - 4])
        exif = exif or kind == b"eXIf"
        position = after
    else:
        raise BadImage("too_large", f"more than {_MAX_CHUNKS} chunks")
    raise BadImage("truncated", "its PNG chunks stop before IEND")


def _ihdr(data: bytes) -> Header:
    length, kind, width, height, bits, colour, packing, filtering, interlace = struct.unpack_from(
        ">I4sIIBBBBB", data, 8
    )
    valid = length == 13 and kind == b"IHDR" and bits in _DEPTHS.get(colour, ())
    if not valid or packing or filtering or interlace > 1 or max(width, height) > 0x7FFFFFFF:
        raise BadImage("corrupt", "its PNG header is invalid")
    plain = bits == 8 and not interlace
    return Header(
        "PNG", width, height, max(bits, 8), _COLOURS[colour], interlaced=bool(interlace), plain=plain
    )


def _check_complete(seen: set[bytes], header: Header) -> None:
    required = {b"IDAT"} | ({b"PLTE"} if header.colour == "palette" else set())
    for kind in sorted(required - seen):
        raise BadImage("corrupt", f"PNG without {kind.decode()}")


def _check_frames(chunk: memoryview) -> None:
    frames = struct.unpack_from(">I", chunk)[0]
    if frames > 1:
        raise BadImage("multi_frame", f"animated PNG of {frames} frames")


def _check_packed(chunk: memoryview) -> None:
    """Refuse text and profiles that unpack to more than the limit; small ones are not unpacked."""
    if len(chunk) * _MAX_GAIN <= _MAX_UNPACKED:
        return
    # Keyword, 0, then one byte of method (iTXt: flag, method, two more strings): try every plausible start.
    packed = bytes(chunk)
    for start in _zlib_starts(packed):
        try:
            unpacked = zlib.decompressobj().decompress(packed[start:], _MAX_UNPACKED + 1)
        except zlib.error:
            continue
        if len(unpacked) > _MAX_UNPACKED:
            raise BadImage("too_large", "a text or colour profile that unpacks to over 1 MiB")
        return


def _zlib_starts(packed: bytes) -> list[int]:
    """Return offsets in the first bytes of a chunk at which a zlib stream may begin."""
    head = packed[:512]
    return [
        i for i in range(1, len(head) - 1) if head[i] & 15 == 8 and (head[i] << 8 | head[i + 1]) % 31 == 0
    ]


_CHUNK_CHECKS = {
    b"acTL": _check_frames,
    b"zTXt": _check_packed,
    b"iTXt": _check_packed,
    b"iCCP": _check_packed,
}


def rows_missing(data: bytes) -> bool:
    """Return True if a PNG's data, though intact, unpack to fewer bytes than its rows need.

    Pillow silently fills such rows with zeros. This unpacks all data, in small pieces, and should be called
    only in doubt.

    Args:
        data: a file that has passed `sniff`.
    """
    width, height, bits, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    depth = bits * _SAMPLES[colour]
    needed = 0
    for top, left, down, along in _ADAM7 if interlace else ((0, 0, 1, 1),):
        rows, columns = -(-(height - top) // down), -(-(width - left) // along)
        needed += rows * (1 + (columns * depth + 7) // 8) if columns > 0 else 0
    unpacker, position = zlib.decompressobj(), 8
    while needed > 0 and position < len(data) and not unpacker.eof:
        length = int.from_bytes(data[position : position + 4])
        packed = (
            data[position + 8 : position + 8 + length]
            if data[position + 4 : position + 8] == b"IDAT"
            else b""
        )
        while packed and needed > 0:
            needed -= len(unpacker.decompress(packed, _MAX_UNPACKED))
            packed = unpacker.unconsumed_tail
        position += 12 + length
    return needed > 0


def _printable(kind: bytes) -> str:
    return repr(kind)[2:-1]
