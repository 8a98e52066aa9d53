"""What all containers share: their error, reading at an offset, and random access to packed data."""

import os
import sys
import threading
import zlib
from collections import OrderedDict

_INPUT = 1 << 18
#: So many bytes of memory are no matter, should they not be there to be read.
_LARGE = 1 << 22


class MemberError(Exception):
    """One member cannot be had.

    Args:
        code: `missing`, `truncated`, `corrupt`, `too_large` or `undecodable`.
        detail: one line; no path outside the root, no newline.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(f"{code}: {detail}")


def no_member() -> MemberError:
    """What every container says of a name it does not know."""
    return MemberError("missing", "no such member in the file")


def check_size(size: int, max_bytes: int) -> None:
    """Refuse to hold more than `max_bytes`."""
    if size > max_bytes:
        raise MemberError("too_large", f"{size} bytes when unpacked, the limit is {max_bytes}")


def read_at(file: int, offset: int, size: int) -> bytes:
    """Exactly `size` bytes at `offset`, without moving the file's position.

    Raises:
        MemberError: truncated.
    """
    # A header may state any number: more than there is must not be asked of the kernel, or of memory.
    large = size > _LARGE or offset + size > sys.maxsize
    if offset < 0 or size < 0 or (large and offset + size > os.fstat(file).st_size):
        raise MemberError("truncated", "the archive or volume ends within this member")
    if not size:
        return b""
    pieces = []
    while size > 0:
        piece = os.pread(file, min(size, 1 << 30), offset)
        if not piece:
            raise MemberError("truncated", "the archive or volume ends within this member")
        pieces.append(piece)
        offset, size = offset + len(piece), size - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Packed:
    """Random access to one deflate stream.

    The unpacker's state is kept at every block's start once it has been passed (40 kB for 8 MiB), so that a
    read anywhere unpacks one block, and few blocks are kept. A checksum over the whole is not verified.

    Args:
        start, length: of the stream in the file, in bytes.
        size: of the unpacked data.
        bits: zlib's `wbits`: -15 for bare deflate (ZIP), 15 with zlib's header.
        kept: unpacked blocks kept.
    """

    BLOCK = 8 << 20

    def __init__(self, start: int, length: int, size: int, *, bits: int, kept: int) -> None:
        self._start, self._length, self._size, self._kept = start, length, size, kept
        self._states = [(zlib.decompressobj(bits), 0)]
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, file: int, offset: int, size: int) -> bytes:
        """`size` unpacked bytes at `offset`.

        Raises:
            MemberError: truncated, corrupt.
        """
        pieces = []
        with self._lock:
            while size > 0:
                block, at = divmod(offset, self.BLOCK)
                piece = self._block(file, block)[at : at + size]
                if not piece:
                    raise MemberError("truncated", "its packed data end too early")
                pieces.append(piece)
                offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces)

    def _block(self, file: int, block: int) -> bytes:
        while len(self._states) <= block:
            self._unpack(file, len(self._states) - 1)
        unpacked = self._blocks.pop(block, None)
        if unpacked is None:
            unpacked = self._unpack(file, block)
        self._blocks[block] = unpacked
        while len(self._blocks) > self._kept:
            self._blocks.popitem(last=False)
        return unpacked

    def _unpack(self, file: int, block: int) -> bytes:
        """One block; remembers the state after it."""
        state, at = self._states[block]
        unpacker = state.copy()
        wanted = min(self.BLOCK, self._size - block * self.BLOCK)
        unpacked = bytearray()
        while len(unpacked) < wanted and not unpacker.eof:
            # Nothing left to read may still leave something to unpack.
            packed = read_at(file, self._start + at, min(_INPUT, self._length - at))
            try:
                piece = unpacker.decompress(packed, wanted - len(unpacked))
            except zlib.error as error:
                raise MemberError("corrupt", f"its packed data are damaged ({error})") from error
            if not piece and not packed:
                break
            at += len(packed) - len(unpacker.unconsumed_tail)
            unpacked += piece
        if len(unpacked) < wanted:
            raise MemberError("truncated", "its packed data end too early")
        if len(self._states) == block + 1:
            self._states.append((unpacker, at))
        return bytes(unpacked)
