"""What to expect of many workers: overheads measured with real ones, carried on to 1,000 by simulation.

    python -m benchmarks.speed.scale_out [--crowds 1 16 64 256] [--chunk-s 2 10 60] [--json]

Measured are the processor time that scheduler and coordinator spend on a task, among more and more workers
(which sleep, many in one process); what a chunk costs beyond its own time with 1, 2 and 4 real worker
processes that sleep, and with 1 and 2 that embed; each of these runs is then compared with the simulation.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.images import ImageClass, manifest_of, write_images
from benchmarks.speed import common
from benchmarks.speed.simulate import Chunks, Costs, Load, Server, simulate
from engine import executors
from engine.decode import decoder_name
from engine.embed.plan import ChunkTask, feature_key
from engine.embed.progress import Tally
from engine.embed.run import EmbedOptions
from engine.embed.worker import Work
from engine.executors.submitted import run_task
from engine.models import resolve
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank.layout import FeatureLayout
from stores.bank.reader import Bank
from stores.bank.writer import FeatureWriter, open_or_create

#: Tasks a second while the costs of a task are measured: far from what anybody can do at most.
_RATE = 60.0
#: Seconds to wait before, and to watch, how much idling costs.
_SETTLE_S, _IDLE_S = 2.0, 5.0
#: Settings of dask for a crowd: what hundreds of workers do for themselves would fill the process they share.
_QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "2s",
    "DASK_DISTRIBUTED__ADMIN__TICK__CYCLE": "10s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__GIL__ENABLED": "False",
}
#: Numbers of workers to measure with, and to simulate; seconds a chunk to simulate.
CROWDS = (1, 16, 64, 256)
WORKERS = (1, 2, 4, 8, 16, 32, 64, 125, 250, 500, 1000)
CHUNK_S = (2.0, 10.0, 60.0)


def timed_chunk(work: Work, task: ChunkTask) -> tuple[float, float]:
    """(seconds of a chunk, of them in the commit), by the worker's own clock."""
    start = time.perf_counter()
    parts = run_task(work, task)
    return time.perf_counter() - start, sum(part.stages[2].busy_s for part in parts)


def doze(seconds: float, work: Work, task: ChunkTask) -> list[Tally]:
    """A task that takes and returns what a chunk does, and sleeps."""
    time.sleep(seconds)
    return [Tally(encoders={i: {"precision": work.runtime.numerics} for i in task.models})]


@dataclass(frozen=True)
class Bench:
    """Images, and settings under which a chunk takes a fraction of a second."""

    folder: Path
    manifest: Any
    options: EmbedOptions
    runtime: Runtime

    @classmethod
    def make(cls, folder: Path, images: int, chunk_rows: int) -> "Bench":
        paths = write_images(folder / "images", ImageClass("small", 96, 96), images)
        manifest = manifest_of(paths, folder / "images")
        return cls(folder, manifest, EmbedOptions(batch_size=8, chunk_rows=chunk_rows), Runtime(threads=1))

    @contextlib.contextmanager
    def work(self, name: str) -> Iterator[tuple[Work, list[ChunkTask]]]:
        """A new bank's work, while this process is its coordinator."""
        spec = resolve("random/resnet18", recipe=replace(Recipe(), size=64, crop=64))
        bank: Bank = open_or_create(self.folder / name, self.manifest, chunk_rows=self.options.chunk_rows)
        decoder = decoder_name(self.options.decoder, self.runtime.device, self.options.dct)
        key = feature_key(spec, decoder, self.runtime, self.manifest.image_digest, self.options.dtype)
        layout = FeatureLayout(bank.path.resolve(), key, spec.dim, bank.grid)
        with FeatureWriter(bank, key, spec.dim) as writer:
            tasks = [ChunkTask(chunk, (0,)) for chunk in writer.todo]
            yield Work(self.manifest.root, (spec,), (layout,), self.runtime, self.options), tasks


# The scheduler's and the coordinator's time


def measure_servers(bench: Bench, crowds: Sequence[int], tasks: int) -> dict[str, Server]:
    """`coordinator` and `scheduler`, measured among each crowd."""
    found: dict[str, list[Load]] = {"coordinator": [], "scheduler": []}
    for workers in crowds:
        loads = _among(bench, workers, tasks)
        for name, load in loads.items():
            found[name].append(load)
            common.say(f"{workers} workers, {name}: {1e3 * load.task_s:.2f} ms a task, {load.idle:.1%} idle")
    return {name: Server(tuple(loads)) for name, loads in found.items()}


def _among(bench: Bench, workers: int, tasks: int) -> dict[str, Load]:
    """Processor seconds of scheduler and coordinator, a task and idle, while `workers` are there."""
    import psutil

    with _crowd(workers) as (executor, scheduler), bench.work(f"crowd{workers}") as (work, _):
        _warm(executor, work, workers)
        watched = {"scheduler": psutil.Process(scheduler), "coordinator": psutil.Process()}
        time.sleep(_SETTLE_S)  # what the warm-up left is cleared away
        before, start = _spent(watched), time.perf_counter()
        while time.perf_counter() - start < _IDLE_S:
            time.sleep(executors.LOOK_S)
            assert executor.workers == workers
        waited = time.perf_counter() - start
        idle = {name: (s - before[name]) / waited for name, s in _spent(watched).items()}
        before, start = _spent(watched), time.perf_counter()
        for _ in executor.run(doze, [(workers / _RATE, work, ChunkTask(i, (0,))) for i in range(tasks)]):
            pass
        seconds = time.perf_counter() - start
        spent = {name: s - before[name] for name, s in _spent(watched).items()}
    return {
        name: Load(workers, max(0.0, spent[name] - idle[name] * seconds) / tasks, idle[name])
        for name in watched
    }


def _spent(processes: dict[str, Any]) -> dict[str, float]:
    return {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}


def _warm(executor: executors.DaskExecutor, work: Work, workers: int) -> None:
    """Have every worker do something once, so that imports are over."""
    for _ in executor.run(doze, [(0.5, work, ChunkTask(0, (0,)))] * workers):
        pass


@contextlib.contextmanager
def _crowd(workers: int) -> Iterator[tuple[executors.DaskExecutor, int]]:
    """A scheduler process with its crowd, and the scheduler's process id."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ["dask", "scheduler", "--host=127.0.0.1", f"--port={port}", "--no-dashboard"]
    scheduler.append("--dashboard-address=127.0.0.1:0")
    crowd = ["benchmarks.speed.crowd", address, str(workers)]
    with _process(scheduler) as pid, _process(crowd, _QUIET):
        deadline = time.monotonic() + 60 + workers
        with _patiently(address, deadline) as executor:
            while executor.workers < workers:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{executor.workers} of {workers} workers came")
                time.sleep(0.2)
            yield executor, pid


@contextlib.contextmanager
def _patiently(address: str, deadline: float) -> Iterator[executors.DaskExecutor]:
    with executors.remote(address, timeout_s=deadline - time.monotonic()) as executor:
        yield executor


@contextlib.contextmanager
def _process(module: Sequence[str], settings: Mapping[str, str] | None = None) -> Iterator[int]:
    environment = {**os.environ, "PYTHONPATH": str(common.ROOT), "DASK_DISTRIBUTED__WORKER__DAEMON": "True"}
    environment |= settings or {}
    process = subprocess.Popen(
        [sys.executable, "-m", *module], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


# Real workers, against the simulation


def measure_dozing(bench: Bench, workers: int, tasks: int, seconds: float) -> float:
    """Wall seconds of `tasks` sleeping tasks on real worker processes."""
    with executors.local(workers) as executor, bench.work(f"doze{workers}") as (work, _):
        _warm(executor, work, workers)
        start = time.perf_counter()
        for _ in executor.run(doze, [(seconds, work, ChunkTask(i, (0,))) for i in range(tasks)]):
            pass
        return time.perf_counter() - start


def measure_embedding(bench: Bench, workers: int) -> dict[str, list[Any]]:
    """`{seconds: of two banks, chunks: of two banks, (seconds, of the commit) each}` on real workers, whose
    processes are new for the first bank."""
    found: dict[str, list[Any]] = {"seconds": [], "chunks": []}
    with executors.local(workers) as executor:
        for turn in range(2):
            with bench.work(f"embed{workers}-{turn}") as (work, tasks):
                start = time.perf_counter()
                ended = dict(executor.run(timed_chunk, [(work, task) for task in tasks]))
                found["seconds"].append(time.perf_counter() - start)
                found["chunks"].append([ended[i] for i in sorted(ended)])
    return found


def run(
    *,
    crowds: Sequence[int] = CROWDS,
    chunk_s: Sequence[float] = CHUNK_S,
    chunks_each: int = 50,
    tasks: int = 400,
    images: int = 480,
    dozing: Sequence[int] = (1, 2, 4),
    embedding: Sequence[int] = (1, 2),
) -> dict[str, Any]:
    """Measure, compare, simulate.

    Args:
        crowds: numbers of workers among which a task's cost is measured.
        chunk_s: seconds a chunk in the tables.
        chunks_each: chunks a worker in the tables: start and end are spread over them.
        tasks: to measure with; images: to embed, in chunks of 16.
        dozing, embedding: numbers of real worker processes.

    Returns:
        `{machine, servers, chunk, checks, expected, limits}`, seconds and shares.
    """
    facts = common.machine()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench.make(Path(name).resolve(), images, 16)
        servers = measure_servers(bench, crowds, tasks)
        checks, costs = _check_dozing(
            bench, dozing, tasks, Costs(servers["coordinator"], servers["scheduler"])
        )
        more, chunk = _check_embedding(bench, embedding, costs)
    costs = replace(costs, start_s=chunk["start_s"])
    return {
        "machine": facts,
        "servers": {name: [load.__dict__ for load in server.loads] for name, server in servers.items()},
        "chunk": {**chunk, "overhead_s": costs.worker_s},
        "chunks_each": chunks_each,
        "checks": checks + more,
        "expected": [
            {"workers": n, "chunk_s": s, **simulate(n, chunks.draw(0), costs).to_dict()}
            for s in chunk_s
            for n in WORKERS
            for chunks in [Chunks(n * chunks_each, s, chunk["spread"])]
        ],
        "limits": [{"chunk_s": s, "workers": costs.limit(s)} for s in chunk_s],
    }


def _check_dozing(
    bench: Bench, dozing: Sequence[int], tasks: int, costs: Costs
) -> tuple[list[dict[str, Any]], Costs]:
    """Sleeping tasks of 0.2 s. What the fewest workers take beyond them is the overhead, from which the
    simulation must find the others."""
    chunks = [0.2] * max(8, tasks // 8)
    real = {workers: measure_dozing(bench, workers, len(chunks), chunks[0]) for workers in dozing}
    turns = -(-len(chunks) // min(dozing))
    costs = replace(costs, worker_s=max(0.0, real[min(dozing)] / turns - chunks[0]))
    return [_check("sleep", n, chunks, costs, seconds) for n, seconds in real.items()], costs


def _check_embedding(
    bench: Bench, embedding: Sequence[int], costs: Costs
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The second bank's seconds against a simulation with the chunks' own; and facts about a chunk."""
    checks = []
    for workers in embedding:
        found = measure_embedding(bench, workers)
        seconds = [s for s, _ in found["chunks"][1]]
        checks.append(_check("embed", workers, seconds, costs, found["seconds"][1]))
        if workers == min(embedding):
            mean, commits = float(np.mean(seconds[1:])), [s for _, s in found["chunks"][1]]
            facts = {
                "seconds": mean,
                "spread": float(np.std(seconds[1:])) / mean,
                "commit_s": float(np.median(commits)),
                "start_s": max(0.0, found["chunks"][0][0][0] - mean),
            }
    return checks, facts


def _check(what: str, workers: int, chunks: Sequence[float], costs: Costs, seconds: float) -> dict[str, Any]:
    found = simulate(workers, chunks, costs)
    common.say(f"{what}, {workers} workers: {seconds:.2f} s, simulated {found.seconds:.2f} s")
    return {
        "tasks": what,
        "workers": workers,
        "chunks": len(chunks),
        "chunk_s": float(np.mean(chunks)),
        "real_s": seconds,
        "simulated_s": found.seconds,
        "ratio": seconds / found.seconds,
    }


def tables(result: dict[str, Any]) -> str:
    """What was measured and what it means, as Markdown."""
    servers = [
        [s["workers"], 1e3 * s["task_s"], f"{s['idle']:.1%}", 1e3 * c["task_s"], f"{c['idle']:.1%}"]
        for s, c in zip(result["servers"]["scheduler"], result["servers"]["coordinator"], strict=True)
    ]
    names = ("tasks", "workers", "chunks", "chunk_s", "real_s", "simulated_s", "ratio")
    lengths = [row["chunk_s"] for row in result["limits"]]
    expected: dict[int, list[str]] = {}
    for row in result["expected"]:
        expected.setdefault(row["workers"], []).append(f"{row['efficiency']:.0%}")
    chunk, most = result["chunk"], max(s["workers"] for s in result["servers"]["scheduler"])
    limits = ", ".join(
        f"{row['workers'] or 'more than measured'} ({common.figure(row['chunk_s'])} s)"
        for row in result["limits"]
    )
    return "\n".join(
        [
            common.markdown_table(
                ["workers", "scheduler, ms a task", "idle", "coordinator, ms a task", "idle"], servers
            ),
            common.markdown_table(names, [[check[name] for name in names] for check in result["checks"]]),
            common.markdown_table(
                ["workers", *(f"chunks of {common.figure(s)} s" for s in lengths)],
                [[workers, *cells] for workers, cells in expected.items()],
            ),
            f"Measured with up to {most} workers, carried on beyond. "
            f"Efficiency with {result['chunks_each']} chunks a worker whose seconds spread by "
            f"{chunk['spread']:.0%}, {1e3 * chunk['overhead_s']:.1f} ms beside each, "
            f"and {chunk['start_s']:.1f} s to start. A commit takes {1e3 * chunk['commit_s']:.1f} ms. "
            f"Coordinator or scheduler has no time left from so many workers on: {limits}.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__.partition("\n")[0])
    parser.add_argument("--crowds", type=int, nargs="+", default=list(CROWDS))
    parser.add_argument("--chunk-s", type=float, nargs="+", default=list(CHUNK_S))
    parser.add_argument("--chunks-each", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=400)
    options = parser.parse_args(arguments)
    result = run(
        crowds=options.crowds,
        chunk_s=options.chunk_s,
        chunks_each=options.chunks_each,
        tasks=options.tasks,
    )
    common.finish(result, tables(result), options)


if __name__ == "__main__":
    main()
