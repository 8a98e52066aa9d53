"""Evaluations from features that are resident on the device, against the same on the CPU."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu.suite import Context, Skip, Verdict, measurement, proof
from benchmarks.gpu.timing import per_second, seconds_each
from engine.errors import Refused
from engine.evals.fewshot.evaluate import Protocol, fewshot
from engine.kernels import neighbours
from engine.kernels.vectors import Vectors

#: Milliseconds in which 600 episodes shall be done once the features are there.
FEWSHOT_TARGET_MS = 5.0
DISTANCES = ("sqeuclidean", "cosine", "centred")


def _features(rows: int, dim: int, classes: int) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Overlapping clusters, as float16 [rows, dim], and their labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, rows)
    centres = generator.normal(size=(classes, dim)).astype(np.float32)
    noise = generator.standard_normal((rows, dim), np.float32)
    return (0.25 * centres[labels] + noise).astype(np.float16), labels


def _sizes(context: Context) -> tuple[NDArray[np.float16], NDArray[np.int64], Protocol]:
    features, labels = _features(context.pick(10_000, 600), context.pick(2048, 32), 7)
    return features, labels, Protocol(episodes=context.pick(600, 20))


@proof("few-shot: on the device, against numpy on the CPU", seconds=15, rank=40)
def fewshot_agrees(context: Context) -> Verdict:
    features, labels, protocol = _sizes(context)
    resident = torch.from_numpy(features).to(context.device)
    numbers: dict[str, Any] = {}
    for distance in DISTANCES:
        asked = Protocol(episodes=protocol.episodes, distance=distance)
        truth = fewshot(features, labels, asked, device="cpu")
        found = fewshot(resident, labels, asked, device=context.device)
        queries = asked.ways * asked.n_query
        differing = np.abs(truth.per_episode - found.per_episode).sum() * queries
        numbers[distance] = {"accuracy": found.accuracy, "queries_apart": float(round(differing))}
    # float32 sums in another order: the study's own tolerance is one query in 600 episodes
    passed = all(n["queries_apart"] <= 1 for n in numbers.values())
    return Verdict(numbers, passed, "at most one query of all episodes apart")


@proof("k-NN: on the device, against numpy on the CPU", seconds=20, rank=41)
def knn_agrees(context: Context) -> Verdict:
    features, _ = _features(context.pick(20_000, 500), context.pick(512, 32), 7)
    queries, base = Vectors(features[: len(features) // 10]), Vectors(features[len(features) // 10 :])
    truth = neighbours.nearest(queries, base, 20, backend="array", device="cpu", threads=4)
    numbers: dict[str, Any] = {}
    for backend in ("array", "faiss"):
        try:
            found = neighbours.nearest(queries, base, 20, backend=backend, device=context.device, threads=4)
        except Refused as error:  # an absent or CPU-only FAISS; one whose import fails has failed
            if backend == "array" or "cannot be imported" in error.rule:
                raise
            numbers[backend] = {"skipped": " ".join(str(error).split())[:120]}
            continue
        numbers[backend] = {"same_rows": bool((found.rows == truth.rows).all()), "undecided": found.undecided}
    passed = all(n.get("same_rows", True) for n in numbers.values())
    return Verdict(numbers, passed, "the same neighbours in the same order")


@measurement("few-shot: 600 episodes of resident features", seconds=10, rank=65)
def fewshot_rate(context: Context) -> Verdict:
    features, labels, protocol = _sizes(context)
    resident = torch.from_numpy(features).to(context.device)
    ok = np.ones(len(labels), bool)

    def run() -> None:
        fewshot(resident, labels, protocol, ok=ok, device=context.device)

    each = seconds_each(context.device, run, budget_s=context.pick(3.0, 0.2))
    numbers = {
        "rows": len(features),
        "ms": str(each.__class__(each.n, 1e3 * each.median, 1e3 * each.min, 1e3 * each.max)),
        "ms_median": 1e3 * each.median,
    }
    return Verdict(numbers, limit=f"at most {FEWSHOT_TARGET_MS} ms for 600 episodes, drawing included")


@measurement("k-NN: queries a second", seconds=30, rank=66)
def knn_rate(context: Context) -> Verdict:
    if context.quick and context.on_cuda:
        raise Skip("the rate means nothing at tiny sizes")
    features, _ = _features(context.pick(60_000, 400), context.pick(2048, 32), 7)
    queries, base = Vectors(features[: len(features) // 6]), Vectors(features[len(features) // 6 :])

    def run() -> None:
        neighbours.nearest(queries, base, 20, backend="array", device=context.device, threads=4)

    each = seconds_each(context.device, run, budget_s=context.pick(10.0, 0.2), warm_up=1)
    rate = per_second(len(queries), each)
    numbers = {"queries": len(queries), "base": len(base), "queries_per_s": str(rate)}
    return Verdict(numbers, limit="float64 refinement on the host included")
