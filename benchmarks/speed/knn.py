"""Exact nearest neighbours from stored float16 features: embank compared with FAISS called by hand.

By hand: widen, normalise, `IndexFlatIP` (or `IndexFlatL2`), `add`, `search`. embank does the same from the
same float16 array, and also computes every distance in float64 and resolves ties. The neighbours are the
same.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.speed.common import Spread, finish, interleaved, machine, markdown_table, parser, ratio
from engine.kernels.neighbours import nearest
from engine.kernels.vectors import Distance, Vectors
from engine.runtime import usable_cores


def run(
    queries: int,
    base: int,
    dim: int,
    k: int,
    repeats: int,
    distance: Distance = "cosine",
    device: str = "cpu",
) -> dict[str, Any]:
    """Time the search of `queries` x `base` random float16 features, k neighbours each.

    Returns:
        `{queries, base, dim, k, distance, rounds, machine, seconds, over_hand, cpu_seconds, cpu_over_hand,
        peak_bytes, same_rows}`: seconds of each contender and its time over that by hand, as
        {n, median, min, max}, in wall-clock time and in processor time of all threads (which a shared machine
        disturbs less); growth of the process in bytes; share of neighbours equal to those by hand.
    """
    rng = np.random.default_rng(0)
    base_features = _features(rng, base, dim)
    query_features = _features(rng, queries, dim)
    contenders: dict[str, Any] = {"hand": lambda: _by_hand(query_features, base_features, k, distance)}
    for backend in ("faiss", "array"):
        contenders[backend] = lambda backend=backend: nearest(
            Vectors(query_features),
            Vectors(base_features),
            k,
            distance=distance,
            backend=backend,
            device=device,
            threads=usable_cores(),
        )
    results, peaks = {}, {}
    for name, contender in contenders.items():  # also the warm-up
        with _Peak() as peak:
            results[name] = contender()
        peaks[name] = peak.bytes
    processor: dict[str, list[float]] = {name: [] for name in contenders}
    clocked = {name: _clocked(contender, processor[name]) for name, contender in contenders.items()}
    seconds = interleaved(clocked, rounds=repeats, warm_up=False)
    return {
        "queries": queries,
        "base": base,
        "dim": dim,
        "k": k,
        "distance": distance,
        "device": device,
        "rounds": repeats,
        "machine": machine(),
        "seconds": {name: Spread.of(times) for name, times in seconds.items()},
        "over_hand": {name: ratio(times, seconds["hand"]) for name, times in seconds.items()},
        "cpu_seconds": {name: Spread.of(times) for name, times in processor.items()},
        "cpu_over_hand": {name: ratio(times, processor["hand"]) for name, times in processor.items()},
        "peak_bytes": peaks,
        "same_rows": {
            name: float(np.mean(results[name].rows == results["hand"])) for name in ("faiss", "array")
        },
        "searched_again": {name: results[name].undecided for name in ("faiss", "array")},
    }


def _clocked(contender: Callable[[], Any], into: list[float]) -> Callable[[], None]:
    """Return the contender with its processor time recorded."""

    def run() -> None:
        start = time.process_time()
        contender()
        into.append(time.process_time() - start)

    return run


def _features(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray[Any, Any]:
    """Return features like pooled ReLU outputs: not negative and not centred."""
    features = np.empty((rows, dim), np.float16)
    for start in range(0, rows, 4096):
        block = features[start : start + 4096]
        block[...] = np.abs(rng.standard_normal(block.shape, np.float32) + 0.5)
    return features


def _by_hand(
    queries: np.ndarray[Any, Any], base: np.ndarray[Any, Any], k: int, distance: str
) -> np.ndarray[Any, Any]:
    import faiss

    base32, wide_queries = base.astype(np.float32), queries.astype(np.float32)
    index = faiss.IndexFlatIP(base.shape[1]) if distance == "cosine" else faiss.IndexFlatL2(base.shape[1])
    if distance == "cosine":
        faiss.normalize_L2(base32)
        faiss.normalize_L2(wide_queries)
    index.add(base32)
    rows: np.ndarray[Any, Any] = index.search(wide_queries, k)[1]
    return rows


class _Peak:
    """Peak growth of the process's resident memory in bytes, sampled."""

    def __enter__(self) -> "_Peak":
        import psutil

        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._stop.is_set():
            self.bytes = max(self.bytes, self._process.memory_info().rss - self._before)
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _table(result: dict[str, Any]) -> str:
    head = (
        f"{result['queries']:,} x {result['base']:,}, d = {result['dim']}, k = {result['k']}, "
        f"{result['distance']}, {result['rounds']} rounds\n\n"
    )
    lines = [
        [
            {"hand": "FAISS by hand", "faiss": "embank, FAISS", "array": "embank, array"}[name],
            str(spread),
            str(result["over_hand"][name]),
            str(result["cpu_over_hand"][name]),
            round(result["peak_bytes"][name] / 2**20),
            f"{result['same_rows'][name]:.6f}" if name in result["same_rows"] else "",
        ]
        for name, spread in result["seconds"].items()
    ]
    columns = ["", "seconds", "times by hand", "in processor time", "MiB more", "rows equal to by hand"]
    return head + markdown_table(columns, lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--queries", type=int, default=10_000)
    options.add_argument("--base", type=int, default=100_000)
    options.add_argument("--dim", type=int, default=2048)
    options.add_argument("-k", type=int, default=20)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--distance", choices=["cosine", "euclidean"], default="cosine")
    options.add_argument("--device", default="cpu")
    args = options.parse_args(argv)
    result = run(args.queries, args.base, args.dim, args.k, args.repeats, args.distance, args.device)
    finish(result, _table(result), args)


if __name__ == "__main__":
    main()
