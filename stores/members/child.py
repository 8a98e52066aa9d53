"""The disposable process that reads containers, from its own side: nothing a file says reaches its parent.

The parent (`stores.members.pool`) sends a question and an open descriptor, and gets back what was asked
for or why it cannot be had. The kernel ends this process if a file takes more processor time or memory than
it was granted.
"""

import array
import contextlib
import errno
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NoReturn

from stores.members.batches import CifarBatch
from stores.members.npz import Npz
from stores.members.parts import MemberError, check_size
from stores.members.tars import Tar
from stores.members.volumes import Volume
from stores.members.zips import Zip, inflated

#: Exit status of a process that ran out of its address space.
NO_MEMORY = 77
#: Bytes of a question; bytes of an answer's JSON and of the data behind it.
QUESTION, ANSWER = struct.Struct("<Q"), struct.Struct("<QQ")
#: What a read may hold for each byte of the member: as it lies in the file, as samples, and as an image file.
_COPIES = 6
#: Containers whose indexes are kept, with what they have unpacked.
_KEPT = 4
#: Longest text about a failure.
_DETAIL = 200
#: Errors that the storage, not the file's content, is the cause of.
_STORAGE = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.ENOTCONN,
    errno.EHOSTDOWN, errno.EREMOTEIO, errno.EACCES, errno.EPERM,
}  # fmt: skip

OPENERS: dict[str, Callable[[int], Any]] = {
    "zip": Zip, "tar": Tar, "npz": Npz, "mha": Volume, "batch": CifarBatch,
}  # fmt: skip


class _Indexes:
    """The containers last read from."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def of(self, file: int, kind: str) -> Any:
        state = os.fstat(file)
        key = state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, kind
        known = self._known.pop(key, None) or OPENERS[kind](file)
        self._known[key] = known
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return known


def _index(indexes: _Indexes, file: int, question: dict[str, Any]) -> tuple[Any, bytes]:
    kind = question["kind"]
    # An archive's index goes to the parent whole, and is of no more use here.
    container = OPENERS[kind](file) if kind in ("tar", "zip") else indexes.of(file, kind)
    return container.describe(), b""


def _read(indexes: _Indexes, file: int, question: dict[str, Any]) -> tuple[Any, bytes]:
    container = indexes.of(file, question["kind"])
    size = container.size(question["member"])
    check_size(size, question["max_bytes"])
    _limit(question["seconds"], question["bytes"] + _COPIES * size)
    return None, container.read(file, question["member"], question["max_bytes"])


def _inflate(indexes: _Indexes, file: int, question: dict[str, Any]) -> tuple[Any, bytes]:
    """A stretch of bare deflate of a ZIP archive, whose index the parent has."""
    packed, size = question["packed"], question["size"]
    _limit(question["seconds"], question["bytes"] + packed + _COPIES * size)
    return None, inflated(file, question["start"], packed, size)


def _array(indexes: _Indexes, file: int, question: dict[str, Any]) -> tuple[Any, bytes]:
    """A whole array of numbers, for labels."""
    found = Npz(file).array(file, question["member"], question["max_bytes"])
    return {"dtype": found.dtype.str, "shape": found.shape}, found.tobytes()


_DOES = {"index": _index, "read": _read, "inflate": _inflate, "array": _array}


def _answer(indexes: _Indexes, file: int, question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    try:
        found, data = _DOES[question["do"]](indexes, file, question)
        return {"found": found}, data
    except MemberError as error:
        return {"code": error.code, "detail": _line(error.detail)}, b""
    except OSError as error:
        if error.errno == errno.ENOMEM:
            os._exit(NO_MEMORY)
        if error.errno in _STORAGE:
            return {"errno": error.errno}, b""
        return {"code": "corrupt", "detail": "its header points to where no data can be"}, b""
    except MemoryError:
        os._exit(NO_MEMORY)
    except Exception as error:  # readers of damaged files raise nearly anything, and this process is for them
        return {"code": "corrupt", "detail": f"a damaged file ({type(error).__name__})"}, b""


def _line(text: str) -> str:
    """One short printable line: a detail may quote the file."""
    text = text if len(text) <= _DETAIL else f"{text[:_DETAIL]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _limit(seconds: float, size: int) -> None:
    """Grant processor time (in any code; waiting for storage costs none) and address space; 0: no limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_AS, (min(size, most) if size else hard, hard))


def _received(channel: socket.socket) -> tuple[int, dict[str, Any]] | None:
    """A descriptor and a question; None once the parent has gone."""
    room = socket.CMSG_LEN(array.array("i").itemsize)
    head, control, _, _ = channel.recvmsg(QUESTION.size, room)
    if len(head) < QUESTION.size or not control:
        return None
    file = array.array("i", control[0][2])[0]
    (length,) = QUESTION.unpack(head)
    text = channel.recv(length, socket.MSG_WAITALL)
    return (file, json.loads(text)) if len(text) == length else None


def _serve(channel: socket.socket) -> NoReturn:
    """Answer until the parent has gone."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    indexes = _Indexes()
    with contextlib.suppress(ConnectionError):  # the parent may go at any moment
        channel.sendall(b"+")
        while received := _received(channel):
            file, question = received
            try:
                _limit(question["seconds"], question["bytes"])
                answer, data = _answer(indexes, file, question)
                try:
                    text = json.dumps(answer).encode()
                except MemoryError:
                    os._exit(NO_MEMORY)
                _limit(0, 0)
            finally:
                os.close(file)
            channel.sendall(ANSWER.pack(len(text), len(data)) + text)
            channel.sendall(data)
    os._exit(0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
