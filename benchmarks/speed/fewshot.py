"""Few-shot from stored features: the kernel compared with the study's loop and the gather limit; the command.

The loop is the study's on stored float32 features, with numpy: one episode at a time, every class shuffled to
draw from it, then index, mean, distances, argmin. The gather limit only copies the rows of all episodes into
a small buffer, with as many threads as the kernel, from float16 (as stored in the bank) and from float32.
"""

import os

# As in the command, and before numpy is imported: the products of both contenders are too small for threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.common import ROOT, Spread, finish, interleaved, machine, markdown_table, parser, ratio
from engine.evals.fewshot.evaluate import Protocol
from engine.kernels.codes import Rows
from engine.kernels.episodes import Episodes, Sampler
from engine.kernels.prototypes import in_threads, predict, predict_by_faiss, predict_on_device
from engine.runtime import synchronize, usable_cores
from stores.backends.location import Place
from stores.bank.reader import Bank

#: Rows copied at a time for the gather limit.
_BLOCK = 32

#: Code of the child process: the command, with timestamps between its parts.
_CHILD = """
import sys, time
marks = [("start of Python", time.time())]
def mark(name): marks.append((name, time.time()))
import cli
mark("import cli, typer")
import os; os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy
mark("import numpy")
import engine.evals.fewshot.bank, engine.report.console
mark("import engine, stores")
sys.argv = ["embank", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
mark("command")
import json; print(json.dumps(marks), file=sys.stderr)
"""


def run(
    rows: int,
    dim: int,
    repeats: int,
    protocol: Protocol | None = None,
    classes: int = 14,
    folder: Path | None = None,
    faiss: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Write a bank of `rows` x `dim` random float16 embeddings; time kernel, loop, limits and command.

    Args:
        rows: of the bank.
        dim: length of an embedding.
        repeats: rounds, with each contender once.
        protocol: of the episodes; default 600 x 5-way 20-shot 15-query.
        classes: number of classes, of equal size.
        folder: for the temporary bank (rows x dim x 2 bytes).
        faiss: time one FAISS search per episode as well.
        device: `cuda` times the kernel on resident features as well.

    Returns:
        `{rows, dim, classes, protocol, rounds, machine, same, seconds, cpu_seconds, kernel_over, command,
        parts}`: `same` is the share of queries classified as by the loop; seconds of wall clock and
        processor, ratios, and parts of the command (milliseconds) as {n, median, min, max}.
    """
    protocol = protocol or Protocol(n_way=5)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        bank = _bank(Path(name), rows, dim, classes)
        features = bank.features()
        stored, labels = features.array, np.array(features.labels)
        kernel = _kernel(stored, labels, protocol, bank.image_digest, faiss, device, repeats)
        command, parts = _command(bank.path, protocol, repeats)
    return {
        "rows": rows,
        "dim": dim,
        "classes": classes,
        "protocol": dict(protocol.__dict__),
        "rounds": repeats,
        "machine": machine(),
        **kernel,
        "command": command,
        "parts": parts,
    }


def _bank(root: Path, rows: int, dim: int, classes: int) -> Bank:
    import pandas as pd

    from stores.bank.integrity import SETTLED_NS
    from stores.bank.keys import ChunkResult, FeatureKey
    from stores.bank.writer import FeatureWriter, open_or_create
    from stores.maintenance.verify import verify
    from stores.manifest.manifest import Manifest

    names = [f"{row:07d}.png" for row in range(rows)]
    labels = [f"class {row % classes:02d}" for row in range(rows)]
    bank = open_or_create(
        root / "bank", Manifest.from_frame(pd.DataFrame({"uri": names, "label": labels}), root)
    )
    key = FeatureKey("random", "none", "none", "none", "none", "none", "none", bank.image_digest)
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((classes, dim), dtype=np.float32) * np.float32(0.05)
    with FeatureWriter(bank, key, dim) as writer:
        for index in writer.todo:
            start, stop = writer.bounds(index)
            values = generator.standard_normal((stop - start, dim), dtype=np.float32)
            values += centres[np.arange(start, stop) % classes]
            writer.commit(ChunkResult(index, values, np.ones(stop - start, dtype=bool)))
        writer.seal()
    time.sleep(SETTLED_NS / 1e9 + 0.1)  # files that were just written are not stamped
    verify(bank)
    return bank


def _kernel(
    stored: NDArray[Any], labels: NDArray[Any], protocol: Protocol, data_set: str, faiss: bool, device: str,
    repeats: int,
) -> dict[str, Any]:  # fmt: skip
    pools = [np.flatnonzero(labels == c) for c in range(labels.max() + 1)]
    threads = usable_cores()
    features32 = np.empty(stored.shape, np.float32)
    for start in range(0, len(features32), 4096):
        features32[start : start + 4096] = stored[start : start + 4096]

    def draw() -> Episodes:
        return Sampler(pools, protocol.identity(data_set)).draw(protocol.episodes)

    def ours() -> NDArray[np.int16]:
        drawn = draw()
        return predict(stored, drawn.support, drawn.query, "sqeuclidean", threads)

    drawn = draw()
    all_rows = np.concatenate([drawn.support, drawn.query], axis=2).ravel()
    contenders: dict[str, Callable[[], Any]] = {
        "kernel": ours,
        "sampling": draw,
        "gather float16": lambda: _gather(stored, all_rows, threads),
        "gather float32": lambda: _gather(features32, all_rows, threads),
        "loop, drawing": lambda: _loop_draws(pools, protocol),
        "loop": lambda: _loop(features32, drawn),
    }
    if faiss:
        contenders["faiss"] = lambda: predict_by_faiss(features32, drawn.support, drawn.query)
    if device != "cpu":
        contenders[device] = _resident(stored, drawn, device)
    processor: dict[str, list[float]] = {name: [] for name in contenders}
    clocked = {name: _clocked(contender, processor[name]) for name, contender in contenders.items()}
    seconds = interleaved(clocked, rounds=repeats)
    processor = {name: times[1:] for name, times in processor.items()}  # without the warm-up
    return {
        "same": float((ours() == _loop(features32, drawn)).mean()),
        "seconds": {name: Spread.of(times) for name, times in seconds.items()},
        "cpu_seconds": {name: Spread.of(times) for name, times in processor.items()},
        "kernel_over": _ratios(seconds),
        "kernel_over_cpu": _ratios(processor),
    }


def _ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, Spread]:
    """Return the kernel's time over the limits, and the loop's over the kernel's, round by round."""
    loop_with_drawing = [a + b for a, b in zip(seconds["loop"], seconds["loop, drawing"], strict=True)]
    ratios = {name: ratio(seconds["kernel"], seconds[name]) for name in ("gather float16", "gather float32")}
    ratios |= {"loop / kernel": ratio(seconds["loop"], seconds["kernel"])}
    ratios |= {"loop with drawing / kernel": ratio(loop_with_drawing, seconds["kernel"])}
    return ratios


def _clocked(contender: Callable[[], Any], into: list[float]) -> Callable[[], None]:
    def timed() -> None:
        start = time.process_time()
        contender()
        into.append(time.process_time() - start)

    return timed


def _gather(features: NDArray[Any], rows: Rows, threads: int) -> None:
    starts = itertools.count(0, _BLOCK)

    def work() -> None:
        buffer = np.empty((_BLOCK, features.shape[1]), features.dtype)
        while (start := next(starts)) < len(rows):
            block_rows = rows[start : start + _BLOCK]
            np.take(features, block_rows, axis=0, out=buffer[: len(block_rows)], mode="clip")

    in_threads(work, threads)


def _loop_draws(pools: Sequence[Rows], protocol: Protocol) -> list[list[Rows]]:
    generator = np.random.default_rng(protocol.seed)
    need = protocol.n_shot + protocol.n_query
    return [
        [generator.permutation(pools[c])[:need] for c in generator.permutation(len(pools))[: protocol.ways]]
        for _ in range(protocol.episodes)
    ]


def _loop(features: NDArray[np.float32], drawn: Episodes) -> NDArray[np.int16]:
    classes = np.empty(drawn.query.shape, np.int16)
    for e in range(len(drawn)):
        prototypes = features[drawn.support[e]].mean(axis=1)
        queries = features[drawn.query[e].ravel()]
        distances = (queries**2).sum(axis=1)[:, None] + (prototypes**2).sum(axis=1)
        distances -= 2 * queries @ prototypes.T
        classes[e] = distances.argmin(axis=1).reshape(classes.shape[1:])
    return classes


def _resident(stored: NDArray[Any], drawn: Episodes, device: str) -> Callable[[], None]:
    import torch

    features = torch.tensor(stored, device=device)

    def timed() -> None:
        predict_on_device(features, drawn.support, drawn.query)
        synchronize(device)

    return timed


def _command(bank: Place, protocol: Protocol, repeats: int) -> tuple[Spread, dict[str, Spread]]:
    """Return the wall clock of the complete command in seconds, and of its parts in milliseconds."""
    words = ["fewshot", str(bank), "--model", "random", "--json"]
    for option in ("n_way", "n_shot", "n_query", "episodes", "seed"):
        words += ["--" + option.replace("_", "-"), str(getattr(protocol, option))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OPENBLAS_NUM_THREADS")
    totals, parts = [], list[dict[str, float]]()
    for turn in range(repeats + 1):
        start = time.time()
        _checked([sys.executable, "-m", "cli", *words], environment)
        totals.append(time.time() - start)
        start = time.time()
        done = _checked([sys.executable, "-c", _CHILD, *words], environment)
        parts.append(_split(start, time.time(), done))
        if turn == 0:  # warms the page cache and writes byte code
            totals.clear()
            parts.clear()
    return Spread.of(totals), {name: Spread.of([p[name] for p in parts]) for name in parts[0]}


def _checked(words: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)


def _split(start: float, stop: float, done: subprocess.CompletedProcess[str]) -> dict[str, float]:
    """Return the milliseconds of each part, from the child's timestamps and the command's stages."""
    milliseconds, last = {}, start
    for name, at in json.loads(done.stderr.splitlines()[-1]):
        milliseconds[name], last = 1e3 * (at - last), at
    stages = {name: 1e3 * seconds for name, seconds in json.loads(done.stdout)["stages"].items()}
    rest = milliseconds.pop("command") - sum(stages.values())
    return {**milliseconds, **stages, "parse, print": rest, "exit": 1e3 * (stop - last)}


def _table(result: dict[str, Any]) -> str:
    p = result["protocol"]
    head = (
        f"{result['rows']:,} x {result['dim']} float16, {result['classes']} classes; {p['episodes']} "
        f"episodes of {p['n_way']}-way {p['n_shot']}-shot {p['n_query']}-query; {result['rounds']} rounds; "
        f"{result['same']:.4%} of the queries classified as by the loop\n\n"
    )
    spans = [
        [name, str(_ms(spread)), str(_ms(result["cpu_seconds"][name]))]
        for name, spread in result["seconds"].items()
    ]
    ratios = [
        [name if "/" in name else f"kernel / {name}", str(spread), str(result["kernel_over_cpu"][name])]
        for name, spread in result["kernel_over"].items()
    ]
    parts = [[name, str(spread)] for name, spread in result["parts"].items()]
    return "\n".join(
        [
            head + markdown_table(["", "ms", "ms of processor"], spans),
            markdown_table(["", "wall clock", "processor"], ratios),
            f"The command: {_ms(result['command'])} ms\n",
            markdown_table(["part of the command", "ms"], parts),
        ]
    )


def _ms(spread: Spread) -> Spread:
    return Spread(spread.n, 1e3 * spread.median, 1e3 * spread.min, 1e3 * spread.max)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--rows", type=int, default=10_000)
    options.add_argument("--dim", type=int, default=2048)
    options.add_argument("--classes", type=int, default=14)
    options.add_argument("--repeats", type=int, default=9)
    options.add_argument("--n-way", type=int, default=5)
    options.add_argument("--n-shot", type=int, default=20)
    options.add_argument("--n-query", type=int, default=15)
    options.add_argument("--episodes", type=int, default=600)
    options.add_argument("--faiss", action="store_true", help="also one FAISS search an episode")
    options.add_argument("--device", default="cpu", help="cuda: also with features resident there")
    options.add_argument("--folder", type=Path, help="where the bank goes while it runs")
    args = options.parse_args(argv)
    protocol = Protocol(args.n_way, args.n_shot, args.n_query, args.episodes)
    result = run(
        args.rows,
        args.dim,
        args.repeats,
        protocol,
        args.classes,
        args.folder,
        args.faiss,
        args.device,
    )
    finish(result, _table(result), args)


if __name__ == "__main__":
    main()
