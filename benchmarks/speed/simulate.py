"""A discrete-event simulation of `embed` with many workers, to extrapolate the measurements of `scale_out`.

The coordinator submits two tasks per worker (`engine.executors.AHEAD`) and another one for each that
finishes; the scheduler forwards every task and its result; a free worker takes the next task that has
arrived. Coordinator and scheduler do one thing at a time, and therefore limit the gain from more workers.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.executors import AHEAD


@dataclass(frozen=True)
class Load:
    """Load of a shared process with a number of workers.

    Attributes:
        workers: number of workers.
        task_s: processor seconds for a task in both directions.
        idle: share of the processor used without tasks (heartbeats, polling).
    """

    workers: int
    task_s: float
    idle: float = 0.0


@dataclass(frozen=True)
class Server:
    """A process that handles one task after another, with its measured loads, interpolated linearly."""

    loads: tuple[Load, ...]

    @property
    def most(self) -> int:
        """The largest number of workers measured."""
        return max(load.workers for load in self.loads)

    def seconds(self, workers: int) -> float:
        """Return the wall-clock seconds of a task; beyond the measurements only the idle load increases."""
        workers_measured = [load.workers for load in self.loads]
        task_s = float(np.interp(workers, workers_measured, [load.task_s for load in self.loads]))
        idle = float(np.interp(workers, workers_measured, [load.idle for load in self.loads]))
        if workers > self.most and len(self.loads) > 1:
            last, previous = self.loads[-1], self.loads[-2]
            slope = (last.idle - previous.idle) / (last.workers - previous.workers)
            idle += max(0.0, slope) * (workers - self.most)
        available = 1 - idle
        return task_s / available if available > 0 else math.inf


@dataclass(frozen=True)
class Costs:
    """Overheads of a run.

    Attributes:
        coordinator, scheduler: the shared processes.
        worker_s: seconds at the worker for each chunk.
        start_s: seconds at each worker, once, for imports and weights.
    """

    coordinator: Server
    scheduler: Server
    worker_s: float = 0.0
    start_s: float = 0.0

    def limit(self, chunk_s: float) -> int | None:
        """Return the fewest workers that saturate coordinator or scheduler, with chunks of `chunk_s` seconds.

        None if these are more than were measured.
        """
        servers = (self.coordinator, self.scheduler)
        for workers in range(1, max(server.most for server in servers) + 1):
            if max(server.seconds(workers) for server in servers) * workers >= chunk_s + self.worker_s:
                return workers
        return None


@dataclass(frozen=True)
class Chunks:
    """The work: number of chunks, their mean seconds and coefficient of variation."""

    count: int
    seconds: float
    spread: float = 0.0

    def draw(self, seed: int) -> list[float]:
        """Draw log-normal seconds of each chunk."""
        chance = random.Random(seed)
        variance = math.log1p(self.spread**2)
        centre = math.log(self.seconds) - variance / 2 if self.seconds > 0 else -math.inf
        return [math.exp(chance.gauss(centre, math.sqrt(variance))) for _ in range(self.count)]


@dataclass(frozen=True)
class Outcome:
    """Result of a simulation.

    Attributes:
        seconds: until the last result.
        efficiency: share of the workers' time spent on chunks.
        coordinator_busy, scheduler_busy: share of time.
    """

    seconds: float
    efficiency: float
    coordinator_busy: float
    scheduler_busy: float

    def to_dict(self) -> dict[str, Any]:
        """Return all fields for JSON."""
        return dict(self.__dict__)


def simulate(workers: int, chunks: Sequence[float], costs: Costs) -> Outcome:
    """Simulate a run with chunks of these seconds, in order.

    All processes are present at the start; the two passes of a task through a server cost half of its time
    each.
    """
    return _Run(workers, chunks, costs).outcome()


class _Line:
    """The queue of a server."""

    def __init__(self, seconds: float) -> None:
        self._half, self.free, self.busy = seconds / 2, 0.0, 0.0

    def through(self, now: float) -> float:
        """Return the time at which a request made now has been handled."""
        self.free = max(now, self.free) + self._half
        self.busy += self._half
        return self.free


class _Run:
    """A simulation in progress; events are (time, number, step, seconds of the task), ordered by a heap."""

    def __init__(self, workers: int, durations: Sequence[float], costs: Costs) -> None:
        self.workers, self.durations, self.costs = workers, durations, costs
        self.coordinator = _Line(costs.coordinator.seconds(workers))
        self.scheduler = _Line(costs.scheduler.seconds(workers))
        self.waiting = deque(durations)
        self.free, self.here = workers, deque[float]()
        self.fresh = workers
        self.landed, self.ended = 0, 0.0
        self._events: list[tuple[float, int, str, float]] = []
        self._number = 0

    def outcome(self) -> Outcome:
        """Process all events, and return the result."""
        for _ in range(min(AHEAD * self.workers, len(self.durations))):
            self._at(0.0, "submit")
        steps = {
            "submit": self._submit,
            "pass on": self._pass_on,
            "arrive": self._arrive,
            "finish": self._finish,
            "report": self._report,
            "land": self._land,
        }
        while self._events:
            now, _, what, seconds = heapq.heappop(self._events)
            steps[what](now, seconds)
        assert self.landed == len(self.durations)
        total = self.ended
        return Outcome(
            total,
            sum(self.durations) / (self.workers * total) if total else math.nan,
            self.coordinator.busy / total if total else math.nan,
            self.scheduler.busy / total if total else math.nan,
        )

    def _at(self, time: float, what: str, seconds: float = 0.0) -> None:
        self._number += 1
        heapq.heappush(self._events, (time, self._number, what, seconds))

    def _submit(self, now: float, _: float) -> None:
        if self.waiting:
            self._at(self.coordinator.through(now), "pass on", self.waiting.popleft())

    def _pass_on(self, now: float, seconds: float) -> None:
        self._at(self.scheduler.through(now), "arrive", seconds)

    def _arrive(self, now: float, seconds: float) -> None:
        self.here.append(seconds)
        self._start(now)

    def _start(self, now: float) -> None:
        if self.free and self.here:
            self.free -= 1
            start = self.costs.start_s if self.fresh > 0 else 0.0
            self.fresh -= 1
            self._at(now + start + self.costs.worker_s + self.here.popleft(), "finish")

    def _finish(self, now: float, _: float) -> None:
        self.free += 1
        self._start(now)
        self._at(now, "report")

    def _report(self, now: float, _: float) -> None:
        self._at(self.scheduler.through(now), "land")

    def _land(self, now: float, _: float) -> None:
        self.ended = self.coordinator.through(now)
        self.landed += 1
        self._at(self.ended, "submit")
