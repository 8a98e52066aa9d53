"""Embed with dask workers that are killed, frozen and paused; compare every byte with a serial bank.

    python -m benchmarks.faults.chaos [--runs 20] [--workers 2] [--data FOLDER] [--json]

Blows: `kill` (SIGKILL, as the kernel does when memory is out); `freeze` (SIGSTOP for longer than the
scheduler waits, then SIGCONT: the worker comes back after it was given up); `pause` (SIGSTOP for a moment).
Workers are forked from a server that has torch imported, or most of the time would go into starting them.
"""

import contextlib
import multiprocessing
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.faults.kill import SIDE, committed, prepare, problems_of
from benchmarks.speed import common

BLOWS = ("kill", "freeze", "pause")
#: Seconds after which the scheduler gives up a silent worker, and between its looks. It has a frozen one
#: killed at every look, and by the second the worker's successor: a freeze is noticed by one look in four of
#: five cases, and never by two.
SILENCE_S, _LOOK_S = 2.0, 1.5
_FREEZE_S = SILENCE_S + 0.8 * _LOOK_S
#: The scheduler waits for ten heartbeats, whatever shorter silence it is told.
_HEARTBEAT_S = SILENCE_S / 10
#: Seconds between two blows: the shortest, the longest.
BREATH_S = (0.2, 1.5)
#: All of them: a run must last long enough to be struck.
DIGITS, DIGITS_PER_CHUNK = 1797, 32


def run(
    *,
    runs: int = 20,
    workers: int = 2,
    data: Path | None = None,
    chunk_rows: int | None = None,
    side: int = SIDE,
    seed: int = 0,
    blows: Sequence[str] = BLOWS,
    say: Callable[[str], None] = common.say,
) -> dict[str, Any]:
    """Embed `runs` banks under blows.

    Args:
        workers: processes; the cluster lives through all runs, its workers do not.
        data: folder of images; None takes scikit-learn's digits.
        chunk_rows, side, seed: as for `benchmarks.faults.kill.run`.
        blows: which kinds.

    Returns:
        `{ok, runs, blows, spared, given_up, unfinished, problems, ...}`; `ok` if every bank was bit-identical
        to the serial one and verified. `spared`: runs that ended before the first blow; `given_up`: workers
        that the scheduler took for dead; `unfinished`: runs that gave up (a chunk had ended too many workers)
        and were run again.
    """
    from engine import executors
    from engine.runtime import cuda_available

    struck: Counter[str] = Counter()
    problems: list[str] = []
    unfinished = spared = 0
    given_up: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        job = prepare(folder, data, chunk_rows or (DIGITS_PER_CHUNK if data is None else None), side, DIGITS)
        truth = folder / "serial"
        start = time.perf_counter()
        job.run(str(truth))
        seconds = time.perf_counter() - start
        with (
            _forking(),
            patch("distributed.scheduler.heartbeat_interval", lambda workers: _HEARTBEAT_S),
            executors.local(workers, cuda=cuda_available(), silence_s=_LOOK_S) as executor,
        ):
            for turn in range(runs):
                bank, before = folder / f"bank{turn:03}", struck.total()
                with _Tormentor(bank, random.Random(seed + turn), blows, struck):
                    unfinished += _finish(job, bank, executor)
                spared += struck.total() == before
                given_up |= _given_up(executor)
                problems += [f"{bank.name}: {problem}" for problem in problems_of(bank, truth)]
                say(f"{turn + 1} runs, {dict(struck)}, {len(problems)} problems")
    return {
        "ok": not problems,
        "runs": runs,
        "workers": workers,
        "blows": dict(struck),
        "spared": spared,
        "given_up": len(given_up),
        "unfinished": unfinished,
        "problems": problems,
        "serial_seconds": round(seconds, 2),
        "data": str(data or "scikit-learn digits"),
        "seed": seed,
    }


def _finish(job: Any, bank: Path, executor: Any) -> int:
    """Run until the bank is done; how often the run gave up before."""
    from engine.errors import MachineFault

    gave_up = 0
    while True:
        try:
            job.run(str(bank), executor)
            return gave_up
        except MachineFault:
            gave_up += 1


@contextlib.contextmanager
def _forking() -> Iterator[None]:
    """Have dask fork its workers, off a server started ahead of its own, which would not have torch."""
    import dask

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["distributed", "benchmarks.faults.runner"])
    forkserver.ensure_running()
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield


def _given_up(executor: Any) -> set[str]:
    """Addresses of workers that the scheduler took for dead lately: it remembers its last thousand events."""
    every = [message for _, message in executor.client.get_events("scheduler")]
    silent = [each["workers"] for each in every if each.get("action") == "worker-ttl-timed-out"]
    return set().union(*silent)


class _Tormentor:
    """Strikes workers at random moments while the body runs, with a chunk committed between two blows."""

    def __init__(self, bank: Path, chance: random.Random, blows: Sequence[str], struck: Counter[str]) -> None:
        self._bank, self._chance, self._blows, self._struck = bank, chance, blows, struck
        self._done_at_last_blow = -1  # one blow may fall before the first chunk
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._torment, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _torment(self) -> None:
        while not self._over.wait(self._chance.uniform(*BREATH_S)):
            done, pids = len(committed(self._bank)), worker_processes()
            # A worker that starts takes seconds: were it struck again and again, nothing would be at work.
            if pids and done > self._done_at_last_blow:
                self._done_at_last_blow = done
                blow = self._chance.choice(self._blows)
                self._strike(self._chance.choice(pids), blow)
                self._struck[blow] += 1

    def _strike(self, pid: int, blow: str) -> None:
        try:
            if blow == "kill":
                os.kill(pid, signal.SIGKILL)
                return
            os.kill(pid, signal.SIGSTOP)
            self._over.wait(_FREEZE_S if blow == "freeze" else 0.3)
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass  # gone by itself


def worker_processes() -> list[int]:
    """Process ids of the workers, which their nannies started."""
    import psutil

    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(child.cmdline())
            forked = "multiprocessing.forkserver" in line and child.ppid() != os.getpid()
            if child.status() != psutil.STATUS_ZOMBIE and ("spawn_main" in line or forked):
                found.append(child.pid)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exits with 1 if any bank was not as it should be."""
    parser = common.parser(__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder of images instead of scikit-learn's digits")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    result = run(runs=options.runs, workers=options.workers, data=options.data, seed=options.seed)
    result["machine"] = common.machine()
    table = common.markdown_table(["blow", "times"], [[name, n] for name, n in result["blows"].items()])
    verdict = "every bank bit-identical and verified" if result["ok"] else "\n".join(result["problems"])
    common.finish(result, f"{table}\n{result['runs']} runs: {verdict}", options)
    raise SystemExit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
