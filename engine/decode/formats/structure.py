"""Headers and structure of image files of every format but DICOM (JPEG and PNG in `jpeg` and `png`).

Format, size, depth and frame count come from the header; walking through the structure finds truncation and
wrong checksums without decoding pixels.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

from engine.decode.formats import avif, jpeg, jpeg2000, png, pnm, tiff, unreadable
from engine.decode.formats.header import Header, check_size
from engine.decode.source import Limits
from engine.errors import BadImage

#: Magic bytes, their offset, and the reader of the format.
Reader = tuple[bytes, int, Callable[[bytes, Limits], Header]]


#: Tag -> name.
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
    check_size(header, limits)
    if following:
        raise BadImage("multi_frame", "TIFF of several pages")
    _tiff_complete(tags, len(data))
    tiff.refuse_unreadable(tags, little=order == "<")
    return header


def _tiff_directory(data: bytes, order: str, big: bool) -> tuple[dict[str, tuple[int, ...]], int]:
    """Return the tags of the first page by name, and the offset of the next page (0 if none)."""
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
    header = check_size(Header("WEBP", width, height, exif=exif), limits)
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
    header = check_size(Header("BMP", width, abs(height)), limits)
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
    check_size(header, limits)
    # Markers from FF90 on do not occur within coded data.
    if data.find(b"\xff\xd9", picture.start) < 0:
        raise BadImage("truncated", "its JPEG 2000 data stop without an end marker")
    jpeg2000.refuse_without_package(picture)
    return header


#: Blocks of a GIF, at most, and sub-blocks of up to 255 bytes in a block.
_MAX_GIF_BLOCKS, _MAX_GIF_PIECES = 10_000, 1_000_000


def _gif(data: bytes, limits: Limits) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    header = check_size(Header("GIF", width, height), limits)
    position, frames = 13 + _colour_table(flags), 0
    for _ in range(_MAX_GIF_BLOCKS):
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
    raise BadImage("too_large", f"more than {_MAX_GIF_BLOCKS} GIF blocks")


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
    header = check_size(Header("AVIF", width, height, exif=number != 1, orientation=number), limits)
    avif.check_pillow()
    return header


def _pnm(data: bytes, limits: Limits) -> Header:
    layout = pnm.read_layout(data)
    if layout is None:
        unreadable.refuse(data)
    bits, colour = max(8, layout.white.bit_length()), "grey" if layout.channels == 1 else "rgb"
    header = check_size(Header("PPM", layout.width, layout.height, bits, colour), limits)  # type: ignore[arg-type]
    pnm.check_samples(data, layout)
    return header


READERS: tuple[Reader, ...] = (
    (b"\xff\xd8\xff", 0, jpeg.read),
    (b"\x89PNG\r\n\x1a\n", 0, png.read),
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
    """Check a file and return its header, without the orientation.

    Args:
        data: the complete file.
        limits: of which `max_pixels` applies.
        readers: of the formats; the first one whose magic bytes match reads the file.

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
