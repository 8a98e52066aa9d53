"""Reading a sorted string table: the file of keys and values that TensorFlow's index files are.

The layout is LevelDB's (github.com/google/leveldb, doc/table_format.md): blocks of entries whose keys share
prefixes, each block followed by its compression and a masked CRC-32C; an index block that says where they
are; a footer of 48 bytes that says where that is. Everything is checked before it is used.
"""

import struct
from collections.abc import Iterator

FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER_BYTES = 5
_MASK_DELTA = 0xA282EAD8
#: A block is a few kilobytes; what claims to unpack to more than this is no index.
_MAX_UNPACKED = 64 << 20


class Malformed(ValueError):
    """The bytes are not what their format demands."""


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C (Castagnoli) as LevelDB and TensorFlow store it: rotated and shifted, so that a checksum of
    data that holds checksums stays a good one."""
    from google_crc32c import value

    crc: int = value(bytes(data))
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A little-endian base-128 number of at most 64 bits at `at`, and the place after it."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Malformed("a number runs past the end")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >> 64:
                break
            return number, at
    raise Malformed("a number has more than 64 bits")


def read(data: bytes) -> dict[bytes, bytes]:
    """All entries of a table.

    Raises:
        Malformed: no table, truncated, a wrong checksum, keys out of order, or an unknown compression.
    """
    if len(data) < FOOTER_BYTES:
        raise Malformed(f"{len(data)} bytes are too few for a table")
    footer = data[-FOOTER_BYTES:]
    if struct.unpack_from("<Q", footer, 40)[0] != _MAGIC:
        raise Malformed("the magic number at the end is missing")
    _, at = _handle(footer, 0)  # of the meta-index, which TensorFlow leaves empty
    index, _ = _handle(footer, at)
    found: dict[bytes, bytes] = {}
    last = None
    for _, value in _entries(_block(data, index)):
        for key, content in _entries(_block(data, _handle(value, 0)[0])):
            if last is not None and key <= last:
                raise Malformed("the keys are out of order")
            found[key] = content
            last = key
    return found


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """(offset, size) of a block, and the place after it."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _block(data: bytes, handle: tuple[int, int]) -> bytes:
    offset, size = handle
    end = offset + size
    if end + _TRAILER_BYTES > len(data) - FOOTER_BYTES:
        raise Malformed("a block lies past the end")
    kind, crc = struct.unpack_from("<BI", data, end)
    if crc32c(data[offset : end + 1]) != crc:
        raise Malformed("the checksum of a block is wrong")
    content = data[offset:end]
    if kind == 0:
        return content
    if kind == 1:
        return _unsnap(content)
    raise Malformed(f"compression {kind} is unknown")


def _unsnap(content: bytes) -> bytes:
    import pyarrow as pa

    size, _ = varint(content, 0)
    if size > _MAX_UNPACKED:
        raise Malformed(f"a block claims to unpack to {size} bytes")
    try:
        unpacked: bytes = pa.Codec("snappy").decompress(content, decompressed_size=size, asbytes=True)
    except (OSError, pa.ArrowException) as error:
        raise Malformed(f"a compressed block is damaged ({error})") from error
    return unpacked


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise Malformed("a block is too short")
    restarts = struct.unpack_from("<I", block, len(block) - 4)[0]
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise Malformed("a block has more restarts than bytes")
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        fresh, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or at + fresh + length > end:
            raise Malformed("an entry runs past its block")
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length
