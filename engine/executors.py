"""Executors: who does the tasks. `Serial` is the reference; `DaskExecutor` hands them to worker processes.

A task is a pure function of its arguments whose effect, if any, may happen twice (chunks are committed
exclusively): workers may die, be stopped and come back, join and leave at any time. Only this module and
`engine.cluster` know dask.
"""

import contextlib
import ipaddress
import os
import queue
import ssl
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from engine import faults
from engine.errors import DeviceLost, EmbankError, MachineFault, Refused
from stores.limits import check_memory, check_whole

#: Worker processes of one machine at most, and what each takes without any work.
MAX_WORKERS, _WORKER_BYTES = 1024, 300 << 20
R = TypeVar("R")

#: Tasks handed out for each worker: the one it does and one that waits there, which hides the scheduler's
#: latency; no more, so that a worker which joins finds something to do.
AHEAD = 2
#: Seconds between two looks at who is there.
LOOK_S = 1.0
#: Seconds that a worker without its device has left to say so; those after which it ends in any case; and how
#: its process ends.
FAREWELL_S, LAST_S = 0.5, 10.0
LOST_DEVICE = 3


class Executor(Protocol):
    """Does tasks in other processes, or as if."""

    @property
    def workers(self) -> int:
        """Processes that compute at this moment."""

    def ask(self, function: Callable[..., R], *arguments: Any) -> R:
        """One call, where tasks are done."""

    def run(self, function: Callable[..., R], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, R]]:
        """Call `function(*task)` for each task; yield (position of the task, result) as they end.

        Raises:
            EmbankError: as raised by a task; MachineFault after it has been tried again.
        """


@dataclass(frozen=True)
class Serial:
    """Everything here, in order."""

    workers: int = 1

    def ask(self, function: Callable[..., R], *arguments: Any) -> R:
        return function(*arguments)

    def run(self, function: Callable[..., R], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, R]]:
        for position, task in enumerate(tasks):
            yield position, function(*task)


@dataclass
class DaskExecutor:
    """Hands tasks to the workers of a dask scheduler.

    Attributes:
        client: `distributed.Client`.
        tries: how often a task may end with a MachineFault, on any workers; a worker whose device is lost
            ends itself, and its task goes elsewhere without counting.
        losses: how many workers may lose their device over one task, one after another.
        patience_s: how long to wait without any worker.
        say: is told of workers that come and go.
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
        return len(self._present())

    def ask(self, function: Callable[..., R], *arguments: Any) -> R:
        return next(self.run(function, [arguments]))[1]

    def run(self, function: Callable[..., R], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, R]]:
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

    def _try_again(self, flight: "_Flight", position: int, error: BaseException) -> None:
        """Have a task done again that failed by no fault of its own. Raises any other error."""
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
        """Addresses of workers whose device, as far as is known, was never lost. A worker keeps its name,
        and its GPU, when its process is replaced."""
        return [address for address, name in self._seen.items() if name not in self._lame]

    def _look(self) -> int:
        """How many workers there are; says who came and went. Asks at most once in `LOOK_S`: the answer's
        size grows with their number, and tasks may end more often than that."""
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
        """Address -> name of each worker that is there."""
        try:
            found = self.client.scheduler_info(n_workers=-1)
        except (OSError, TimeoutError) as error:
            raise _lost(str(error)) from error
        if "workers" not in found:  # what a client knows that has given up to connect again
            raise _lost("nobody answers")
        return {address: str(worker["id"]) for address, worker in found["workers"].items()}


class _Flight:
    """The tasks that wait and those that have been handed out."""

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
        """Hand out tasks until `room` of them fly; one that met a lost device to `sound` workers, if any."""
        while self.waiting and len(self.flying) < room:
            position = self.waiting.popleft()
            where: dict[str, Any] = {}
            if self.losses(position) and sound:
                where = {"workers": sound, "allow_other_workers": True}
            task = self._tasks[position]
            future = self._client.submit(_in_worker, self._function, *task, pure=False, **where)
            self.flying[future] = position
            future.add_done_callback(self._ended.put)
            self._tries[position] = self.tried(position) + 1

    def landed(self, timeout_s: float) -> list[tuple[int, Any]]:
        """Futures that have ended, after waiting for one of them; those that still fly cost nothing."""
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


def _in_worker(function: Callable[..., R], *arguments: Any) -> R:
    """Do a task in a worker process, which ends itself after a fault that leaves it without its device."""
    _doomed.wait_for_the_end()
    try:
        return function(*arguments)
    except Exception as error:
        fault = error if isinstance(error, MachineFault) else faults.translate(error)
        if fault is None:
            raise
        if isinstance(fault, DeviceLost):
            fault.worker = _doomed.end_soon()
        raise fault from None  # its cause may be of a class that the other side cannot unpickle


class _Doom:
    """The end of this worker process. CUDA keeps the error that cost it its device: any further task would
    fail as well, and at once, so that it would draw the tasks that sound workers have no time for."""

    def __init__(self) -> None:
        self._near = threading.Event()

    def wait_for_the_end(self) -> None:
        """Return at once, unless the process is about to end: then never. dask gives the task to another."""
        while self._near.is_set():
            time.sleep(FAREWELL_S)

    def end_soon(self) -> str:
        """End the process when what is to be said has been sent; returns the worker's name.

        Its nanny, or whoever else started it, starts another one.
        """
        from distributed import get_worker

        worker = get_worker()
        if worker.address.startswith("inproc://"):  # a thread of the user's own process
            return str(worker.name)
        self._near.set()
        # By the loop that sends the news, so that a busy one ends no sooner than it has.
        worker.loop.add_callback(worker.loop.call_later, FAREWELL_S, os._exit, LOST_DEVICE)
        timer = threading.Timer(LAST_S, os._exit, [LOST_DEVICE])
        timer.daemon = True
        timer.start()
        return str(worker.name)


_doomed = _Doom()


def _outcome(future: Any) -> Any:
    """A future's result, or its error as one of ours."""
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
    except Exception as error:  # a fault of the program: the traceback says more than we could
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


@contextlib.contextmanager
def local(
    workers: int, *, cuda: bool = False, silence_s: float = 60.0, say: Callable[[str], None] = lambda _: None
) -> Iterator[DaskExecutor]:
    """Worker processes on this machine, one for each GPU if `cuda`; closed to everybody else by TLS.

    Args:
        workers: how many. silence_s: a worker that is not heard of for so long is replaced.

    Raises:
        Refused: dask or cryptography is not installed, or dask-cuda for `cuda`; more workers than GPUs.
    """
    check_whole("workers", workers, 1, MAX_WORKERS)
    check_memory(workers * _WORKER_BYTES, f"{workers} workers", "lower --workers")
    _need_dask()
    import dask
    import distributed  # noqa: F401 - imported under the settings, its own defaults would leave with them

    from engine import cluster as own

    settings = {
        "distributed.scheduler.worker-ttl": f"{silence_s} s",
        "distributed.worker.daemon": True,
        "distributed.logging.distributed": "critical",
    }
    with tempfile.TemporaryDirectory() as scratch, dask.config.set(settings):
        cluster = (own.on_gpus if cuda else own.on_cpu)(workers, scratch)
        with cluster, cluster.get_client() as client:
            cluster.adapt(minimum=workers, maximum=workers)  # replace those that were given up
            yield DaskExecutor(client, say=say)


@contextlib.contextmanager
def remote(
    address: str, *, timeout_s: float = 20, say: Callable[[str], None] = lambda _: None
) -> Iterator[DaskExecutor]:
    """The workers of a running scheduler.

    Args:
        address: `tls://HOST:PORT` (certificates by dask's own configuration, `distributed.comm.tls`), or
            `tcp://` on loopback: whoever reaches a scheduler without TLS runs code on it.

    Raises:
        Refused: dask is not installed, an address that is neither, or certificates are missing.
        MachineFault: nobody answers.
    """
    _need_dask()
    _check_address(address)
    from distributed import Client

    security = _security(address)
    try:
        client = Client(address, security=security, timeout=timeout_s, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise MachineFault(
            f"No scheduler answers at {address} ({error})",
            "A scheduler must be running there",
            "start one (`dask scheduler --host ...`), check address and firewall",
        ) from error
    with client:
        yield DaskExecutor(client, say=say)


def _check_address(address: str) -> None:
    scheme, _, rest = address.partition("://")
    host = rest.rpartition(":")[0].strip("[]")
    if scheme == "tls" and host:
        return
    if scheme == "tcp" and host and _is_loopback(host):
        return
    raise Refused(
        f"scheduler {address!r}",
        "It is tls://HOST:PORT, or tcp:// on loopback: whoever reaches one without TLS can run code on it",
        "start it with TLS (`dask scheduler --protocol tls --tls-ca-file ...`), or tunnel to it by ssh",
    )


def _security(address: str) -> Any:
    """Certificates as dask's configuration names them. Refused if TLS is wanted and they are not there."""
    from distributed.security import Security

    security = Security()
    try:
        ready = security.get_connection_args("client")["ssl_context"] is not None
        fault = "no certificates"
    except (OSError, ssl.SSLError) as error:
        ready, fault = False, f"certificates that cannot be read ({error})"
    if not ready and address.startswith("tls://"):
        raise Refused(
            f"{address} and {fault}",
            "TLS needs the certificate of the authority, and one's own certificate and key",
            "name them in dask's configuration: distributed.comm.tls.ca-file and distributed.comm.tls.client",
        )
    return security


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _need_dask() -> None:
    import importlib.util

    if importlib.util.find_spec("distributed") is None:
        raise Refused("dask is not installed", "--workers and --scheduler need it", "install embank[dask]")
