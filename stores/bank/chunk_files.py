"""The chunk files of an array, for readers that copy all of it, such as an upload to a device.

The mapped array of `stores.bank.reader` shows no checksums. Here the bytes of a chunk are read into memory of
the caller, who adds up their CRC-32C as they pass; `check` compares it with the one that ends the file.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from stores.backends import disk
from stores.bank import integrity
from stores.bank.layout import CHECKSUM
from stores.errors import BankError


@dataclass(frozen=True)
class ChunkFiles:
    """Chunk files on this machine, a bank's own or fetched copies.

    Attributes:
        feature: full name.
        relatives: of the chunks in order, relative to the bank.
        paths: where they lie.
        payload: bytes of a chunk, without its checksum; the last one is padded to as many.
        size: bytes of the array, without that padding.
        remedy: what helps where one is damaged.
    """

    feature: str
    relatives: tuple[str, ...]
    paths: tuple[Path, ...]
    payload: int
    size: int
    remedy: str

    def read_into(self, index: int, start: int, into: memoryview) -> None:
        """Fill a buffer with the bytes of a chunk from `start` on. Releases the interpreter.

        Raises:
            BankError: the file is missing or too short. PathRefused: it is no plain file.
            MachineFault: I/O error.
        """
        path = self.paths[index]
        with disk.faults(path):
            descriptor = disk.open_plain(path)
            try:
                while len(into):
                    count = os.preadv(descriptor, [into], start)
                    if not count:
                        raise self.damaged(index, "too short")
                    start, into = start + count, into[count:]
            finally:
                os.close(descriptor)

    def check(self, index: int, crc: int) -> None:
        """Compare the CRC-32C of a chunk's payload with the one that its file ends with.

        Raises:
            BankError: they differ. Otherwise as `read_into`.
        """
        stored = bytearray(CHECKSUM)
        self.read_into(index, self.payload, memoryview(stored))
        if int.from_bytes(stored, "little") != crc:
            raise self.damaged(index, "content differs from its CRC-32C")

    def damaged(self, index: int, reason: str) -> BankError:
        """Return the error that names a damaged chunk."""
        return integrity.damaged(self.feature, self.relatives[index], reason, self.remedy)


def extended(crc: int, data: memoryview) -> int:
    """Return the CRC-32C of what `crc` is of, followed by these bytes; 0 is that of none."""
    import numpy as np
    from google_crc32c import extend

    return int(extend(crc, np.frombuffer(data, np.uint8)))
