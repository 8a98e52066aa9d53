"""JPEG: the header, and a walk through segments and scans."""

import re
import struct
from dataclasses import replace

from engine.decode.formats import unreadable
from engine.decode.formats.header import Colour, Header, check_size
from engine.decode.source import Limits
from engine.errors import BadImage

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Start of the next segment; libjpeg skips any other bytes between segments.
_SEGMENT_START = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
#: End of coded data: within them 0xFF is followed by 0 or a restart marker.
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
#: Scans, at most: real progressive files have about ten, and each costs a pass over all pixels.
_MAX_SCANS = 100
#: Pixels times scans above which a file is not plain: ten scans of the largest image.
_MAX_WORK = 640_000_000
_MAX_SEGMENTS = 10_000


def read(data: bytes, limits: Limits) -> Header:
    """Check a JPEG and return its header.

    Raises:
        BadImage: truncated, corrupt, too_large; undecodable, for kinds of JPEG that are not decoded here.
    """
    header: Header | None = None
    exif, scans, position = False, 0, 2
    for _ in range(_MAX_SEGMENTS):
        marker, position = _next_marker(data, position)
        if marker == 0xD9:
            if not scans or header is None:
                raise BadImage("truncated", "its JPEG data end before the first scan")
            plain = header.plain and scans * header.width * header.height <= _MAX_WORK
            return replace(header, exif=exif, plain=plain)
        unreadable.refuse_jpeg(marker)
        start, position = position + 2, _segment_end(data, position)
        if marker in _FRAMES and header is None:
            header = check_size(_frame_header(data, start, marker), limits)
        elif marker == 0xE1:
            exif = exif or data.startswith(b"Exif\0", start)
        elif marker == 0xDA:
            scans += 1
            position = _scan_end(data, position)
        if scans > _MAX_SCANS:
            raise BadImage("too_large", f"more than {_MAX_SCANS} scans")
    raise BadImage("too_large", f"more than {_MAX_SEGMENTS} segments")


def _segment_end(data: bytes, position: int) -> int:
    length: int = struct.unpack_from(">H", data, position)[0]
    if length < 2:
        raise BadImage("corrupt", "a JPEG segment of impossible length")
    if position + length > len(data):
        raise BadImage("truncated", "its JPEG data end within a header segment")
    return position + length


def _scan_end(data: bytes, position: int) -> int:
    marker = _SCAN_END.search(data, position)
    if marker is None:
        raise BadImage("truncated", "its JPEG data stop without an end marker")
    return marker.start()


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """Return the code of the next marker and the position after it."""
    segment = _SEGMENT_START.search(data, position)
    if segment is None:
        raise BadImage("truncated", "its JPEG data stop without an end marker")
    return data[segment.end() - 1], segment.end()


def _frame_header(data: bytes, start: int, marker: int) -> Header:
    bits, height, width, components = struct.unpack_from(">BHHB", data, start)
    colour: Colour = {1: "grey", 3: "rgb"}.get(components, "other")  # type: ignore[assignment]
    usual = marker in (0xC0, 0xC1, 0xC2) and colour != "other" and bits == 8
    return Header("JPEG", width, height, bits, colour, plain=usual)
