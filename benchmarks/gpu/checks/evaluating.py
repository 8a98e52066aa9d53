"""Evaluations of features that are resident on the device, compared with the CPU."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu.floors import GEMM, MEMORY, Bound
from benchmarks.gpu.packages import require
from benchmarks.gpu.suite import Context, Skip, Verdict, measurement, proof
from benchmarks.gpu.targets import FEWSHOT
from benchmarks.gpu.timing import per_second, seconds_each
from benchmarks.speed.common import Spread
from benchmarks.speed.probe import made_features
from engine.evals.fewshot.evaluate import Protocol, fewshot
from engine.evals.neighbours import approximate
from engine.kernels import neighbours
from engine.kernels.vectors import Vectors

DISTANCES = ("sqeuclidean", "cosine", "centred")
#: Index -> least recall at 10 of features like pooled ReLU outputs.
_LEAST_RECALL = {"ivf": 0.7, "cagra": 0.7}
#: Queries of 7,500 that FAISS may answer otherwise: it subtracts squared lengths in float32.
_FAISS_APART = 3


def _features(rows: int, dim: int, classes: int) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Return overlapping clusters, float16 [rows, dim], and their labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, rows)
    centres = generator.normal(size=(classes, dim)).astype(np.float32)
    noise = generator.standard_normal((rows, dim), np.float32)
    return (_nearness(dim) * centres[labels] + noise).astype(np.float16), labels


def _nearness(dim: int) -> float:
    """Return the scale of centres at which about half of the queries are answered right, in any dimension."""
    return float(0.25 * (32 / dim) ** 0.25)


def _sizes(context: Context) -> tuple[NDArray[np.float16], NDArray[np.int64], Protocol]:
    features, labels = _features(context.pick(10_000, 600), context.pick(2048, 32), 7)
    return features, labels, Protocol(episodes=context.pick(600, 20))


@proof("few-shot: on the device, against numpy on the CPU", seconds=10, rank=3)
def fewshot_agrees(context: Context) -> Verdict:
    features, labels, protocol = _sizes(context)
    resident = torch.from_numpy(features).to(context.device)
    numbers: dict[str, Any] = {}
    for distance in DISTANCES:
        options = Protocol(episodes=protocol.episodes, distance=distance)
        truth = fewshot(features, labels, options, device="cpu")
        result = fewshot(resident, labels, options, device=context.device)
        queries = options.ways * options.n_query
        differing = np.abs(truth.per_episode - result.per_episode).sum() * queries
        numbers[distance] = {"accuracy": result.accuracy, "queries_apart": float(round(differing))}
    # float32 sums in another order: the tolerance is one query in 600 episodes, as in the study
    passed = all(n["queries_apart"] <= 1 for n in numbers.values())
    return Verdict(numbers, passed, "at most one query of all episodes apart")


@proof("k-NN: on the device, against numpy on the CPU", seconds=15, rank=4)
def knn_agrees(context: Context) -> Verdict:
    return _knn_agrees(context, "array")


def _knn_agrees(context: Context, backend: str) -> Verdict:
    features, _ = _features(context.pick(20_000, 500), context.pick(512, 32), 7)
    queries, base = Vectors(features[: len(features) // 10]), Vectors(features[len(features) // 10 :])
    truth = neighbours.nearest(queries, base, 20, backend="array", device="cpu", threads=4)
    result = neighbours.nearest(queries, base, 20, backend=backend, device=context.device, threads=4)
    same = bool((result.rows == truth.rows).all())
    return Verdict({"same_rows": same, "undecided": result.undecided}, same, "the same neighbours in order")


def _need_faiss_here(context: Context) -> None:
    """Skip where FAISS cannot use the device: it is built for the CPU alone."""
    faiss = require("faiss", "FAISS")
    if context.on_cuda and not hasattr(faiss, "StandardGpuResources"):
        raise Skip("FAISS is built for the CPU alone here")


@proof("k-NN: FAISS on the device, against numpy on the CPU", seconds=15, rank=30, needs=("faiss",))
def knn_by_faiss(context: Context) -> Verdict:
    _need_faiss_here(context)
    return _knn_agrees(context, "faiss")


@proof("few-shot: FAISS, against numpy on the CPU", seconds=15, rank=31, needs=("faiss",))
def fewshot_by_faiss(context: Context) -> Verdict:
    _need_faiss_here(context)
    features, labels, protocol = _sizes(context)
    options = Protocol(episodes=min(protocol.episodes, 100))
    truth = fewshot(features, labels, options, backend="array", device="cpu")
    result = fewshot(features, labels, options, backend="faiss", device=context.device)
    queries = options.ways * options.n_query
    differing = float(round(np.abs(truth.per_episode - result.per_episode).sum() * queries))
    numbers = {"accuracy": result.accuracy, "queries_apart": differing}
    return Verdict(
        numbers, differing <= _FAISS_APART, f"at most {_FAISS_APART} queries of all episodes apart"
    )


@proof("k-NN: recall of approximate indices", seconds=25, rank=32, needs=("faiss",))
def recall_of_indices(context: Context) -> Verdict:
    """Measure the recall of IVF (on the CPU) and, where FAISS has it, of CAGRA, against the exact search."""
    base = Vectors(made_features(context.pick(20_000, 600), context.pick(256, 32), 5)[0])
    cagra = hasattr(require("faiss", "FAISS"), "GpuIndexCagra") and context.on_cuda
    numbers: dict[str, Any] = {"ivf": {}, "cagra": {} if cagra else "skipped: no FAISS with cuVS and a GPU"}
    passed = True
    for name in ("ivf", "cagra") if cagra else ("ivf",):
        index = approximate.build(name, base, "cosine")
        share, sample = approximate.recall(index, base, 10, "array", context.device)
        numbers[name] = {"recall": share, "sample": sample}
        passed = passed and share >= _LEAST_RECALL[name]
    limits = ", ".join(f"{name} {least:g}" for name, least in _LEAST_RECALL.items())
    return Verdict(numbers, passed, f"recall at 10: {limits}")


@measurement("few-shot: 600 episodes of resident features", seconds=10, rank=61)
def fewshot_rate(context: Context) -> Verdict:
    """Measure complete evaluations, drawing included, of features made on the device."""
    rows, dim = context.pick((224_316, 2048), (600, 32))
    resident, labels = _on_device(context.device, rows, dim, 7)
    protocol = Protocol(episodes=context.pick(600, 20))
    ok = np.ones(rows, bool)

    def run() -> None:
        fewshot(resident, labels, protocol, ok=ok, device=context.device)

    seconds = seconds_each(context.device, run, budget_s=context.pick(2.0, 0.2))
    ms = Spread(seconds.n, *(1e3 * x for x in (seconds.median, seconds.min, seconds.max)))
    gathered = protocol.episodes * protocol.ways * (protocol.n_shot + protocol.n_query)
    formula = f"{gathered:,} rows gathered x {dim} x 2 bytes, read once"
    bound = Bound("memory", MEMORY, 2.0 * gathered * dim, formula)
    reading = context.reading(FEWSHOT.name, ms.median, "ms", bound)
    return Verdict({"rows": rows, "ms": ms}, limit="drawing included", readings=(reading,))


def _on_device(device: str, rows: int, dim: int, classes: int) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Return clusters as `_features` makes them, made on the device, block by block."""
    labels = np.random.default_rng(0).integers(0, classes, rows)
    generator = torch.Generator(device).manual_seed(0)
    centres = _nearness(dim) * torch.randn(classes, dim, device=device, generator=generator)
    of = torch.from_numpy(labels).to(device)
    features = torch.empty(rows, dim, dtype=torch.float16, device=device)
    for start in range(0, rows, 16_384):
        block = centres[of[start : start + 16_384]]
        features[start : start + len(block)] = block + torch.randn(
            block.shape, device=device, generator=generator
        )
    return features, labels


@measurement("k-NN: queries a second", seconds=30, rank=75)
def knn_rate(context: Context) -> Verdict:
    if context.quick and context.on_cuda:
        raise Skip("the rate means nothing at tiny sizes")
    features, _ = _features(context.pick(60_000, 400), context.pick(2048, 32), 7)
    queries, base = Vectors(features[: len(features) // 6]), Vectors(features[len(features) // 6 :])

    def run() -> None:
        neighbours.nearest(queries, base, 20, backend="array", device=context.device, threads=4)

    seconds = seconds_each(context.device, run, budget_s=context.pick(10.0, 0.2), warm_up=1)
    rate = per_second(len(queries), seconds)
    numbers = {"queries": len(queries), "base": len(base), "queries_per_s": rate}
    flop = 2.0 * len(base) * base.dim
    bound = Bound("gemm", GEMM["fp32"], flop, f"2 x {len(base):,} x {base.dim} flop a query, fp32")
    reading = context.reading("exact k-NN", rate.median, "queries/s", bound)
    return Verdict(numbers, limit="upload and float64 refinement included", readings=(reading,))
