"""Containers are indexed, and packed ones read, in child processes that a hostile file cannot outlive.

A pickle can loop inside one call into C, an index can ask for more memory than there is, and neither leaves
Python a chance to handle Ctrl-C. So a child does it (`stores.members.child`), within a budget of processor
time and address space that grows with the file; the kernel ends it beyond that, and only the members of that
container fail. A child that dies is replaced, and the question put once more to a fresh one, so that no
verdict depends on files before it.
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
from stores.members.child import ANSWER, NO_MEMORY, QUESTION
from stores.members.parts import MemberError

#: Processor seconds for any file, and for each GiB of it: a TAR archive of small members, read by Python.
_SECONDS, _SECONDS_A_GIB = 10.0, 60.0
#: Address space for the libraries and what they unpack; for each byte of the file, to a limit.
_BYTES, _BYTES_A_BYTE, _MOST_FOR_FILE = 2 << 30, 4, 16 << 30
#: Bytes of JSON for each byte of the file, and for any: an index repeats what the file holds, escaped.
_TEXT_A_BYTE, _TEXT = 8, 1 << 20
#: Children at most.
_MOST = 16
#: Seconds for which an interruption stops all reading.
_STOPPED = 1.0


class _Died(Exception):
    """A child ended before it answered. `signal`: by which signal, 0 by none; `code`, `detail`: a verdict."""

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
    """One child process. Not to be asked by two threads at once."""

    def __init__(self) -> None:
        # OpenBLAS would start threads, each with address space of its own.
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
                    process_group=0,  # Ctrl-C is for this process alone
                )
        except OSError as error:
            raise _not_started(error.strerror or str(error)) from error
        if self._channel.recv(1) != b"+":
            raise _not_started(f"it ended with status {self.end()}")

    def ask(self, file: int, question: dict[str, Any], longest: int, most: int) -> tuple[Any, bytes]:
        """The answer's JSON, of at most `longest` bytes, and at most `most` bytes of data.

        Raises:
            _Died: it ended, or its answer makes no sense.
        """
        body = json.dumps(question).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))]
        try:
            self._channel.sendmsg([QUESTION.pack(len(body))], rights)
            self._channel.sendall(body)
            length, size = ANSWER.unpack(self._read(ANSWER.size))
            if length > longest or size > most:
                raise ValueError
            return json.loads(self._read(length)), bytes(self._read(size))
        except (EOFError, OSError, ValueError):
            raise _Died(self.end(), question["seconds"], question["bytes"]) from None
        except BaseException:  # interrupted in the midst of an answer
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
        """End it at once, whatever it does."""
        self._process.kill()

    def leave(self) -> None:
        """Close this process's end of the channel."""
        self._channel.close()

    def end(self) -> int:
        """Close the channel; the exit status."""
        self._channel.close()
        try:
            return self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return 0


class _Seat:
    """Room for one child, which is started when there is need."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.child: _Child | None = None


class Readers:
    """The children of this process. Safe to share between threads; they end with this process."""

    def __init__(self) -> None:
        self._seats = [_Seat() for _ in range(min(_MOST, os.cpu_count() or 1))]
        self._stopped_at = float("-inf")

    def seat(self, number: int) -> int:
        """One of the seats for any number: who asks from the same seat again finds the same child."""
        return number % len(self._seats)

    def ask(self, file: int, do: str, seat: int = 0, *, most: int = 0, **question: Any) -> tuple[Any, bytes]:
        """Have a child do something with an open file.

        Args:
            file: its descriptor.
            do: `index`, `read`, `inflate` or `array` (`stores.members.child`).
            most: bytes of data that the answer may have.
            question: what else the child has to know.

        Returns:
            What was found, as JSON types, and the data.

        Raises:
            MemberError: what the child says, and too_slow, too_much_memory, decoder_died.
            OSError: the file cannot be read.
            MachineFault: no child can be started, somebody else kills them, or reading was interrupted.
        """
        size = os.fstat(file).st_size
        budget = {
            "seconds": _SECONDS + _SECONDS_A_GIB * size / (1 << 30),
            "bytes": _BYTES + min(_BYTES_A_BYTE * size, _MOST_FOR_FILE),
        }
        asked = {"do": do, **question, **budget}
        longest = _TEXT + _TEXT_A_BYTE * size
        place = self._seats[seat]
        with place.lock:
            try:
                answer, data = self._put(place, file, asked, longest, most)
            except _Died as first:
                if first.signal == signal.SIGPROF:  # its own doing, and dear to repeat
                    raise MemberError(first.code, first.detail) from None
                answer, data = self._again(place, file, asked, longest, most)
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        if "code" in answer:
            raise MemberError(str(answer["code"]), str(answer["detail"]))
        return answer["found"], data

    def _again(
        self, place: _Seat, file: int, asked: dict[str, Any], longest: int, most: int
    ) -> tuple[Any, bytes]:
        try:
            return self._put(place, file, asked, longest, most)
        except _Died as second:
            if second.signal == signal.SIGKILL:
                raise _killed() from None
            raise MemberError(second.code, second.detail) from None

    def _put(
        self, place: _Seat, file: int, asked: dict[str, Any], longest: int, most: int
    ) -> tuple[Any, bytes]:
        """Ask the seat's child, or a new one."""
        self._refuse_stopped()
        child = place.child = place.child or _Child()
        try:
            return child.ask(file, asked, longest, most)
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
        """End what is being read, in all threads: the run was interrupted, and nobody waits for it."""
        self._stopped_at = time.monotonic()
        for seat in self._seats:
            if (child := seat.child) is not None:
                with contextlib.suppress(OSError):
                    child.kill()

    def forget(self) -> None:
        """In a forked copy of this process: its parent's children are not its own."""
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
