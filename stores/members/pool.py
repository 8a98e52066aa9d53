"""The child processes that index containers and read compressed ones.

A pickle can loop inside one call into C, an index can ask for more memory than there is, and neither leaves
Python a chance to handle Ctrl-C. Hence a child reads them (`stores.members.child`), with a budget of
processor time and address space that grows with the file; the kernel ends a child that exceeds it, and only
the members of that container fail. A child that dies is replaced, and a new one gets the question once more,
so that no failure depends on the files read before.
"""

import array
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from stores.errors import MachineFault
from stores.members.child import ANSWER, NO_MEMORY, QUESTION, Question
from stores.members.parts import MemberError

#: Budget of processor time: seconds for any file, and for each GiB (enough for a TAR archive of small files).
_SECONDS, _SECONDS_A_GIB = 10.0, 60.0
#: Budget of address space: bytes for libraries and inflated data, for each byte of the file, and its limit.
_BYTES, _BYTES_A_BYTE, _MOST_FOR_FILE = 2 << 30, 4, 16 << 30
#: Limit of an answer's JSON: bytes for each byte of the file, whose names an index repeats, and for any file.
_TEXT_A_BYTE, _TEXT = 8, 1 << 20
#: Largest number of children.
_MAX_CHILDREN = 16
#: Seconds for which an interruption stops all reading.
_STOPPED = 1.0


class _ChildDied(Exception):
    """A child that ended before it answered.

    Attributes:
        signal: the signal that ended it, 0 if none.
        code, detail: of the `MemberError` to raise if a second child dies too.
    """

    def __init__(self, status: int, seconds: float, size: int) -> None:
        self.signal = max(0, -status)
        self.code, self.detail = "decoder_died", f"the process that reads its container ended ({status})"
        if self.signal == signal.SIGPROF:
            self.code = "too_slow"
            self.detail = f"reading its container takes more than {seconds:.0f} s of processor time"
        elif status == NO_MEMORY:
            self.code = "too_much_memory"
            self.detail = f"reading its container takes more than {size >> 20} MiB"
        super().__init__(self.detail)


class _Child:
    """One child process; only one thread at a time may ask it."""

    def __init__(self) -> None:
        # OpenBLAS would start threads, each of which takes address space.
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        env["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100
        try:
            self._channel, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "stores.members.child", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=env,
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # Ctrl-C is meant for this process alone
                )
        except OSError as error:
            raise _not_started(error.strerror or str(error)) from error
        if self._channel.recv(1) != b"+":
            raise _not_started(f"it ended with status {self.end()}")

    def ask(self, file: int, question: Question, max_text: int, max_data: int) -> tuple[Any, bytes]:
        """Send a question and return the answer: decoded JSON and data.

        Args:
            file: descriptor to send along.
            question: with its budget.
            max_text: bytes of JSON that the answer may have.
            max_data: bytes of data that it may have.

        Raises:
            _ChildDied: the child ended, or its answer is malformed or too long.
        """
        body = json.dumps(question).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))]
        try:
            self._channel.sendmsg([QUESTION.pack(len(body))], rights)
            self._channel.sendall(body)
            length, size = ANSWER.unpack(self._read(ANSWER.size))
            if length > max_text or size > max_data:
                raise ValueError
            return json.loads(self._read(length)), bytes(self._read(size))
        except (EOFError, OSError, ValueError):
            raise _ChildDied(self.end(), question["seconds"], question["bytes"]) from None
        except BaseException:  # interrupted in the middle of an answer
            self.kill()
            self.end()
            raise

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            count = self._channel.recv_into(view)
            if not count:
                raise EOFError
            view = view[count:]
        return data

    def kill(self) -> None:
        """Kill the child at once."""
        self._process.kill()

    def leave(self) -> None:
        """Close this process's end of the channel."""
        self._channel.close()

    def end(self) -> int:
        """Close the channel, wait for the child to end, and return its exit status."""
        self._channel.close()
        try:
            return self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return 0


class _Seat:
    """The place of one child, which is started when it is first needed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.child: _Child | None = None


class Readers:
    """The children of this process, in numbered seats; safe to share between threads; they end with it."""

    def __init__(self) -> None:
        self._seats = [_Seat() for _ in range(min(_MAX_CHILDREN, os.cpu_count() or 1))]
        self._stopped_at = float("-inf")

    def seat(self, number: int) -> int:
        """Return the seat for any number; questions to one seat are answered by one child, while it lives."""
        return number % len(self._seats)

    def ask(self, file: int, question: Question, seat: int = 0, *, max_data: int = 0) -> tuple[Any, bytes]:
        """Have a child do something with an open file.

        Args:
            file: its descriptor.
            question: without its budget, which is added here.
            seat: of the child.
            max_data: bytes of data that the answer may have.

        Returns:
            (the result, as JSON types; the data).

        Raises:
            MemberError: raised by the child, or its end: too_slow, too_much_memory, decoder_died.
            OSError: the file cannot be read.
            MachineFault: no child can be started, children are killed from outside, or reading was
                interrupted.
        """
        size = os.fstat(file).st_size
        question = {
            **question,
            "seconds": _SECONDS + _SECONDS_A_GIB * size / (1 << 30),
            "bytes": _BYTES + min(_BYTES_A_BYTE * size, _MOST_FOR_FILE),
        }
        max_text = _TEXT + _TEXT_A_BYTE * size
        place = self._seats[seat]
        with place.lock:
            try:
                answer, data = self._ask_seat(place, file, question, max_text, max_data)
            except _ChildDied as first:
                if first.signal == signal.SIGPROF:  # due to this file, and expensive to repeat
                    raise MemberError(first.code, first.detail) from None
                answer, data = self._retry(place, file, question, max_text, max_data)
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        if "code" in answer:
            raise MemberError(str(answer["code"]), str(answer["detail"]))
        return answer["result"], data

    def _retry(
        self, place: _Seat, file: int, question: Question, max_text: int, max_data: int
    ) -> tuple[Any, bytes]:
        try:
            return self._ask_seat(place, file, question, max_text, max_data)
        except _ChildDied as second:
            if second.signal == signal.SIGKILL:
                raise _killed() from None
            raise MemberError(second.code, second.detail) from None

    def _ask_seat(
        self, place: _Seat, file: int, question: Question, max_text: int, max_data: int
    ) -> tuple[Any, bytes]:
        """Ask the child of a seat, starting one if there is none."""
        self._refuse_stopped()
        child = place.child = place.child or _Child()
        try:
            return child.ask(file, question, max_text, max_data)
        except BaseException:
            place.child = None
            self._refuse_stopped()
            raise

    def _refuse_stopped(self) -> None:
        if time.monotonic() - self._stopped_at < _STOPPED:
            raise MachineFault(
                "Reading images was interrupted",
                "Rows that were not read are not marked failed",
                "run the same command again; committed chunks are kept",
            )

    def abandon(self) -> None:
        """End all reading, in all threads: the run was interrupted, and its results are not wanted."""
        self._stopped_at = time.monotonic()
        for seat in self._seats:
            if (child := seat.child) is not None:
                with contextlib.suppress(OSError):
                    child.kill()

    def forget(self) -> None:
        """Drop the children in a forked copy of this process, to which they do not belong."""
        for seat in self._seats:
            if seat.child is not None:
                seat.child.leave()
        self._seats = [_Seat() for _ in self._seats]


def _killed() -> MachineFault:
    return MachineFault(
        "Processes that read archives were killed from outside (SIGKILL), perhaps because memory ran out",
        "A fault of the machine must not mark an image as bad",
        "free memory, or use fewer threads (`embank embed --threads N`), then run the same command again; "
        "committed chunks are kept",
    )


def _not_started(reason: str) -> MachineFault:
    return MachineFault(
        f"A process for reading archives could not be started ({reason})",
        "Archives, arrays and volumes are read in processes of their own",
        "end other processes or free memory, then run the same command again; committed chunks are kept",
    )


readers = Readers()
os.register_at_fork(after_in_child=readers.forget)
