"""Reader of sorted string tables, the format of TensorFlow's index files.

The layout is LevelDB's (github.com/google/leveldb, doc/table_format.md): blocks of entries whose keys share
prefixes, each block followed by its compression and a masked CRC-32C; an index block with the places of the
blocks; a footer of 48 bytes with the place of the index. Everything is checked before it is used.
"""

import struct
from collections.abc import Iterator

FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER_BYTES = 5
_MASK_DELTA = 0xA282EAD8
#: Blocks are a few kilobytes; one that states a larger size than this is damaged.
_MAX_UNPACKED = 64 << 20


class Malformed(ValueError):
    """Bytes that violate their format."""


def crc32c(data: bytes | memoryview) -> int:
    """Return the masked CRC-32C (Castagnoli) that LevelDB and TensorFlow store.

    It is rotated and shifted, because the CRC of data that contain their own CRC is weak.
    """
    from google_crc32c import value

    crc: int = value(bytes(data))
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def varint(data: bytes, offset: int) -> tuple[int, int]:
    """Decode a little-endian base-128 number of at most 64 bits.

    Returns:
        (the number, the offset after it).

    Raises:
        Malformed: it is longer, or runs past the end.
    """
    number = 0
    for shift in range(0, 70, 7):
        if offset >= len(data):
            raise Malformed("a number runs past the end")
        byte = data[offset]
        offset += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >> 64:
                break
            return number, offset
    raise Malformed("a number has more than 64 bits")


def read(data: bytes) -> dict[bytes, bytes]:
    """Return all entries of a table.

    Raises:
        Malformed: not a table, truncated, a wrong checksum, keys out of order, or an unknown compression.
    """
    if len(data) < FOOTER_BYTES:
        raise Malformed(f"{len(data)} bytes are too few for a table")
    footer = data[-FOOTER_BYTES:]
    if struct.unpack_from("<Q", footer, 40)[0] != _MAGIC:
        raise Malformed("the magic number at the end is missing")
    _, offset = _handle(footer, 0)  # of the meta-index, which TensorFlow leaves empty
    index, _ = _handle(footer, offset)
    entries: dict[bytes, bytes] = {}
    last = None
    for _, value in _entries(_block(data, index)):
        for key, content in _entries(_block(data, _handle(value, 0)[0])):
            if last is not None and key <= last:
                raise Malformed("the keys are out of order")
            entries[key] = content
            last = key
    return entries


def _handle(data: bytes, offset: int) -> tuple[tuple[int, int], int]:
    """Decode a block handle: ((offset, size) of the block, offset after the handle)."""
    block_offset, offset = varint(data, offset)
    block_size, offset = varint(data, offset)
    return (block_offset, block_size), offset


def _block(data: bytes, handle: tuple[int, int]) -> bytes:
    """Return the uncompressed content of a block after verifying its checksum."""
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
        return _decompress_snappy(content)
    raise Malformed(f"compression {kind} is unknown")


def _decompress_snappy(content: bytes) -> bytes:
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
    """Yield (key, value) of a block, whose keys state only what differs from the key before."""
    if len(block) < 4:
        raise Malformed("a block is too short")
    restarts = struct.unpack_from("<I", block, len(block) - 4)[0]
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise Malformed("a block has more restarts than bytes")
    offset, key = 0, b""
    while offset < end:
        shared, offset = varint(block, offset)
        unshared, offset = varint(block, offset)
        value_size, offset = varint(block, offset)
        if shared > len(key) or offset + unshared + value_size > end:
            raise Malformed("an entry runs past its block")
        key = key[:shared] + block[offset : offset + unshared]
        offset += unshared
        yield key, block[offset : offset + value_size]
        offset += value_size
