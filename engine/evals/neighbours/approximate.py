"""FAISS's approximate indices, with their recall against the exact search."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.evals.neighbours.approximate_gpu import ApproximateOnGpu, build_on_gpu, check
from engine.kernels import faiss_library
from engine.kernels.neighbours import Neighbours, nearest
from engine.kernels.vectors import Distance, Space, Vectors, exact_distances
from stores.json_types import JsonObject

#: Sample size for the recall of an approximate index.
RECALL_SAMPLE = 200
#: An IVF query visits one list in so many, but at least so many lists; rows a list that it is trained on.
_IVF_ONE_IN, _IVF_LEAST, _IVF_TRAINING = 16, 8, 64


@dataclass(frozen=True)
class Approximate:
    """A built FAISS index over the base, prepared by its space."""

    index: Any
    base: Vectors
    space: Space
    settings: JsonObject

    def nearest(self, queries: Vectors, k: int) -> Neighbours:
        """Search the index, in its own order; distances are computed again in float64."""
        stored = queries.slice(0, len(queries))
        _, rows = self.index.search(np.ascontiguousarray(self.space.prepare(stored)[0]), k)
        vectors = self.base.take(rows.clip(min=0).ravel()).astype(np.float64)
        distances = exact_distances(
            stored.astype(np.float64), vectors.reshape(*rows.shape, -1), self.space.distance
        )
        distances[rows < 0] = np.inf
        order = np.lexsort((rows, distances))
        return Neighbours(
            np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1), 0, "faiss"
        )


def recall(
    approximate: Approximate | ApproximateOnGpu, base: Vectors, k: int, backend: str, device: str
) -> tuple[float, int]:
    """Measure the recall of the index on a sample of the base; also return the sample's size.

    Recall is the share of the exact k neighbours that the index returns. An image is not counted as its
    own neighbour, which every index finds.
    """
    sample = np.arange(0, len(base), max(1, len(base) // RECALL_SAMPLE))[:RECALL_SAMPLE]
    probes = Vectors(base.array, sample if base.rows is None else base.rows[sample])
    own = sample.astype(np.int64), np.arange(len(base))
    distance = approximate.space.distance
    exact = nearest(probes, base, k, distance=distance, keys=own, backend=backend, device=device).rows
    guessed = approximate.nearest(probes, min(k + 1, len(base))).rows
    hits = 0
    for row, truth, guess in zip(sample, exact, guessed, strict=True):
        hits += len(np.intersect1d(truth[truth >= 0], guess[guess != row][:k]))
    return hits / max(1, int((exact >= 0).sum())), len(sample)


def build(
    name: str, base: Vectors, distance: Distance, device: str = "cpu", k: int = 1
) -> Approximate | ApproximateOnGpu:
    """Build an index over prepared float32 copies of the whole base: 4 bytes a number.

    Args:
        name: `ivf`, on the CPU or a GPU, or `cagra`, on a GPU.
        device: `cpu` or `cuda:N`.
        k: neighbours that will be sought.

    Raises:
        Refused: FAISS is absent or cannot use the device; see `approximate_gpu.check`.
    """
    check(name, len(base), k, device)
    lists = int(np.clip(round(4 * len(base) ** 0.5), 1, max(1, len(base) // 39)))
    visited = min(lists, max(_IVF_LEAST, lists // _IVF_ONE_IN))
    step = max(1, len(base) // (_IVF_TRAINING * lists))
    if device != "cpu":
        return build_on_gpu(name, base, distance, device, lists, visited, step)
    faiss = faiss_library.import_faiss(f"index {name!r}", "use --index exact")
    base = base.on_host()
    space = Space.of(distance, base, base)
    vectors = np.empty((len(base), base.dim), np.float32)
    for start, block in base.blocks():
        vectors[start : start + len(block)] = space.prepare(block)[0]
    # Prepared vectors of both spaces have their neighbours by squared Euclidean distance.
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(base.dim), base.dim, lists)
    index.train(np.ascontiguousarray(vectors[::step]))
    index.add(vectors)
    index.nprobe = visited
    return Approximate(index, base, space, {"lists": lists, "visited": visited})
