"""JPEG 2000 files made by imagecodecs and, their boxes, by hand."""

import struct

import imagecodecs
import numpy as np


def samples(bits: int, signed: bool, channels: int, seed: int = 0) -> np.ndarray:
    """Noise over the whole range, both ends included: [9, 7] or [9, 7, channels]."""
    low, high = ends(bits, signed)
    kind = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    shape = (9, 7) if channels == 1 else (9, 7, channels)
    found = np.random.default_rng(seed).integers(low, high + 1, shape).astype(kind)
    found.flat[:2] = low, high
    return found


def ends(bits: int, signed: bool) -> tuple[int, int]:
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def coded(stored: np.ndarray, bits: int, container: str = "j2k") -> bytes:
    """Lossless; a bare code stream, or JP2."""
    return bytes(
        imagecodecs.jpeg2k_encode(
            stored, level=0, bitspersample=bits, codecformat=container, reversible=True, mct=False
        )
    )


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def jp2(stream: bytes, channels: int, bits: int, space: int = 16, extra: bytes = b"") -> bytes:
    """A JP2 file around a code stream; `extra` are boxes after the colour space."""
    at = stream.index(b"\xff\x4f\xff\x51")
    width, height = struct.unpack_from(">II", stream, at + 8)
    size = box(b"ihdr", struct.pack(">IIHBBBB", height, width, channels, bits - 1, 7, 0, 0))
    colour = box(b"colr", struct.pack(">BBBI", 1, 0, 0, space))
    start = b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"jp2h", size + colour + extra) + box(b"jp2c", stream)


def palette(entries: np.ndarray, mapped: tuple[int, ...], bits: int = 8) -> bytes:
    """Palette and mapping boxes; entries uint8 [n, columns]."""
    count, columns = entries.shape
    table = struct.pack(">HB", count, columns) + bytes([bits - 1] * columns)
    mapping = b"".join(struct.pack(">HBB", 0, 1, column) for column in mapped)
    data = entries.astype(">u2" if bits > 8 else "u1").tobytes()
    return box(b"pclr", table + data) + box(b"cmap", mapping)


def channels(*entries: tuple[int, int, int]) -> bytes:
    """A channel definition box: (channel, type, association) of each."""
    body = b"".join(struct.pack(">HHH", *entry) for entry in entries)
    return box(b"cdef", struct.pack(">H", len(entries)) + body)


def resized(stream: bytes, bits: int) -> bytes:
    """A code stream whose first component claims another depth."""
    at = stream.index(b"\xff\x4f\xff\x51") + 42
    return stream[:at] + bytes([bits - 1]) + stream[at + 1 :]


def subsampled(stream: bytes) -> bytes:
    """A code stream of one component as one of twice the size, of which it has every other sample."""
    at = stream.index(b"\xff\x4f\xff\x51") + 8
    sides = [2 * side for side in struct.unpack_from(">II", stream, at)]
    tile = at + 16
    out = bytearray(stream)
    out[at : at + 8] = out[tile : tile + 8] = struct.pack(">II", *sides)
    out[at + 35 : at + 37] = b"\2\2"
    return bytes(out)
