"""What all containers share: their error, reading at an offset, and random access to deflated data."""

import os
import sys
import threading
import zlib
from collections import OrderedDict

_INPUT = 1 << 18  # compressed bytes read at a time
#: A read of up to this size may be tried without checking that the file has as many bytes.
_LARGE = 1 << 22


class MemberError(Exception):
    """A member that cannot be read.

    Args:
        code: `missing`, `truncated`, `corrupt`, `too_large` or `undecodable`; from a child process also
            `too_slow`, `too_much_memory` or `decoder_died`.
        detail: one line of text, without paths outside the root.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(f"{code}: {detail}")


def no_member() -> MemberError:
    """Return the error for a name that is not in the container."""
    return MemberError("missing", "no such member in the file")


def check_size(size: int, max_bytes: int) -> None:
    """Raise MemberError (too_large) for more than `max_bytes`."""
    if size > max_bytes:
        raise MemberError("too_large", f"{size} bytes when unpacked, the limit is {max_bytes}")


def read_at(file: int, offset: int, size: int) -> bytes:
    """Read exactly `size` bytes at `offset`, without moving the file's position.

    Raises:
        MemberError: truncated.
    """
    # A header may state any number: neither the kernel nor memory may be asked for more than the file has.
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


class DeflateStream:
    """Random access to a deflate stream.

    The decompressor's state at the start of each block is kept once it has been reached (40 kB for 8 MiB), so
    that any later read inflates only the blocks it touches. A checksum of the complete data is not verified.

    Args:
        start, length: of the stream in the file, in bytes.
        size: of the inflated data.
        bits: zlib's `wbits`: -15 for raw deflate (ZIP), 15 with zlib's header.
        kept: number of inflated blocks that are kept.
    """

    BLOCK = 8 << 20

    def __init__(self, start: int, length: int, size: int, *, bits: int, kept: int) -> None:
        self._start, self._length, self._size, self._kept = start, length, size, kept
        self._states = [(zlib.decompressobj(bits), 0)]
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, file: int, offset: int, size: int) -> bytes:
        """Return `size` inflated bytes at `offset`.

        Raises:
            MemberError: truncated, corrupt.
        """
        pieces = []
        with self._lock:
            while size > 0:
                block, within = divmod(offset, self.BLOCK)
                piece = self._block(file, block)[within : within + size]
                if not piece:
                    raise MemberError("truncated", "its packed data end too early")
                pieces.append(piece)
                offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces)

    def _block(self, file: int, block: int) -> bytes:
        while len(self._states) <= block:
            self._inflate(file, len(self._states) - 1)
        data = self._blocks.pop(block, None)
        if data is None:
            data = self._inflate(file, block)
        self._blocks[block] = data
        while len(self._blocks) > self._kept:
            self._blocks.popitem(last=False)
        return data

    def _inflate(self, file: int, block: int) -> bytes:
        """Inflate one block, and keep the state after it."""
        state, position = self._states[block]
        decompressor = state.copy()
        target_size = min(self.BLOCK, self._size - block * self.BLOCK)
        data = bytearray()
        while len(data) < target_size and not decompressor.eof:
            # At the end of the input the decompressor may still hold output.
            compressed = read_at(file, self._start + position, min(_INPUT, self._length - position))
            try:
                piece = decompressor.decompress(compressed, target_size - len(data))
            except zlib.error as error:
                raise MemberError("corrupt", f"its packed data are damaged ({error})") from error
            if not piece and not compressed:
                break
            position += len(compressed) - len(decompressor.unconsumed_tail)
            data += piece
        if len(data) < target_size:
            raise MemberError("truncated", "its packed data end too early")
        if len(self._states) == block + 1:
            self._states.append((decompressor, position))
        return bytes(data)
