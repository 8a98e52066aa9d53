"""Three overlapping stages joined by bounded queues, each with a clock of its work and its waiting.

The first stage produces in its own thread, the second runs in the caller's thread (where Ctrl-C and torch's
thread pool work as usual), and the third consumes in its own thread. A full queue blocks its producer, so
memory does not depend on which stage is slow.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

from stores.members.pool import readers

In = TypeVar("In")
Out = TypeVar("Out")

#: Seconds between two reports of the progress of a pass.
PROGRESS_EVERY_S = 0.25
_POLL_S = 0.2


class _End:
    """Sentinel at the end of a queue."""


class StageReport(TypedDict):
    """A stage's clock in JSON: images, their rate while it works, seconds; `starved_s` is waiting for input.

    The names are those of the first version's reports and records.
    """

    images: int
    img_per_s: float
    busy_s: float
    starved_s: float
    blocked_s: float


@dataclass
class StageClock:
    """Work and waiting of one stage.

    Attributes:
        images: finished so far.
        busy_s: seconds of work.
        waiting_s: seconds spent waiting for input.
        blocked_s: seconds spent waiting for room in the next queue.
    """

    images: int = 0
    busy_s: float = 0.0
    waiting_s: float = 0.0
    blocked_s: float = 0.0

    @property
    def img_per_s(self) -> float:
        """Images per second of work, waiting excluded; NaN before any work."""
        return self.images / self.busy_s if self.busy_s > 0 else float("nan")

    def add(self, other: "StageClock") -> None:
        """Add another clock's images and seconds."""
        self.images += other.images
        self.busy_s += other.busy_s
        self.waiting_s += other.waiting_s
        self.blocked_s += other.blocked_s

    def since(self, earlier: "StageClock") -> "StageClock":
        """Return what this clock has measured after an earlier state of it."""
        return StageClock(
            self.images - earlier.images,
            self.busy_s - earlier.busy_s,
            self.waiting_s - earlier.waiting_s,
            self.blocked_s - earlier.blocked_s,
        )

    def to_dict(self) -> StageReport:
        """Return the clock for JSON, rounded."""
        return {
            "images": self.images,
            "img_per_s": round(self.img_per_s, 3),
            "busy_s": round(self.busy_s, 4),
            "starved_s": round(self.waiting_s, 4),
            "blocked_s": round(self.blocked_s, 4),
        }


Clocks = tuple[StageClock, StageClock, StageClock]


def new_clocks() -> Clocks:
    """Return clocks of the three stages, at zero."""
    return StageClock(), StageClock(), StageClock()


@dataclass(frozen=True)
class PassProgress:
    """Progress of a running pass: images or views done, failures so far, clocks of the stages.

    Attributes:
        models: names of the models.
        done, total: images or views.
        failed: images that could not be used.
        seconds: since the start of this run.
        before: share of `done` that an earlier run had completed; excluded from rates and remaining time.
    """

    models: tuple[str, ...]
    done: int
    total: int
    failed: int
    seconds: float
    decode: StageClock
    encode: StageClock
    commit: StageClock
    before: int = 0

    @property
    def img_per_s(self) -> float:
        """Images per second of this run; NaN at its start."""
        return (self.done - self.before) / self.seconds if self.seconds > 0 else float("nan")

    @property
    def seconds_left(self) -> float:
        """Estimated seconds to completion; NaN before the first image."""
        return (self.total - self.done) / self.img_per_s if self.done > self.before else float("nan")


class Stopped(Exception):
    """Raised inside a stage when another stage has failed or the run was interrupted."""


class Pipe(Generic[In]):
    """A bounded queue whose waits end when the run stops.

    Args:
        depth: items that may wait.
        stop: set when the run stops; waits then raise Stopped.
    """

    def __init__(self, depth: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[In | type[_End]] = queue.Queue(depth)
        self._stop = stop

    def put(self, item: "In | type[_End]") -> float:
        """Add an item, waiting for room; return the seconds waited."""
        start = time.perf_counter()
        while True:
            if self._stop.is_set():
                raise Stopped
            try:
                self._queue.put(item, timeout=_POLL_S)
                return time.perf_counter() - start
            except queue.Full:
                continue

    def close(self) -> None:
        """Mark the end of the items."""
        self.put(_End)

    def drain(self, clock: StageClock) -> Iterator[In]:
        """Yield items until the end, adding waiting times to `clock.waiting_s`."""
        while True:
            start = time.perf_counter()
            item = self._get()
            clock.waiting_s += time.perf_counter() - start
            if item is _End:
                return
            yield item  # type: ignore[misc]

    def _get(self) -> "In | type[_End]":
        while True:
            if self._stop.is_set():
                raise Stopped
            try:
                return self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue


class Stages(Generic[In, Out]):
    """The overlapped stages `produce -> transform -> consume`.

    Args:
        clocks: of the three stages, continued; the stages themselves add `images` and `busy_s`. Default: new
            clocks.
        depth: items that may wait between two stages.
    """

    def __init__(self, clocks: "Clocks | None" = None, depth: int = 2) -> None:
        self.first, self.second, self.third = clocks or new_clocks()
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._first_pipe: Pipe[In] = Pipe(depth, self._stop)
        self._second_pipe: Pipe[Out] = Pipe(depth, self._stop)

    def run(
        self,
        produce: Callable[[], Iterable[In]],
        transform: Callable[[In], Out],
        consume: Callable[[Out], None],
    ) -> None:
        """Run until every item is consumed; raise the first error of a stage, or KeyboardInterrupt."""
        threads = [
            threading.Thread(target=self._guard, args=(self._produce, produce), name="decode", daemon=True),
            threading.Thread(target=self._guard, args=(self._consume, consume), name="commit", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            self._guard(self._transform, transform)
            for thread in threads:
                while thread.is_alive():  # a join without timeout would delay Ctrl-C
                    thread.join(_POLL_S)
        except BaseException as error:
            self._stop.set()
            if isinstance(error, KeyboardInterrupt):
                readers.abandon()  # reading a large container could otherwise delay the exit
            raise
        finally:
            if self._errors:
                self._stop.set()
            for thread in threads:
                thread.join()
        if self._errors:
            raise self._errors[0]

    def _guard(self, stage: Callable[[Any], None], argument: Any) -> None:
        try:
            stage(argument)
        except Stopped:
            pass
        except KeyboardInterrupt:
            self._stop.set()
            raise
        except BaseException as error:  # re-raised in the caller's thread
            self._errors.append(error)
            self._stop.set()

    def _produce(self, produce: Callable[[], Iterable[In]]) -> None:
        items = iter(produce())
        try:
            for item in items:
                self.first.blocked_s += self._first_pipe.put(item)
        finally:
            if isinstance(items, Generator):  # a decoder must end its pending work in this thread
                items.close()
        self._first_pipe.close()

    def _transform(self, transform: Callable[[In], Out]) -> None:
        for item in self._first_pipe.drain(self.second):
            self.second.blocked_s += self._second_pipe.put(transform(item))
        self._second_pipe.close()

    def _consume(self, consume: Callable[[Out], None]) -> None:
        for item in self._second_pipe.drain(self.third):
            consume(item)
