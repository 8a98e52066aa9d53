"""ZIP archives: members stored or deflated, read in place, checksums verified."""

import os
import struct
import zipfile
import zlib
from dataclasses import astuple, dataclass
from typing import Any, Self

from stores.members.parts import MemberError, check_size, no_member, read_at

_ENCRYPTED = 1
_LOCAL = struct.Struct("<4s22xHH")


@dataclass(frozen=True, slots=True)
class Entry:
    """A member as the central directory states it: offset of its local header, sizes in bytes, CRC-32."""

    offset: int
    packed: int
    size: int
    method: int
    crc: int
    encrypted: bool


class Zip:
    """The index of an archive. `entries`: name -> entry, in the archive's order; of equal names the last."""

    def __init__(self, file: int) -> None:
        try:
            with os.fdopen(os.dup(file), "rb") as stream, zipfile.ZipFile(stream) as archive:
                found = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
            raise MemberError("corrupt", "not a ZIP archive, or a damaged one") from error
        self.entries = {
            info.filename.removeprefix("./"): Entry(
                info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC,
                bool(info.flag_bits & _ENCRYPTED),
            )
            for info in found
            if not info.is_dir()
        }  # fmt: skip

    def describe(self) -> Any:
        """The index as JSON types: names, then each attribute of the entries."""
        return [list(self.entries), *zip(*map(astuple, self.entries.values()), strict=True)]

    @classmethod
    def described(cls, found: Any) -> Self:
        """The index that `describe` gave."""
        self = cls.__new__(cls)
        self.entries = {name: Entry(*entry) for name, *entry in zip(*found, strict=True)}
        return self

    def entry(self, member: str) -> Entry:
        """Raises MemberError if there is none."""
        found = self.entries.get(member)
        if found is None:
            raise no_member()
        if found.encrypted or found.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            what = "encrypted" if found.encrypted else f"packed by method {found.method}, not by deflate"
            raise MemberError("undecodable", f"it is {what} in its ZIP archive")
        return found

    def size(self, member: str) -> int:
        """See `Container.size`."""
        return self.entry(member).size

    def start(self, file: int, entry: Entry) -> int:
        """Offset of a member's data in the file."""
        magic, name, extra = _LOCAL.unpack(read_at(file, entry.offset, _LOCAL.size))
        if magic != b"PK\3\4":
            raise MemberError("corrupt", "its ZIP archive is damaged")
        return int(entry.offset + _LOCAL.size + name + extra)

    def read(self, file: int, member: str, max_bytes: int) -> bytes:
        """See `Container.read`."""
        entry = self.entry(member)
        check_size(max(entry.size, entry.packed), max_bytes)
        start = self.start(file, entry)
        if entry.method == zipfile.ZIP_DEFLATED:
            data = self.inflate(file, start, entry)
        else:
            data = read_at(file, start, entry.packed)
        if len(data) != entry.size or zlib.crc32(data) != entry.crc:
            raise MemberError("corrupt", "its size or checksum in the ZIP archive is wrong")
        return data

    def inflate(self, file: int, start: int, entry: Entry) -> bytes:
        """Unpacked data, of at most one byte more than promised: that tells a liar."""
        return inflated(file, start, entry.packed, entry.size)


def inflated(file: int, start: int, packed: int, size: int) -> bytes:
    """Unpack a stretch of bare deflate, no further than to one byte more than `size`.

    Raises:
        MemberError: truncated, corrupt.
    """
    try:
        return zlib.decompressobj(-15).decompress(read_at(file, start, packed), size + 1)
    except zlib.error as error:
        raise MemberError("corrupt", f"its packed data are damaged ({error})") from error
