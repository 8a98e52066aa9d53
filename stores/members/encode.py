"""Encoding of samples as uncompressed image files, whose bytes depend on the samples alone."""

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

_STORED = 65535  # longest stored (uncompressed) block of a deflate stream
_TIFF_KINDS = {"u": 1, "i": 2, "f": 3}


def png(pixels: npt.NDArray[Any]) -> bytes:
    """Encode samples as PNG without compression.

    Compressed bytes, and every digest of them, would change with the version of zlib.

    Args:
        pixels: uint8 or uint16 [height, width] grey or [height, width, 3] RGB.

    Source: PNG specification (W3C, third edition), sections 5 and 10; RFC 1950 and 1951 for the stream.
    """
    height, width = pixels.shape[:2]
    colour = 0 if pixels.ndim == 2 else 2
    big = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).reshape(height, -1)
    raw = np.hstack([np.zeros((height, 1), np.uint8), big.view(np.uint8)]).tobytes()  # no filter in any row
    stream = [b"\x78\x01"]
    for start in range(0, len(raw), _STORED):
        block = raw[start : start + _STORED]
        last = start + _STORED >= len(raw)
        stream += [struct.pack("<BHH", last, len(block), 0xFFFF ^ len(block)), block]
    stream.append(struct.pack(">I", zlib.adler32(raw)))
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b"".join(stream)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
        for name, data in chunks
    )


def tiff(samples: npt.NDArray[Any]) -> bytes:
    """Encode samples that PNG has no type for as TIFF: little-endian, one strip.

    Args:
        samples: signed, unsigned or floating [height, width].

    Source: TIFF revision 6.0, sections 2, 3 and 19.
    """
    height, width = samples.shape
    data = np.ascontiguousarray(samples, samples.dtype.newbyteorder("<")).tobytes()
    # Width, height, bits, no compression, black is zero, offset, channels, rows a strip, length, sample type.
    tags = {
        256: width, 257: height, 258: 8 * samples.itemsize, 259: 1, 262: 1, 273: 8, 277: 1, 278: height,
        279: len(data), 339: _TIFF_KINDS[samples.dtype.kind],
    }  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    # A directory begins at an even offset.
    padding = bytes(len(data) % 2)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data + padding)) + data + padding + directory
