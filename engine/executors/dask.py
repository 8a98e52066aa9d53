"""The executor that passes tasks to the worker processes of a dask scheduler."""

import contextlib
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from engine.errors import DeviceLost, EmbankError, MachineFault
from engine.executors.base import Job, Session
from engine.executors.submitted import Submitted
from engine.executors.worker_process import in_worker

R = TypeVar("R")
T = TypeVar("T")

#: Tasks handed out for each worker: a running one and a waiting one, which hides the scheduler's latency; no
#: more, so that there are tasks left for a worker that joins.
AHEAD = 2
#: Seconds between two queries for the present workers.
LOOK_S = 1.0


@dataclass
class DaskExecutor:
    """Executor whose tasks are done by the workers of a dask scheduler.

    Attributes:
        client: `distributed.Client`.
        tries: how often a task may end with a MachineFault, on any workers; a worker whose device is lost
            ends itself, and its task goes elsewhere without counting.
        losses: how many workers may lose their device over one task, one after another.
        patience_s: how long to wait without any worker.
        say: takes sentences about workers that come and go.
    """

    client: Any
    tries: int = 3
    losses: int = 4
    patience_s: float = 300.0
    say: Callable[[str], None] = lambda _: None
    _seen: dict[str, str] = field(default_factory=dict)
    _lame: set[str] = field(default_factory=set)
    _looked: float = float("-inf")

    @property
    def workers(self) -> int:
        """Count the workers that are there."""
        return len(self._present())

    def ask(self, function: Callable[..., R], *arguments: Any) -> R:
        """Call a function once, in one of the workers."""
        return next(self.run(function, [arguments]))[1]

    def run(self, function: Callable[..., R], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, R]]:
        """Call `function(*task)` for each task, wherever a worker is free.

        Raises:
            MachineFault: no worker for `patience_s`, the scheduler is gone, or a task has failed too often.
            Exception: as raised by a task.
        """
        flight = _Flight(self.client, function, tasks)
        lonely_since = time.monotonic()
        try:
            while flight.waiting or flight.flying:
                present = self._look()
                if present:
                    lonely_since = time.monotonic()
                elif time.monotonic() - lonely_since > self.patience_s:
                    raise _deserted(self.client, self.patience_s)
                flight.fill(AHEAD * present, self._sound())
                for position, future in flight.landed(LOOK_S):
                    outcome = _outcome(future)
                    if isinstance(outcome, BaseException):
                        self._try_again(flight, position, outcome)
                    else:
                        yield position, outcome
        finally:
            flight.cancel()

    @contextlib.contextmanager
    def session(self, job: Job[T, R]) -> Iterator[Session[T, R]]:
        """Have each worker open the job at its first task, and keep it open."""
        yield Submitted(self, job)

    def _try_again(self, flight: "_Flight", position: int, error: BaseException) -> None:
        """Repeat a task that failed through no fault of its own. Raises any other error."""
        if isinstance(error, DeviceLost):
            self._lame.add(error.worker)
            flight.lost(position)
            again = flight.losses(position) < self.losses
            what = f"{error.found}, which ends worker {error.worker}."
        else:
            what = str(error)
            again = isinstance(error, MachineFault) and flight.tried(position) < self.tries
        if not again:
            raise error
        self.say(f"{what} Trying again.")
        flight.waiting.append(position)

    def _sound(self) -> list[str]:
        """Return the addresses of workers that are not known to have lost their device.

        A worker keeps its name, and its GPU, when its process is replaced.
        """
        return [address for address, name in self._seen.items() if name not in self._lame]

    def _look(self) -> int:
        """Return the number of workers, and report who came and went.

        Asks at most once in `LOOK_S`: the answer grows with their number, and tasks may end
        more often than that.
        """
        if time.monotonic() - self._looked < LOOK_S:
            return len(self._seen)
        present = self._present()
        self._looked = time.monotonic()
        if present != self._seen:
            came, went = len(present.keys() - self._seen.keys()), len(self._seen.keys() - present.keys())
            changes = [f"{n} {word}" for n, word in ((came, "joined"), (went, "left")) if n]
            self.say(f"Workers: {len(present)} ({', '.join(changes)})")
            self._seen = present
        return len(present)

    def _present(self) -> dict[str, str]:
        """Map the address of each present worker to its name."""
        try:
            info = self.client.scheduler_info(n_workers=-1)
        except (OSError, TimeoutError) as error:
            raise _lost(str(error)) from error
        if "workers" not in info:  # all that a client knows after it has given up reconnecting
            raise _lost("nobody answers")
        return {address: str(worker["id"]) for address, worker in info["workers"].items()}


class _Flight:
    """Tasks that are waiting, and those that have been handed out."""

    def __init__(self, client: Any, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> None:
        self._client, self._function, self._tasks = client, function, tasks
        self.waiting = deque(range(len(tasks)))
        self.flying: dict[Any, int] = {}
        self._tries: dict[int, int] = {}
        self._losses: dict[int, int] = {}
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def tried(self, position: int) -> int:
        return self._tries.get(position, 0)

    def losses(self, position: int) -> int:
        return self._losses.get(position, 0)

    def lost(self, position: int) -> None:
        """Count a try as the loss of a device, which is no failure of the task."""
        self._tries[position] -= 1
        self._losses[position] = self.losses(position) + 1

    def fill(self, room: int, sound: list[str]) -> None:
        """Hand out tasks until `room` are running.

        One that met a lost device goes to `sound` workers, if there are any.
        """
        while self.waiting and len(self.flying) < room:
            position = self.waiting.popleft()
            where: dict[str, list[str] | bool] = {}
            if self.losses(position) and sound:
                where = {"workers": sound, "allow_other_workers": True}
            task = self._tasks[position]
            future = self._client.submit(in_worker, self._function, *task, pure=False, **where)
            self.flying[future] = position
            future.add_done_callback(self._ended.put)
            self._tries[position] = self.tried(position) + 1

    def landed(self, timeout_s: float) -> list[tuple[int, Any]]:
        """Wait for a running task to end; return all futures that have ended."""
        ended = []
        with contextlib.suppress(queue.Empty):
            ended.append(self._ended.get(timeout=timeout_s))
            while True:
                ended.append(self._ended.get_nowait())
        return [(self.flying.pop(future), future) for future in ended]

    def cancel(self) -> None:
        if self.flying:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                self._client.cancel(list(self.flying), force=True)


def _outcome(future: Any) -> Any:
    """Return a future's result, or raise its error as one of ours."""
    from distributed import CancelledError
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except EmbankError as error:
        return error
    except KilledWorker as error:
        return MachineFault(
            f"A task ended {error.allowed_failures + 1} worker processes, one after another",
            "A worker must survive its task",
            "look at the workers' memory (and `dmesg`), lower the batch (`embank embed --batch-size N`), run "
            "the same command again",
        )
    except CancelledError as error:
        return _lost(str(error).partition("\n")[0])
    except Exception as error:  # a bug: its traceback is the best message
        return error


def _lost(reason: str) -> MachineFault:
    return MachineFault(
        f"The scheduler is gone, or has lost a task ({reason})",
        "Scheduler and workers must stay reachable",
        "run the same command again; committed chunks are kept",
    )


def _deserted(client: Any, seconds: float) -> MachineFault:
    return MachineFault(
        f"No worker at {client.scheduler.address} for {seconds:.0f} s",
        "Somebody must compute",
        "start workers (`dask worker ADDRESS --nthreads 1 --memory-limit 0`), then run this again",
    )
