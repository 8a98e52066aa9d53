"""The child process that reads containers for its parent, so that a hostile file can harm nothing else.

The parent (`stores.members.pool`) sends a question and an open descriptor, and receives the data or the
reason why there are none. The kernel ends this process if a file takes more processor time or memory than
its budget.
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
from typing import Any, NoReturn, TypedDict

from stores.members.batches import CifarBatch
from stores.members.npz import Npz
from stores.members.parts import MemberError, check_size
from stores.members.tars import Tar
from stores.members.volumes import Volume
from stores.members.zips import Zip, inflate

#: Exit status of a process that ran out of its address space.
NO_MEMORY = 77
#: Headers: the bytes of a question's JSON; the bytes of an answer's JSON and of the data after it.
QUESTION, ANSWER = struct.Struct("<Q"), struct.Struct("<QQ")
#: Bytes that a read may hold for each byte of the member: as stored in the file, as samples, and as an image.
_COPIES = 6
#: Number of containers whose indexes are kept, with the blocks that they have unpacked.
_KEPT = 4
#: Longest text about a failure.
_MAX_DETAIL = 200
#: Errors caused by the storage rather than by the file's content.
_STORAGE = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.ENOTCONN,
    errno.EHOSTDOWN, errno.EREMOTEIO, errno.EACCES, errno.EPERM,
}  # fmt: skip

OPENERS: dict[str, Callable[[int], Any]] = {
    "zip": Zip, "tar": Tar, "npz": Npz, "mha": Volume, "batch": CifarBatch,
}  # fmt: skip


class Question(TypedDict, total=False):
    """A question to the child.

    Attributes:
        do: `index`, `read`, `inflate` or `array`.
        kind: of the container, a key of `OPENERS` (index, read).
        member: name of the member or array (read, array).
        max_bytes: largest size that is accepted (read, array).
        start, packed: offset and length of a deflate stream (inflate).
        size: of the inflated data (inflate).
        seconds, bytes: budget of processor time and address space.
    """

    do: str
    kind: str
    member: str
    max_bytes: int
    start: int
    packed: int
    size: int
    seconds: float
    bytes: int


class Answer(TypedDict, total=False):
    """The JSON part of an answer: a result, a failure of the member, or an error of the storage.

    Attributes:
        result: description of an index or array; None for the bytes of a member.
        code, detail: of a `MemberError`.
        errno: of an `OSError`.
    """

    result: Any
    code: str
    detail: str
    errno: int


class _Indexes:
    """The containers read from last."""

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


def _index(indexes: _Indexes, file: int, question: Question) -> tuple[Any, bytes]:
    kind = question["kind"]
    # The parent gets the complete index of an archive, so that it is not needed here any more.
    container = OPENERS[kind](file) if kind in ("tar", "zip") else indexes.of(file, kind)
    return container.describe(), b""


def _read(indexes: _Indexes, file: int, question: Question) -> tuple[Any, bytes]:
    container = indexes.of(file, question["kind"])
    size = container.size(question["member"])
    check_size(size, question["max_bytes"])
    _limit(question["seconds"], question["bytes"] + _COPIES * size)
    return None, container.read(file, question["member"], question["max_bytes"])


def _inflate(indexes: _Indexes, file: int, question: Question) -> tuple[Any, bytes]:
    """Inflate a raw deflate stream of a ZIP archive, whose index the parent has."""
    packed, size = question["packed"], question["size"]
    _limit(question["seconds"], question["bytes"] + packed + _COPIES * size)
    return None, inflate(file, question["start"], packed, size)


def _array(indexes: _Indexes, file: int, question: Question) -> tuple[Any, bytes]:
    """Read a complete array of numbers, such as labels."""
    numbers = Npz(file).array(file, question["member"], question["max_bytes"])
    return {"dtype": numbers.dtype.str, "shape": numbers.shape}, numbers.tobytes()


_ACTIONS = {"index": _index, "read": _read, "inflate": _inflate, "array": _array}


def _answer(indexes: _Indexes, file: int, question: Question) -> tuple[Answer, bytes]:
    try:
        result, data = _ACTIONS[question["do"]](indexes, file, question)
        return {"result": result}, data
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
    except (
        Exception
    ) as error:  # damaged files make readers raise nearly anything; that is what the child is for
        return {"code": "corrupt", "detail": f"a damaged file ({type(error).__name__})"}, b""


def _line(text: str) -> str:
    """Return text as one short printable line: it may quote the file."""
    text = text if len(text) <= _MAX_DETAIL else f"{text[:_MAX_DETAIL]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _limit(seconds: float, size: int) -> None:
    """Limit processor time and address space; 0 lifts a limit.

    Args:
        seconds: of processor time, in Python or C code; waiting for storage does not count.
        size: bytes of address space.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_AS, (min(size, most) if size else hard, hard))


def _receive(channel: socket.socket) -> tuple[int, Question] | None:
    """Wait for a descriptor and a question; None when the parent has gone."""
    ancillary_size = socket.CMSG_LEN(array.array("i").itemsize)
    head, control, _, _ = channel.recvmsg(QUESTION.size, ancillary_size)
    if len(head) < QUESTION.size or not control:
        return None
    file = array.array("i", control[0][2])[0]
    (length,) = QUESTION.unpack(head)
    text = channel.recv(length, socket.MSG_WAITALL)
    return (file, json.loads(text)) if len(text) == length else None


def _serve(channel: socket.socket) -> NoReturn:
    """Answer questions until the parent has gone."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    indexes = _Indexes()
    with contextlib.suppress(ConnectionError):  # the parent may go at any moment
        channel.sendall(b"+")
        while received := _receive(channel):
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
