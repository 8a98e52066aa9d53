"""Writers of TensorFlow's checkpoint format, from its description; they share nothing with the reader."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

_TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "bool": 10, "float16": 19}


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC = _table()


def masked_crc(data: bytes) -> int:
    """CRC-32C bit by bit's table, masked as in LevelDB's crc32c.h."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def varint(n: int) -> bytes:
    out = b""
    while n >= 128:
        out += bytes([n % 128 + 128])
        n //= 128
    return out + bytes([n])


def block(entries: list[tuple[bytes, bytes]], restart_every: int = 16) -> bytes:
    out, restarts, last = b"", [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % restart_every == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return out + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))


def table(entries: Mapping[bytes, bytes], per_block: int = 7, snappy: bool = False) -> bytes:
    out = b""
    index: list[tuple[bytes, bytes]] = []

    def put(content: bytes) -> bytes:
        nonlocal out
        kind = b"\0"
        if snappy:
            content, kind = pa.Codec("snappy").compress(content, asbytes=True), b"\1"
        handle = varint(len(out)) + varint(len(content))
        out += content + kind + struct.pack("<I", masked_crc(content + kind))
        return handle

    items = sorted(entries.items())
    for at in range(0, len(items), per_block):
        part = items[at : at + per_block]
        index.append((part[-1][0] + b"\0", put(block(part))))
    meta, top = put(block([])), put(block(index, 1))
    return out + (meta + top).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def _field(number: int, value: int | bytes, fixed: bool = False) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if fixed:
        return varint(number << 3 | 5) + struct.pack("<I", value)
    return varint(number << 3) + varint(value) if value else b""


def entry(array: np.ndarray, shard: int, offset: int, crc: int) -> bytes:
    shape = b"".join(_field(2, _field(1, n)) for n in array.shape)
    return (
        _field(1, _TYPES[str(array.dtype)])
        + _field(2, shape)
        + _field(3, shard)
        + _field(4, offset)
        + _field(5, array.nbytes)
        + _field(6, crc, fixed=True)
    )


def bundle(
    arrays: Mapping[str, np.ndarray], name: str, shards: int = 1, snappy: bool = False, fast: bool = True
) -> dict[str, bytes]:
    """File name -> content of a checkpoint. `fast`: large tensors' checksums by a C library."""
    from google_crc32c import value as crc32c

    parts = [b""] * shards
    header = _field(1, shards) + _field(3, _field(1, 1))
    entries = {b"": header}
    for i, (key, array) in enumerate(sorted(arrays.items())):
        data, shard = array.tobytes(), i % shards
        crc = crc32c(data)
        masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32 if fast else masked_crc(data)
        entries[key.encode()] = entry(array, shard, len(parts[shard]), masked)
        parts[shard] += data
    files = {f"{name}.data-{i:05d}-of-{shards:05d}": part for i, part in enumerate(parts)}
    return {f"{name}.index": table(entries, snappy=snappy), **files}


def zipped(files: Mapping[str, bytes], path: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
