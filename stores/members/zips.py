"""ZIP archives with stored or deflated members, read in place, their checksums verified."""

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
    """A member as the central directory states it.

    Attributes:
        offset: of its local header.
        packed, size: bytes in the archive, and uncompressed.
        method: of compression, as `zipfile` numbers it.
        crc: CRC-32 of the uncompressed data.
        encrypted: whether it is.
    """

    offset: int
    packed: int
    size: int
    method: int
    crc: int
    encrypted: bool


class Zip:
    """The index of an archive.

    Attributes:
        entries: name -> entry, in the archive's order; if a name is repeated, its last member counts.
    """

    def __init__(self, file: int) -> None:
        try:
            with os.fdopen(os.dup(file), "rb") as stream, zipfile.ZipFile(stream) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
            raise MemberError("corrupt", "not a ZIP archive, or a damaged one") from error
        self.entries = {
            info.filename.removeprefix("./"): Entry(
                info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC,
                bool(info.flag_bits & _ENCRYPTED),
            )
            for info in infos
            if not info.is_dir()
        }  # fmt: skip

    def describe(self) -> Any:
        """Return the index as JSON types: names, then the values of each attribute of the entries."""
        return [list(self.entries), *zip(*map(astuple, self.entries.values()), strict=True)]

    @classmethod
    def from_description(cls, description: Any) -> Self:
        """Make the index that `describe` returned."""
        self = cls.__new__(cls)
        self.entries = {name: Entry(*entry) for name, *entry in zip(*description, strict=True)}
        return self

    def entry(self, member: str) -> Entry:
        """Return the entry of a member.

        Raises:
            MemberError: missing, or undecodable if it is encrypted or compressed by another method.
        """
        entry = self.entries.get(member)
        if entry is None:
            raise no_member()
        if entry.encrypted or entry.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            what = "encrypted" if entry.encrypted else f"packed by method {entry.method}, not by deflate"
            raise MemberError("undecodable", f"it is {what} in its ZIP archive")
        return entry

    def size(self, member: str) -> int:
        """See `Container.size`."""
        return self.entry(member).size

    def start(self, file: int, entry: Entry) -> int:
        """Return the offset of a member's data in the file. Raises MemberError."""
        magic, name_length, extra_length = _LOCAL.unpack(read_at(file, entry.offset, _LOCAL.size))
        if magic != b"PK\3\4":
            raise MemberError("corrupt", "its ZIP archive is damaged")
        return int(entry.offset + _LOCAL.size + name_length + extra_length)

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
        """Inflate a member's data, up to one byte more than its stated size, so that a false one shows."""
        return inflate(file, start, entry.packed, entry.size)


def inflate(file: int, start: int, packed: int, size: int) -> bytes:
    """Inflate a raw deflate stream, to at most one byte more than `size`.

    Args:
        file: descriptor of the archive.
        start, packed: offset and length of the stream.
        size: expected length of the data.

    Raises:
        MemberError: truncated, corrupt.
    """
    try:
        return zlib.decompressobj(-15).decompress(read_at(file, start, packed), size + 1)
    except zlib.error as error:
        raise MemberError("corrupt", f"its packed data are damaged ({error})") from error
