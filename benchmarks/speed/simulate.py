"""A discrete-event simulation of `embed` over many workers: what `scale_out` measures, carried further.

The coordinator hands out two tasks for each worker (`engine.executors.AHEAD`) and another one for each that
ends; the scheduler passes every task on and its result back; a worker that is free takes the next task that
has reached it. Coordinator and scheduler do one thing at a time: they are what ends the gain from more
workers.
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
    """What one process that serves everybody spends while so many workers are there.

    Attributes:
        task_s: of its processor, for a task there and back.
        idle: share of its processor without tasks (heartbeats, looks).
    """

    workers: int
    task_s: float
    idle: float = 0.0


@dataclass(frozen=True)
class Server:
    """A process that serves one task after another: its measured loads, straight lines between."""

    loads: tuple[Load, ...]

    @property
    def most(self) -> int:
        """The most workers it was measured with."""
        return max(load.workers for load in self.loads)

    def seconds(self, workers: int) -> float:
        """Of wall time for a task; beyond the measured numbers a task costs the same, and idling grows on."""
        at = [load.workers for load in self.loads]
        task_s = float(np.interp(workers, at, [load.task_s for load in self.loads]))
        idle = float(np.interp(workers, at, [load.idle for load in self.loads]))
        if workers > self.most and len(self.loads) > 1:
            last, before = self.loads[-1], self.loads[-2]
            slope = (last.idle - before.idle) / (last.workers - before.workers)
            idle += max(0.0, slope) * (workers - self.most)
        left = 1 - idle
        return task_s / left if left > 0 else math.inf


@dataclass(frozen=True)
class Costs:
    """What a run pays beside its chunks.

    Attributes:
        coordinator, scheduler: the two that serve everybody.
        worker_s: at the worker, for each chunk.
        start_s: at each worker, once: imports, weights.
    """

    coordinator: Server
    scheduler: Server
    worker_s: float = 0.0
    start_s: float = 0.0

    def limit(self, chunk_s: float) -> int | None:
        """Fewest workers for whom coordinator or scheduler has no time left, with chunks of `chunk_s`.

        None if that is more than were measured.
        """
        servers = (self.coordinator, self.scheduler)
        for workers in range(1, max(server.most for server in servers) + 1):
            if max(server.seconds(workers) for server in servers) * workers >= chunk_s + self.worker_s:
                return workers
        return None


@dataclass(frozen=True)
class Chunks:
    """What is to be done: how many chunks, their seconds on average, and their coefficient of variation."""

    count: int
    seconds: float
    spread: float = 0.0

    def draw(self, seed: int) -> list[float]:
        """Log-normal seconds of each chunk."""
        chance = random.Random(seed)
        variance = math.log1p(self.spread**2)
        centre = math.log(self.seconds) - variance / 2 if self.seconds > 0 else -math.inf
        return [math.exp(chance.gauss(centre, math.sqrt(variance))) for _ in range(self.count)]


@dataclass(frozen=True)
class Outcome:
    """Seconds until the last result; share of the workers' time spent on chunks; how busy the two were."""

    seconds: float
    efficiency: float
    coordinator_busy: float
    scheduler_busy: float

    def to_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def simulate(workers: int, chunks: Sequence[float], costs: Costs) -> Outcome:
    """Run it, with chunks of these seconds, in order.

    Everybody is there at the start; a task's two ways through a server cost half of its time each.
    """
    return _Run(workers, chunks, costs).outcome()


class _Line:
    """A server's queue: who comes at a time is done at another."""

    def __init__(self, seconds: float) -> None:
        self._half, self.free, self.busy = seconds / 2, 0.0, 0.0

    def through(self, now: float) -> float:
        self.free = max(now, self.free) + self._half
        self.busy += self._half
        return self.free


class _Run:
    """Events are (time, number, what happens, to which worker or task); the heap keeps them in order."""

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
