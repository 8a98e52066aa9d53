"""TIFF files of any tags, made by hand: what no library writes."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np


def tiff_of(
    tags: Mapping[int, Sequence[int] | bytes], samples: bytes, *, big_endian: bool = False, big: bool = False
) -> bytes:
    """One page and one strip of `samples`; numbers are written as SHORT where they fit, bytes as BYTE.

    Tags 273 and 279 are added; the directory comes last. `big`: BigTIFF.
    """
    order = ">" if big_endian else "<"
    code, room, head = ("Q", 8, 16) if big else ("I", 4, 8)
    fields: dict[int, Sequence[int] | bytes] = {273: [head], 279: [len(samples)], **tags}
    at = head + len(samples) + len(samples) % 2
    start = at + (8 if big else 2) + len(fields) * (20 if big else 12) + room
    entries, beyond = b"", b""
    for tag, values in sorted(fields.items()):
        if isinstance(values, bytes):
            kind, packed = 1, values
        else:
            kind = 3 if all(value < 65536 for value in values) else 4
            packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > room:
            beyond += bytes(len(beyond) % 2)
            inline = struct.pack(order + code, start + len(beyond))
            beyond += packed
        else:
            inline = packed.ljust(room, b"\0")
        entries += struct.pack(f"{order}HH{code}", tag, kind, len(values)) + inline
    mark = b"MM" if big_endian else b"II"
    first = struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    count = struct.pack(order + ("Q" if big else "H"), len(fields))
    padding = bytes(len(samples) % 2)
    return mark + first + samples + padding + count + entries + bytes(room) + beyond


def picture_tags(
    pixels: np.ndarray, **changed: int | Sequence[int] | bytes
) -> dict[int, Sequence[int] | bytes]:
    """Tags of an uncompressed picture, [h, w] or [h, w, c]; those to change are given as `_NUMBER`."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    kind = {"u": 1, "i": 2, "f": 3, "c": 6}[pixels.dtype.kind]
    tags: dict[int, Sequence[int] | bytes] = {
        256: [pixels.shape[1]], 257: [pixels.shape[0]], 258: [8 * pixels.itemsize] * channels, 259: [1],
        262: [2 if channels == 3 else 1], 277: [channels], 278: [pixels.shape[0]], 339: [kind] * channels,
    }  # fmt: skip
    for name, value in changed.items():
        tags[int(name[1:])] = [value] if isinstance(value, int) else value
    return tags
