"""AVIF: what its boxes say, before Pillow decodes the file. Other files of the HEIF family are named."""

import struct

from engine.decode.formats.orientation import boxes
from engine.errors import BadImage

#: Brands -> what the file is, and what reads it. An AVIF may name the more general brands as well.
_HEIC = "HEIC; convert it to PNG (for instance with heif-convert, or with pillow-heif in Python)"
_BRANDS = {
    b"avif": "", b"avis": "",
    b"heic": _HEIC, b"heix": _HEIC, b"heim": _HEIC, b"heis": _HEIC, b"hevc": _HEIC, b"hevx": _HEIC,
    b"crx ": "a camera's raw image (CR3); convert it to TIFF or PNG with its developer",
    b"mif1": "HEIF; convert it to PNG with heif-convert",
    b"msf1": "HEIF; convert it to PNG with heif-convert",
}  # fmt: skip
#: irot's quarter turns against the clock, imir's axis (None: no mirror) -> EXIF's number.
_ORIENTATIONS = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5,
}  # fmt: skip


def size_and_orientation(data: bytes) -> tuple[int, int, int]:
    """Read an AVIF's boxes.

    Returns:
        Width and height as stored, and EXIF's number of the orientation that `irot` and `imir` make.

    Raises:
        BadImage: truncated, corrupt; multi_frame; undecodable: another format of the family, a film, or one
            of more than 8 bits, which Pillow would cut to 8 without a word.
    """
    _check_brands(data)
    kinds = set()
    properties: list[tuple[bytes, bytes]] = []
    chosen: list[int] = []
    for kind, start, stop in boxes(data, 0, len(data)):
        if stop > len(data):
            raise BadImage("truncated", "its AVIF data stop early")
        kinds.add(kind)
        if kind == b"meta":
            properties, chosen = _meta(data, start + 4, stop)
    if b"meta" not in kinds:
        raise BadImage("truncated", "AVIF that ends before it describes its picture")
    if b"moov" in kinds:
        raise BadImage("multi_frame", "an AVIF sequence of pictures")
    own = dict(properties[i - 1] for i in chosen if 0 < i <= len(properties))
    if b"ispe" not in own:
        raise BadImage("corrupt", "its AVIF boxes state no size")
    _check_bits(properties)
    width, height = struct.unpack_from(">II", own[b"ispe"], 4)
    turns = own[b"irot"][0] & 3 if own.get(b"irot") else 0
    axis = own[b"imir"][0] & 1 if own.get(b"imir") else None
    return width, height, _ORIENTATIONS[turns, axis]


def _check_brands(data: bytes) -> None:
    if len(data) < 16:
        raise BadImage("truncated", "the file ends within its header")
    stop = min(max(int.from_bytes(data[:4]), 16), 512, len(data))
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, stop - 3, 4))]
    known = [brand for brand in _BRANDS if brand in brands]
    if not known:
        raise BadImage("unknown_format", "no image format that is accepted: a film (MP4 or QuickTime)")
    if _BRANDS[known[0]]:
        raise BadImage("undecodable", _BRANDS[known[0]])


def _check_bits(properties: list[tuple[bytes, bytes]]) -> None:
    """Of the AV1 code, in its configuration's third byte: high_bitdepth and twelve_bit."""
    flags = [content[2] for kind, content in properties if kind == b"av1C"]
    if any(flag & 0x40 for flag in flags):
        bits = 12 if any(flag & 0x20 for flag in flags) else 10
        raise BadImage("undecodable", f"AVIF of {bits} bits a channel; convert it to a 16-bit PNG (avifdec)")


def _meta(data: bytes, start: int, stop: int) -> tuple[list[tuple[bytes, bytes]], list[int]]:
    """All properties in the file, and the numbers (from 1) of the main picture's."""
    inside = {kind: (a, b) for kind, a, b in boxes(data, start, stop)}
    if b"pitm" not in inside or b"iprp" not in inside:
        raise BadImage("corrupt", "its AVIF boxes name no main picture")
    at = inside[b"pitm"][0]
    main = int.from_bytes(data[at + 4 : at + (8 if data[at] else 6)])
    parts = {kind: (a, b) for kind, a, b in boxes(data, *inside[b"iprp"])}
    if b"ipco" not in parts or b"ipma" not in parts:
        raise BadImage("corrupt", "its AVIF boxes describe no picture")
    properties = [(kind, data[a:b]) for kind, a, b in boxes(data, *parts[b"ipco"])]
    return properties, _associated(data, parts[b"ipma"][0], main)


def _associated(data: bytes, at: int, main: int) -> list[int]:
    """The properties that `ipma` gives to an item."""
    item, wide = ("H" if data[at] == 0 else "I"), data[at + 3] & 1
    count = struct.unpack_from(">I", data, at + 4)[0]
    at += 8
    for _ in range(min(count, 65536)):
        number, associations = struct.unpack_from(f">{item}B", data, at)
        at += struct.calcsize(f">{item}B")
        if number == main:
            entries = struct.unpack_from(f">{associations}{'H' if wide else 'B'}", data, at)
            return [entry & (0x7FFF if wide else 0x7F) for entry in entries]
        at += associations * (2 if wide else 1)
    raise BadImage("corrupt", "its AVIF boxes describe other pictures than the main one")


def check_pillow() -> None:
    """Refuse where Pillow has no AVIF decoder; in this process it shall keep to one thread.

    Raises:
        BadImage: needs_package.
    """
    from PIL import Image, features

    Image.init()
    if "AVIF" not in Image.OPEN or not features.check("avif"):
        raise BadImage("needs_package", "this Pillow reads no AVIF: pip install 'pillow>=11.3'", pending=True)
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
