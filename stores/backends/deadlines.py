"""Deadlines of requests, and interrupts of those who wait for one.

The library's calls react to no signal and have no limit for a whole request. So they are made in threads of
their own, which are abandoned when time is up. A request has `timeout` seconds for its answer. An arriving
body gets them anew with each MiB, so that a slow line can carry a large chunk, but a server that sends almost
nothing fails. The progress of a sent body is unknown: it gets a second more (by default) for each `SLOWEST`
bytes.
"""

import contextlib
import math
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from stores.errors import Refused

T = TypeVar("T")
Item = TypeVar("Item")

#: Environment variable with the seconds that a request may be without an answer.
TIMEOUT_VARIABLE = "EMBANK_STORE_TIMEOUT"
TIMEOUT_S = 30.0
#: Lowest upload rate that is allowed for, in bytes a second: a chunk of 64 MiB gets 256 s more than an empty
#: request.
SLOWEST = 256 << 10
#: An arriving body gets `timeout` anew with each block of so many bytes.
BLOCK = 1 << 20
#: Seconds in all for cleaning up after an interrupt, such as releasing leases.
GRACE_S = 1.0
_GLANCE_S = 0.1


class Silent(Exception):
    """A request that did not end in time."""


def timeout() -> float:
    """Return the seconds that a request may be without an answer: `EMBANK_STORE_TIMEOUT`, else 30.

    Raises:
        Refused: the variable is no number of seconds from 0.1 to 86,400.
    """
    stated = os.environ.get(TIMEOUT_VARIABLE) or str(TIMEOUT_S)
    with contextlib.suppress(ValueError):
        if 0.1 <= (seconds := float(stated)) <= 86_400:
            return seconds
    raise Refused(
        f"{TIMEOUT_VARIABLE}={stated!r}",
        "It is the seconds that a request to a bucket may be without an answer, from 0.1 to 86400",
        f"set it to a number such as {TIMEOUT_S:.0f}, or unset it",
    )


class Deadline:
    """When a request must have ended.

    Args:
        seconds: that a request without a body has for its answer.
        sent: bytes that the request carries; `SLOWEST` of them take a thirtieth of `seconds`.
    """

    def __init__(self, seconds: float, sent: int = 0) -> None:
        self.seconds = seconds + sent / SLOWEST * seconds / TIMEOUT_S
        self._progress = seconds
        self._until = time.monotonic() + self.seconds

    def move(self) -> None:
        """Give the request its seconds anew: another block of its answer is there."""
        self._until = time.monotonic() + self._progress

    def watch(self, blocks: Iterable[Item]) -> Iterator[Item]:
        """Pass on the blocks of a body as they arrive, each within the time for one."""
        for block in blocks:
            if self.left <= 0:
                raise Silent
            self.move()
            yield block

    @property
    def left(self) -> float:
        """Seconds until the end; less after an interrupt."""
        return min(self._until, _stop_at) - time.monotonic()


_stop_at = math.inf


def stop_soon(seconds: float = GRACE_S) -> None:
    """End every request of this process within `seconds`, later ones included. Safe in a signal handler."""
    global _stop_at
    _stop_at = min(_stop_at, time.monotonic() + seconds)


def go_on() -> None:
    """Take back `stop_soon`."""
    global _stop_at
    _stop_at = math.inf


@contextlib.contextmanager
def stopped() -> Iterator[None]:
    """End the requests of all threads soon, for as long as the body lasts."""
    global _stop_at
    before = _stop_at
    stop_soon()
    try:
        yield
    finally:
        _stop_at = before


def sleep(seconds: float) -> None:
    """Sleep, but not past an interrupt."""
    until = time.monotonic() + seconds
    while (left := min(until, _stop_at) - time.monotonic()) > 0:
        time.sleep(min(left, _GLANCE_S))


def run(request: Callable[[], T], deadline: Deadline) -> T:
    """Make a request in another thread, and wait for its end.

    Raises:
        Silent: the deadline has passed, and the request is left to itself. Whatever the request raises.
    """
    if deadline.left <= 0:
        raise Silent
    future = _free_worker().submit(request)
    while not future.done():
        if (left := deadline.left) <= 0:
            raise Silent
        with contextlib.suppress(TimeoutError):
            future.exception(min(left, _GLANCE_S))
    return future.result()


def at_once(threads: int, function: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
    """Call a function with every item, in threads; results in order.

    After the first failure nothing more is begun; an interrupt also ends requests that are under way.
    """
    failed = threading.Event()

    def call(item: Item) -> T:
        if failed.is_set():
            raise Silent("not begun, since another failed")
        try:
            return function(item)
        except BaseException:
            failed.set()
            raise

    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(call, items)
    except BaseException as error:
        failed.set()
        with stopped() if isinstance(error, KeyboardInterrupt) else contextlib.nullcontext():
            pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


class _Worker:
    """A thread that makes one request at a time. It is a daemon: a hanging one does not keep the process."""

    def __init__(self) -> None:
        self._tasks = queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]]()
        threading.Thread(target=self._work, name="request", daemon=True).start()

    def submit(self, request: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        self._tasks.put((future, request))
        return future

    def _work(self) -> None:
        while True:
            future, request = self._tasks.get()
            try:
                result = request()
            except BaseException as error:
                _idle.append(self)
                future.set_exception(error)
            else:
                _idle.append(self)
                future.set_result(result)
                del result
            del future, request  # A worker without work holds no data.


_idle: deque[_Worker] = deque()


def _free_worker() -> _Worker:
    try:
        return _idle.pop()
    except IndexError:
        return _Worker()


# A fork copies no threads: the child starts its own when it needs one.
os.register_at_fork(after_in_child=_idle.clear)
