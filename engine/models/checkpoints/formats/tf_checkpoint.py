"""Reading a TensorFlow checkpoint (a "tensor bundle") without TensorFlow, from a folder or within a zip.

`PREFIX.index` is a sorted string table from variable name to a BundleEntryProto, which says in which shard
`PREFIX.data-00000-of-00001`, where, and with which CRC-32C the variable's bytes lie; the empty key holds the
BundleHeaderProto. Facts: tensorflow/core/protobuf/tensor_bundle.proto and, of core/framework, types.proto and
tensor_shape.proto.
"""

import contextlib
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from engine.errors import WeightsError
from engine.models.checkpoints.formats.sstable import Malformed, crc32c, read, varint

#: TensorFlow's DataType -> numpy's, little-endian; other types (strings, handles) are no weights.
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "<u1", 9: "<i8", 10: "?", 19: "<f2"}
_MAX_INDEX_BYTES = 256 << 20
_MAX_TENSOR_BYTES = 4 << 30

_Fields = dict[int, list[int | bytes]]


@dataclass(frozen=True)
class Entry:
    """Where a variable lies: DataType number, shape, shard, offset and bytes in it, masked CRC-32C."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


@dataclass(frozen=True)
class Bundle:
    """An open checkpoint: its variables, and how to open a shard."""

    name: str
    entries: dict[str, Entry]
    shards: int
    open_member: Callable[[str], "contextlib.AbstractContextManager[IO[bytes]]"]

    def tensors(self, wanted: Collection[str]) -> dict[str, np.ndarray]:
        """The named variables; each shard is read once from front to back.

        Raises:
            WeightsError: a variable that is absent, of no numeric type, or whose checksum is wrong.
        """
        absent = sorted(set(wanted) - set(self.entries))
        if absent:
            raise _refuse(
                self.name,
                f"lacks {len(absent)} variables ({', '.join(absent[:3])})",
                "A checkpoint of this model has them all",
            )
        by_shard: dict[int, list[str]] = {}
        for name in sorted(wanted, key=lambda n: self.entries[n].offset):
            by_shard.setdefault(self.entries[name].shard, []).append(name)
        found: dict[str, np.ndarray] = {}
        for shard, names in by_shard.items():
            member = f"{self.name}.data-{shard:05d}-of-{self.shards:05d}"
            with _translated(member), self.open_member(member) as file:
                for name in names:
                    found[name] = _tensor(file, name, self.entries[name])
        return found


@contextlib.contextmanager
def opened(path: Path, pattern: str = r".*") -> Iterator[Bundle]:
    """The checkpoint of an `.index` file, or the only one of a zip whose name matches `pattern`.

    Nothing of a zip is unpacked to disk, so no member's name can lead anywhere.

    Raises:
        WeightsError: no, or several, such checkpoints; or a malformed index.
    """
    if path.suffix == ".index":
        stem = path.with_suffix("")
        yield _bundle(str(stem), lambda name: open(name, "rb"))  # noqa: PTH123, SIM115
        return
    with _translated(str(path)):
        archive = zipfile.ZipFile(path)
    with archive:
        names = [n.removesuffix(".index") for n in archive.namelist() if n.endswith(".index")]
        matching = [n for n in names if re.fullmatch(pattern, n.rpartition("/")[2])]
        if len(matching) != 1:
            raise _refuse(
                str(path),
                f"holds {len(matching)} checkpoints named {pattern} ({', '.join(names[:4]) or 'none'})",
                "There must be one",
            )
        yield _bundle(matching[0], lambda name: archive.open(name))


def _bundle(
    name: str, open_member: Callable[[str], "contextlib.AbstractContextManager[IO[bytes]]"]
) -> Bundle:
    with _translated(name + ".index"):
        with open_member(name + ".index") as file:
            data = file.read(_MAX_INDEX_BYTES + 1)
        if len(data) > _MAX_INDEX_BYTES:
            raise Malformed("the index is too large")
        table = read(data)
        if b"" not in table:
            raise Malformed("the header is missing")
        header = _fields(table.pop(b""))
        if _number(header, 2):
            raise Malformed("the numbers are big-endian")
        entries = {key.decode("utf-8"): _entry(value) for key, value in table.items()}
    return Bundle(name, entries, _number(header, 1), open_member)


def _entry(data: bytes) -> Entry:
    fields = _fields(data)
    if 7 in fields:
        raise Malformed("a variable is stored in slices")
    shape = tuple(_number(_fields(_bytes(dim)), 1) for dim in _fields(_last(fields, 2)).get(2, []))
    return Entry(
        _number(fields, 1),
        shape,
        _number(fields, 3),
        _number(fields, 4),
        _number(fields, 5),
        _number(fields, 6),
    )


def _tensor(file: IO[bytes], name: str, entry: Entry) -> np.ndarray:
    if entry.dtype not in _TYPES:
        raise Malformed(f"{name} is of type {entry.dtype}, which is no number")
    dtype = np.dtype(_TYPES[entry.dtype])
    if math.prod(entry.shape) * dtype.itemsize != entry.size or entry.size > _MAX_TENSOR_BYTES:
        raise Malformed(f"{name} has {entry.size} bytes for shape {entry.shape}")
    file.seek(entry.offset)
    data = file.read(entry.size)
    if len(data) != entry.size:
        raise Malformed(f"{name} runs past the end of its shard")
    if crc32c(data) != entry.crc:
        raise Malformed(f"the checksum of {name} is wrong")
    return np.frombuffer(data, dtype).reshape(entry.shape)


# --- protocol buffers: only what these three messages use ---------------------------------------------


def _fields(data: bytes) -> _Fields:
    """Field number -> its values in order; lengths and checks as protobuf's encoding demands."""
    fields: _Fields = {}
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = varint(data, at)
        else:
            if kind == 2:
                size, at = varint(data, at)
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
            else:
                raise Malformed(f"a field of kind {kind}")
            if at + size > len(data):
                raise Malformed("a field runs past the end")
            value = data[at : at + size] if kind == 2 else int.from_bytes(data[at : at + size], "little")
            at += size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(fields: _Fields, field: int) -> int:
    value = fields.get(field, [0])[-1]
    if not isinstance(value, int) or value >> 63:
        raise Malformed(f"field {field} is no natural number")
    return value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise Malformed("a message was expected")
    return value


def _last(fields: _Fields, field: int) -> bytes:
    return _bytes(fields.get(field, [b""])[-1])


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    try:
        yield
    except Malformed as error:
        raise _refuse(where, f"is damaged ({error})", "It must be a whole TensorFlow checkpoint") from error
    except zipfile.BadZipFile as error:
        raise _refuse(where, f"is no whole zip ({error})", "The checkpoint lies in a zip") from error
    except KeyError as error:
        raise _refuse(where, "is missing in the zip", "Index and data belong together") from error
    # zlib's own error, and what zipfile raises for passwords and unknown compressions.
    except (OSError, UnicodeDecodeError, RuntimeError, EOFError, zlib.error) as error:
        raise _refuse(where, f"cannot be read ({error})", "Index and data must be there") from error


def _refuse(where: str, found: str, rule: str) -> WeightsError:
    return WeightsError(f"{where} {found}", rule, "fetch it again")
