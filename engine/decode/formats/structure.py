"""Headers of image files of every format but DICOM, and a walk over their structure.

Format, size, depth and frame count from the header; the walk finds truncation and wrong checksums without
decoding a pixel.
"""

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from engine.decode.formats import avif, jpeg2000, pnm, tiff, unreadable
from engine.decode.formats.header import Colour, Header, checked
from engine.decode.source import Limits
from engine.errors import BadImage

#: How a file begins, at which offset, and who reads it on.
Reader = tuple[bytes, int, Callable[[bytes, Limits], Header]]


# ---- JPEG

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Between segments anything may lie but these; libjpeg skips it.
_JPEG_SEGMENT = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
#: Within coded data 0xFF is followed by 0 or a restart marker; anything else ends it.
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
#: Real progressive files have about ten; each costs a pass over all pixels.
_MAX_SCANS = 100
#: Pixels times scans beyond which a file is not plain: ten scans of the largest image.
_MAX_WORK = 640_000_000
_MAX_SEGMENTS = 10_000


def _jpeg(data: bytes, limits: Limits) -> Header:
    header: Header | None = None
    exif, scans, position = False, 0, 2
    for _ in range(_MAX_SEGMENTS):
        marker, position = _jpeg_marker(data, position)
        if marker == 0xD9:
            if not scans or header is None:
                raise BadImage("truncated", "its JPEG data end before the first scan")
            plain = header.plain and scans * header.width * header.height <= _MAX_WORK
            return replace(header, exif=exif, plain=plain)
        unreadable.refuse_jpeg(marker)
        start, position = position + 2, _jpeg_segment_end(data, position)
        if marker in _JPEG_FRAMES and header is None:
            header = checked(_jpeg_frame(data, start, marker), limits)
        elif marker == 0xE1:
            exif = exif or data.startswith(b"Exif\0", start)
        elif marker == 0xDA:
            scans += 1
            position = _jpeg_scan_end(data, position)
        if scans > _MAX_SCANS:
            raise BadImage("too_large", f"more than {_MAX_SCANS} scans")
    raise BadImage("too_large", f"more than {_MAX_SEGMENTS} segments")


def _jpeg_segment_end(data: bytes, position: int) -> int:
    length: int = struct.unpack_from(">H", data, position)[0]
    if length < 2:
        raise BadImage("corrupt", "a JPEG segment of impossible length")
    if position + length > len(data):
        raise BadImage("truncated", "its JPEG data end within a header segment")
    return position + length


def _jpeg_scan_end(data: bytes, position: int) -> int:
    found = _JPEG_MARKER.search(data, position)
    if found is None:
        raise BadImage("truncated", "its JPEG data stop without an end marker")
    return found.start()


def _jpeg_marker(data: bytes, position: int) -> tuple[int, int]:
    """The next marker's code and the position after it."""
    found = _JPEG_SEGMENT.search(data, position)
    if found is None:
        raise BadImage("truncated", "its JPEG data stop without an end marker")
    return data[found.end() - 1], found.end()


def _jpeg_frame(data: bytes, start: int, marker: int) -> Header:
    bits, height, width, components = struct.unpack_from(">BHHB", data, start)
    colour: Colour = {1: "grey", 3: "rgb"}.get(components, "other")  # type: ignore[assignment]
    usual = marker in (0xC0, 0xC1, 0xC2) and colour != "other" and bits == 8
    return Header("JPEG", width, height, bits, colour, plain=usual)


# ---- PNG

_PNG_COLOURS: dict[int, Colour] = {0: "grey", 2: "rgb", 3: "palette", 4: "grey", 6: "rgb"}
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
#: The largest PNG written in pieces of 8 kB has a quarter of these.
_MAX_CHUNKS = 200_000
#: Samples a pixel, by colour type.
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: Of each pass of an interlaced PNG: first row, first column, steps between rows and columns.
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
#: What packed text and colour profiles may unpack to, as in Pillow. Deflate gains at most a factor of 1032.
_MAX_UNPACKED = 1 << 20
_MAX_GAIN = 1032


def _png(data: bytes, limits: Limits) -> Header:
    header = checked(_png_header(data), limits)
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
            _png_complete(seen, header)
            return replace(header, exif=exif)
        if kind in _PNG_CHUNKS:
            _PNG_CHUNKS[kind](view[position + 8 : after - 4])
        exif = exif or kind == b"eXIf"
        position = after
    else:
        raise BadImage("too_large", f"more than {_MAX_CHUNKS} chunks")
    raise BadImage("truncated", "its PNG chunks stop before IEND")


def _png_header(data: bytes) -> Header:
    length, kind, width, height, bits, colour, packing, filtering, interlace = struct.unpack_from(
        ">I4sIIBBBBB", data, 8
    )
    valid = length == 13 and kind == b"IHDR" and bits in _PNG_DEPTHS.get(colour, ())
    if not valid or packing or filtering or interlace > 1 or max(width, height) > 0x7FFFFFFF:
        raise BadImage("corrupt", "its PNG header is invalid")
    plain = bits == 8 and not interlace
    return Header(
        "PNG", width, height, max(bits, 8), _PNG_COLOURS[colour], interlaced=bool(interlace), plain=plain
    )


def _png_complete(seen: set[bytes], header: Header) -> None:
    needed = {b"IDAT"} | ({b"PLTE"} if header.colour == "palette" else set())
    for kind in sorted(needed - seen):
        raise BadImage("corrupt", f"PNG without {kind.decode()}")


def _png_frames(chunk: memoryview) -> None:
    frames = struct.unpack_from(">I", chunk)[0]
    if frames > 1:
        raise BadImage("multi_frame", f"animated PNG of {frames} frames")


def _png_packed(chunk: memoryview) -> None:
    """Refuse text and profiles that would unpack to far more; what is small is not unpacked at all."""
    if len(chunk) * _MAX_GAIN <= _MAX_UNPACKED:
        return
    # keyword, 0, then one byte of method (iTXt: flag, method, two more strings): try each plausible start.
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
    """Offsets within the chunk's head at which a zlib stream may begin."""
    head = packed[:512]
    return [
        i for i in range(1, len(head) - 1) if head[i] & 15 == 8 and (head[i] << 8 | head[i + 1]) % 31 == 0
    ]


_PNG_CHUNKS = {b"acTL": _png_frames, b"zTXt": _png_packed, b"iTXt": _png_packed, b"iCCP": _png_packed}


def png_rows_missing(data: bytes) -> bool:
    """Whether a PNG's data, though intact, unpack to fewer bytes than its rows need.

    Pillow shows such rows as black without a word. This unpacks everything, in small pieces: ask only when in
    doubt.

    Args:
        data: a file that `sniff` has passed.
    """
    width, height, bits, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    depth = bits * _PNG_SAMPLES[colour]
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


# ---- TIFF

#: Tag -> our name of it.
_TIFF_TAGS = {
    256: "width", 257: "height", 258: "bits", 259: "packing", 262: "photometric", 274: "orientation",
    273: "starts", 279: "lengths", 277: "channels", 324: "starts", 325: "lengths", 339: "samples",
    266: "fill", 284: "planes", 338: "extra",
}  # fmt: skip
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_TIFF_SAMPLES = {1: "unsigned", 2: "signed", 3: "float", 4: "unsigned"}
_MAX_STRIPS = 1_000_000
_MAX_TAGS = 4096


def _tiff(data: bytes, limits: Limits) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    tags, following = _tiff_directory(data, order, big)
    first = {name: values[0] for name, values in tags.items() if values}
    width, height = first.get("width", 0), first.get("height", 0)
    bits = max(tags.get("bits") or (1,))
    header = Header(
        "TIFF",
        width,
        height,
        max(bits, 8),
        samples=_TIFF_SAMPLES.get(first.get("samples", 1), "float"),  # type: ignore[arg-type]
        inverted=first.get("photometric") == 0,
        exif="orientation" in first,
    )
    checked(header, limits)
    if following:
        raise BadImage("multi_frame", "TIFF of several pages")
    _tiff_complete(tags, len(data))
    tiff.refuse_unreadable(tags, little=order == "<")
    return header


def _tiff_directory(data: bytes, order: str, big: bool) -> tuple[dict[str, tuple[int, ...]], int]:
    """The first page's tags by name, and the offset of the next page (0: none)."""
    offset_code, count_code, entry, inline = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    position = struct.unpack_from(order + offset_code, data, 8 if big else 4)[0]
    count = struct.unpack_from(order + count_code, data, position)[0]
    if count > _MAX_TAGS:
        raise BadImage("corrupt", f"{count} tags in a TIFF directory")
    position += struct.calcsize(count_code)
    tags = {}
    for at in range(position, position + count * entry, entry):
        tag, kind, number = struct.unpack_from(order + "HH" + offset_code, data, at)
        name, code = _TIFF_TAGS.get(tag), _TIFF_TYPES.get(kind)
        if name is None or code is None:
            continue
        if number > _MAX_STRIPS:
            raise BadImage("too_large", f"{number} values in TIFF tag {tag}")
        at += entry - inline
        if number * struct.calcsize(code) > inline:
            at = struct.unpack_from(order + offset_code, data, at)[0]
        tags[name] = struct.unpack_from(f"{order}{number}{code}", data, at)
    return tags, struct.unpack_from(order + offset_code, data, position + count * entry)[0]


def _tiff_complete(tags: dict[str, tuple[int, ...]], size: int) -> None:
    starts, lengths = tags.get("starts", ()), tags.get("lengths", ())
    if not starts:
        raise BadImage("corrupt", "TIFF without image data")
    if (
        any(start + length > size for start, length in zip(starts, lengths, strict=False))
        or max(starts) >= size
    ):
        raise BadImage("truncated", "its TIFF data lie beyond the end of the file")


# ---- the others


def _webp(data: bytes, limits: Limits) -> Header:
    if data[8:12] != b"WEBP":
        unreadable.refuse(data)
    kind = data[12:16]
    exif = False
    if kind == b"VP8X":
        flags = data[20]
        width, height = 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        exif = bool(flags & 0x08)
    elif kind == b"VP8L":
        packed = struct.unpack_from("<I", data, 21)[0]
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    else:
        width, height = (v & 0x3FFF for v in struct.unpack_from("<HH", data, 26))
    header = checked(Header("WEBP", width, height, exif=exif), limits)
    if kind == b"VP8X" and data[20] & 0x02:
        raise BadImage("multi_frame", "animated WebP")
    if 8 + struct.unpack_from("<I", data, 4)[0] > len(data):
        raise BadImage("truncated", "its WebP data stop early")
    return header


def _bmp(data: bytes, limits: Limits) -> Header:
    size = struct.unpack_from("<I", data, 14)[0]
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        packing = 0
    else:
        width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18)
    header = checked(Header("BMP", width, abs(height)), limits)
    start = struct.unpack_from("<I", data, 10)[0]
    if packing == 0 and start + (width * bits + 31) // 32 * 4 * abs(height) > len(data):
        raise BadImage("truncated", "its BMP data stop early")
    return header


def _jpeg2000(data: bytes, limits: Limits) -> Header:
    picture = jpeg2000.read(data)
    header = Header(
        "JPEG2000",
        picture.width,
        picture.height,
        max(8, picture.bits),
        samples="signed" if picture.signed else "unsigned",
    )
    checked(header, limits)
    # Markers from FF90 on cannot occur within coded data.
    if data.find(b"\xff\xd9", picture.start) < 0:
        raise BadImage("truncated", "its JPEG 2000 data stop without an end marker")
    jpeg2000.refuse_without_package(picture)
    return header


#: Of up to 255 bytes each.
_MAX_GIF_PIECES = 1_000_000


def _gif(data: bytes, limits: Limits) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    header = checked(Header("GIF", width, height), limits)
    position, frames = 13 + _colour_table(flags), 0
    for _ in range(_MAX_SEGMENTS):
        if data[position] == 0x3B:
            return replace(header, frames=max(frames, 1))
        if data[position] == 0x2C:
            frames += 1
            position += 11 + _colour_table(data[position + 9])
        elif data[position] == 0x21:
            position += 2
        else:
            raise BadImage("corrupt", "its GIF blocks are damaged")
        position = _gif_data_end(data, position)
    raise BadImage("too_large", f"more than {_MAX_SEGMENTS} GIF blocks")


def _gif_data_end(data: bytes, position: int) -> int:
    for _ in range(_MAX_GIF_PIECES):
        if not data[position]:
            return position + 1
        position += 1 + data[position]
    raise BadImage("too_large", f"more than {_MAX_GIF_PIECES} pieces in a GIF block")


def _colour_table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _avif(data: bytes, limits: Limits) -> Header:
    width, height, number = avif.size_and_orientation(data)
    header = checked(Header("AVIF", width, height, exif=number != 1, orientation=number), limits)
    avif.check_pillow()
    return header


def _pnm(data: bytes, limits: Limits) -> Header:
    layout = pnm.read_layout(data)
    if layout is None:
        unreadable.refuse(data)
    bits, colour = max(8, layout.most.bit_length()), "grey" if layout.channels == 1 else "rgb"
    header = checked(Header("PPM", layout.width, layout.height, bits, colour), limits)  # type: ignore[arg-type]
    pnm.check_samples(data, layout)
    return header


READERS: tuple[Reader, ...] = (
    (b"\xff\xd8\xff", 0, _jpeg),
    (b"\x89PNG\r\n\x1a\n", 0, _png),
    (b"II*\0", 0, _tiff),
    (b"MM\0*", 0, _tiff),
    (b"II+\0", 0, _tiff),
    (b"MM\0+", 0, _tiff),
    (b"RIFF", 0, _webp),
    (b"BM", 0, _bmp),
    (b"\0\0\0\x0cjP  \r\n\x87\n", 0, _jpeg2000),
    (b"\xff\x4f\xff\x51", 0, _jpeg2000),
    (b"GIF87a", 0, _gif),
    (b"GIF89a", 0, _gif),
    (b"ftyp", 4, _avif),
    *((b"P%d" % kind, 0, _pnm) for kind in range(1, 7)),
)


def read(data: bytes, limits: Limits, readers: Sequence[Reader] = READERS) -> Header:
    """Check a file and describe it, but for its orientation.

    Args:
        data: the whole file.
        limits: for `max_pixels`.
        readers: the formats there are; the first whose beginning fits reads the file.

    Raises:
        BadImage: codes unknown_format, truncated, corrupt, too_large, multi_frame, undecodable,
            needs_package.
    """
    reader = next((reader for magic, at, reader in readers if data.startswith(magic, at)), None)
    if reader is None:
        unreadable.refuse(data)
    try:
        return reader(data, limits)
    except (struct.error, IndexError, OverflowError) as error:
        raise BadImage("truncated", "the file ends within its header") from error
