"""Uncompressed TAR archives; a compressed one would have to be inflated up to every member that is read."""

import os
import tarfile
from typing import Any, Self

from stores.members.parts import MemberError, check_size, no_member, read_at


class Tar:
    """The index of an archive.

    Attributes:
        entries: name -> (offset of the data, size); if a name is repeated, its last member counts.
    """

    def __init__(self, file: int) -> None:
        self.entries: dict[str, tuple[int, int]] = {}
        os.lseek(file, 0, os.SEEK_SET)
        try:
            with os.fdopen(os.dup(file), "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
                for info in archive:
                    if info.isreg() and not info.issparse():
                        self.entries[info.name.removeprefix("./")] = info.offset_data, info.size
                    # `tarfile` would keep a kilobyte for each member.
                    archive.members = []  # type: ignore[attr-defined]
        except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
            if not self.entries:  # otherwise the members before the damage can still be read
                detail = "not a TAR archive without compression, or a damaged one"
                raise MemberError("corrupt", detail) from error

    def describe(self) -> Any:
        """Return the index as JSON types: names, offsets, sizes."""
        offsets, sizes = zip(*self.entries.values(), strict=True) if self.entries else ((), ())
        return [list(self.entries), offsets, sizes]

    @classmethod
    def from_description(cls, description: Any) -> Self:
        """Make the index that `describe` returned."""
        self = cls.__new__(cls)
        names, offsets, sizes = description
        self.entries = dict(zip(names, zip(offsets, sizes, strict=True), strict=True))
        return self

    def _entry(self, member: str) -> tuple[int, int]:
        entry = self.entries.get(member)
        if entry is None:
            raise no_member()
        return entry

    def size(self, member: str) -> int:
        """See `Container.size`."""
        return self._entry(member)[1]

    def read(self, file: int, member: str, max_bytes: int) -> bytes:
        """See `Container.read`."""
        offset, size = self._entry(member)
        check_size(size, max_bytes)
        return read_at(file, offset, size)
