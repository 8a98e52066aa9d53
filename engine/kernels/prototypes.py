"""Nearest prototypes for whole sets of episodes.

A class's prototype is the mean of its support (Snell et al. 2017). Distances, by name:

* `sqeuclidean`: |q - p|^2, equation 1 of Anton et al. 2022.
* `cosine`: the angle between q and p, from the origin.
* `centred`: the mean of the episode's support is taken from support and queries, each is scaled to length
  one, then `sqeuclidean` (Wang et al. 2019, "CL2N"; there the mean is that of the training classes).
  Centring without scaling would change no Euclidean distance.

Sums are in float32. Of equally near prototypes, as computed, the first class of the episode is taken.
"""

import itertools
import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.kernels import faiss_library
from engine.kernels.episodes import Rows
from engine.kernels.float16 import SCALE, widen

Distance = Literal["sqeuclidean", "cosine", "centred"]
DISTANCES = ("sqeuclidean", "cosine", "centred")

#: Rows that are gathered and widened at a time: bytes of float32. Smaller blocks stay in a core's own cache,
#: but then threads wait for Python's lock between numpy's calls: 1 MiB takes 1.5 times as long on two cores.
BLOCK_BYTES = 1 << 22
#: Bytes of float32 that the episodes of a block may take on a device.
DEVICE_BYTES = 1 << 30


def offsets(prototypes: Any, distance: Distance) -> tuple[Any, Any]:
    """What decides between classes: query @ offset - constant says how much nearer than the first each is.

    For numpy arrays and torch tensors alike. Differences to the first prototype lose no digits where features
    lie far from the origin, and are exactly zero between equal prototypes.

    Args:
        prototypes: [..., N, d].

    Returns:
        Offsets [..., N - 1, d] and constants [..., N - 1] of the classes after the first. The advantage they
        give is half the difference of squared distances, or for `cosine` |query| times that of cosines.
    """
    if distance == "cosine":
        prototypes = _unit(prototypes)
    first, others = prototypes[..., :1, :], prototypes[..., 1:, :]
    offset = others - first
    if distance == "cosine":
        return offset, offset[..., 0] * 0
    return offset, ((others + first) * offset).sum(-1) * 0.5


def _unit(x: Any) -> Any:
    """Vectors scaled to length one; zero stays zero."""
    length = ((x * x).sum(-1) ** 0.5)[..., None]
    return x / (length + (length == 0))


def episode_advantage(support: Any, query: Any, distance: Distance) -> Any:
    """How much nearer than the first class each other one is to the queries: positive is nearer.

    For numpy arrays and torch tensors alike.

    Args:
        support: [..., N, K, d]; query: [..., N * Q, d]; both float32.

    Returns:
        [..., N * Q, N - 1].
    """
    if distance == "centred":
        mean = support.mean((-3, -2))[..., None, :]
        support, query = _unit(support - mean[..., None, :, :]), _unit(query - mean)
    offset, constant = offsets(support.mean(-2), distance)
    return query @ offset.swapaxes(-1, -2) - constant[..., None, :]


def _nearest(advantages: NDArray[np.float32]) -> NDArray[np.intp]:
    """Class of each query [...] from its advantages [..., N - 1]: the first of equal ones."""
    nearest: NDArray[np.intp] = (advantages.argmax(axis=-1) + 1) * (advantages.max(axis=-1) > 0)
    return nearest


def predict(
    features: NDArray[Any], support: Rows, query: Rows, distance: Distance = "sqeuclidean", threads: int = 1
) -> NDArray[np.int16]:
    """Classes of all queries, on the CPU.

    Args:
        features: [N, d] of any float type, may be mapped; the rows used must be finite.
        support: [E, N, K] rows; query: [E, N, Q] rows.
        threads: that work on episodes. numpy's products should then have one thread each
            (OPENBLAS_NUM_THREADS=1 before numpy is imported).

    Returns:
        int16 [E, N, Q]: position of the nearest class within the episode.
    """
    features = as_float(features)
    found = np.empty(query.shape, np.int16)
    size = 4 * support.shape[1] * max(support.shape[2], query.shape[2]) * max(features.shape[1], 1)
    step = max(1, min(len(found) // (2 * threads), BLOCK_BYTES // size))
    starts = itertools.count(0, step)  # shared: whichever thread is free takes the next episodes

    def work() -> None:
        worker = _Worker(features, distance)
        while (start := next(starts)) < len(found):
            stop = start + step
            more = worker.advantage(support[start:stop], query[start:stop])
            found[start:stop] = _nearest(more).reshape(query[start:stop].shape)

    in_threads(work, threads)
    return found


class _Worker:
    """Scores one episode after another in buffers of its own.

    Args:
        features: float16 or float32, as from `as_float`.
    """

    def __init__(self, features: NDArray[Any], distance: Distance) -> None:
        self._features, self._distance = features, distance
        self._block = max(1, BLOCK_BYTES // (4 * max(features.shape[1], 1)))
        self._half = np.empty((self._block, features.shape[1]), np.float16)
        self._wide = np.empty((self._block, features.shape[1]), np.float32)
        # What gathered rows are still to be multiplied by. Prototypes get it at once, queries by way of the
        # prototypes, in two steps: all of it would overflow where features are large.
        self._scale = SCALE if features.dtype == np.float16 else np.float32(1)
        self._late = np.float32(2.0**12) if features.dtype == np.float16 else np.float32(1)

    def advantage(self, support: Rows, query: Rows) -> NDArray[np.float32]:
        """As `episode_advantage`, from rows [E, N, K] and [E, N, Q]."""
        query = query.reshape(len(query), -1)
        if self._distance == "centred":
            return np.stack([self._centred(*each) for each in zip(support, query, strict=True)])
        offset, constant = offsets(self._prototypes(support), self._distance)
        offset *= self._scale / self._late
        found = self._products(query, offset.swapaxes(1, 2))
        found *= self._late
        found -= constant[:, None, :]
        return found

    def _prototypes(self, support: Rows) -> NDArray[np.float32]:
        """Means [E, N, d] of the rows [E, N, K]."""
        shots = support.shape[2]
        found = np.empty((*support.shape[:2], self._features.shape[1]), np.float32)
        classes, sums = support.reshape(-1, shots), found.reshape(-1, found.shape[2])
        together = max(1, self._block // shots)
        for c in range(0, len(classes), together):
            rows = classes[c : c + together]
            examples = self._gather(rows.ravel()).reshape(*rows.shape, -1)
            np.add.reduce(examples, axis=1, out=sums[c : c + together])
        found *= self._scale
        found /= np.float32(shots)
        return found

    def _products(self, query: Rows, turned: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows [E, n] of the features, as gathered, times [E, d, m]: [E, n, m]."""
        found = np.empty((*query.shape, turned.shape[2]), np.float32)
        together = max(1, self._block // query.shape[1])
        for e in range(0, len(query), together):
            for start in range(0, query.shape[1], self._block):  # one turn, unless an episode fills a block
                part = slice(e, e + together), slice(start, start + self._block)
                rows = query[part]
                examples = self._gather(rows.ravel()).reshape(*rows.shape, -1)
                np.matmul(examples, turned[e : e + together], out=found[part])
        return found

    def _centred(self, support: Rows, query: Rows) -> NDArray[np.float32]:
        examples = self._gather(support.ravel()).reshape(*support.shape, -1) * self._scale
        queries = self._gather(query) * self._scale
        found: NDArray[np.float32] = episode_advantage(examples, queries, self._distance)
        return found

    def _gather(self, rows: Rows) -> NDArray[np.float32]:
        """Copy rows into the buffer, in float32, divided by the scale; good until the next call."""
        if len(rows) > len(self._wide):
            self._wide = np.empty((len(rows), self._wide.shape[1]), np.float32)
        wide = self._wide[: len(rows)]
        # mode="clip" writes straight into `out`; "raise" would go through another buffer
        if self._features.dtype == np.float32:
            np.take(self._features, rows, axis=0, out=wide, mode="clip")
            return wide
        for start in range(0, len(rows), self._block):
            some = rows[start : start + self._block]
            half = self._half[: len(some)]
            np.take(self._features, some, axis=0, out=half, mode="clip")
            widen(half, wide[start : start + len(some)])
        return wide


def as_float(features: NDArray[Any]) -> NDArray[Any]:
    """Features as native, contiguous float16 or float32; a copy only if they are something else."""
    half = features.dtype.kind == "f" and features.dtype.itemsize == 2
    return np.ascontiguousarray(features, np.float16 if half else np.float32)


def in_threads(work: Callable[[], None], threads: int) -> None:
    """Run `work` in several threads, this one among them; the first error is raised again here."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # every kind must reach the caller
            errors.append(error)

    others = [threading.Thread(target=guarded) for _ in range(threads - 1)]
    for thread in others:
        thread.start()
    guarded()
    for thread in others:
        thread.join()
    if errors:
        raise errors[0]


def predict_on_device(
    features: Any, support: Rows, query: Rows, distance: Distance = "sqeuclidean"
) -> NDArray[np.int16]:
    """As `predict`, where `features` is a torch tensor [N, d], on its device.

    The products must not use TF32 (torch's default, and `engine.runtime.float32_products`).
    """
    import torch

    (episodes, ways, shots), queries = support.shape, query.shape[2]
    rows = np.concatenate([support.reshape(episodes, -1), query.reshape(episodes, -1)], axis=1)
    index = torch.from_numpy(rows).to(features.device)
    positions = torch.arange(ways, device=features.device)
    step = max(1, DEVICE_BYTES // (4 * rows.shape[1] * max(features.shape[1], 1)))
    found = []
    for start in range(0, episodes, step):
        some = index[start : start + step]
        drawn = features[some].float()
        support_part = drawn[:, : ways * shots].unflatten(1, (ways, shots))
        more = episode_advantage(support_part, drawn[:, ways * shots :], distance)
        near = torch.cat([torch.zeros_like(more[..., :1]), more], dim=-1)
        # torch's argmax may take any of equal classes
        first = torch.where(near == near.amax(-1, keepdim=True), positions, ways).amin(-1)
        found.append(first.to(torch.int16))
    return torch.cat(found).cpu().numpy().reshape(episodes, ways, queries)


def predict_by_faiss(
    features: NDArray[Any], support: Rows, query: Rows, distance: Distance = "sqeuclidean"
) -> NDArray[np.int16]:
    """As `predict`, by one exact FAISS search an episode.

    Raises:
        Refused: FAISS is absent, or its import fails.
    """
    faiss = faiss_library.library("backend 'faiss'", "use --backend array, which gives the same answers")
    found = np.empty(query.shape, np.int16)
    for e in range(len(found)):
        examples = features[support[e]].astype(np.float32)
        queries = features[query[e].ravel()].astype(np.float32)
        if distance == "centred":
            mean = examples.mean(axis=(0, 1))
            examples, queries = _unit(examples - mean), _unit(queries - mean)
        prototypes = examples.mean(axis=1)
        metric = faiss.METRIC_L2
        if distance == "cosine":
            prototypes, metric = _unit(prototypes), faiss.METRIC_INNER_PRODUCT
        nearest = faiss.knn(queries, np.ascontiguousarray(prototypes), 1, metric=metric)[1]
        found[e] = nearest.reshape(query.shape[1:])
    return found
