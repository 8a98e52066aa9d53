"""Nearest-prototype classification of whole sets of episodes.

A class's prototype is the mean of its support (Snell et al. 2017). Distances, by name:

* `sqeuclidean`: |q - p|^2, equation 1 of Anton et al. 2022.
* `cosine`: the angle between q and p.
* `centred`: the mean of the episode's support is subtracted from support and queries, all are scaled to
  length one, then `sqeuclidean` (Wang et al. 2019, "CL2N", with the mean of the training classes). Centring
  without scaling would not change Euclidean distances.

Sums are float32. Of prototypes at exactly the same computed distance, the first class of the episode wins.
"""

import functools
import itertools
import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.kernels import faiss_library
from engine.kernels.codes import Rows
from engine.kernels.float16 import SCALE, widen

Distance = Literal["sqeuclidean", "cosine", "centred"]
DISTANCES = ("sqeuclidean", "cosine", "centred")

#: Bytes of float32 rows gathered and widened at a time. Smaller blocks would stay in a core's private cache,
#: but threads then wait for the GIL between numpy calls: 1 MiB takes 1.5 times as long on two cores.
BLOCK_BYTES = 1 << 22
#: Bytes of float32 that a block of episodes may take on a device.
DEVICE_BYTES = 1 << 30


def offsets(prototypes: Any, distance: Distance) -> tuple[Any, Any]:
    """Return offsets and constants: query @ offset - constant is how much nearer a class is than the first.

    For numpy arrays and torch tensors. Differences to the first prototype lose no digits when features lie
    far from the origin, and are exactly zero between equal prototypes.

    Args:
        prototypes: [..., N, d].

    Returns:
        Offsets [..., N - 1, d] and constants [..., N - 1] of the classes after the first. The resulting
        advantage is half the difference of squared distances or, for `cosine`, |query| times the difference
        of cosines.
    """
    if distance == "cosine":
        prototypes = _unit(prototypes)
    first, others = prototypes[..., :1, :], prototypes[..., 1:, :]
    offset = others - first
    if distance == "cosine":
        return offset, offset[..., 0] * 0
    return offset, ((others + first) * offset).sum(-1) * 0.5


def _unit(x: Any) -> Any:
    """Scale vectors to length one; zero stays zero."""
    length = ((x * x).sum(-1) ** 0.5)[..., None]
    return x / (length + (length == 0))


def episode_advantage(support: Any, query: Any, distance: Distance) -> Any:
    """Return how much nearer each class is to the queries than the first class; positive is nearer.

    For numpy arrays and torch tensors.

    Args:
        support: float32 [..., N, K, d].
        query: float32 [..., N * Q, d].

    Returns:
        Advantages [..., N * Q, N - 1] of the classes after the first.
    """
    if distance == "centred":
        mean = support.mean((-3, -2))[..., None, :]
        support, query = _unit(support - mean[..., None, :, :]), _unit(query - mean)
    offset, constant = offsets(support.mean(-2), distance)
    return query @ offset.swapaxes(-1, -2) - constant[..., None, :]


def _nearest(advantages: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the nearest class of each query [...] from its advantages [..., N - 1]; the first in a tie."""
    nearest: NDArray[np.intp] = (advantages.argmax(axis=-1) + 1) * (advantages.max(axis=-1) > 0)
    return nearest


def predict(
    features: NDArray[Any], support: Rows, query: Rows, distance: Distance = "sqeuclidean", threads: int = 1
) -> NDArray[np.int16]:
    """Classify all queries, on the CPU.

    Args:
        features: [N, d] of any float type, possibly memory-mapped; the rows used must be finite.
        support: [E, N, K] rows.
        query: [E, N, Q] rows.
        threads: working on episodes in parallel. numpy's products should then use one thread each
            (OPENBLAS_NUM_THREADS=1 before numpy is imported).

    Returns:
        int16 [E, N, Q]: position of the nearest class within the episode.
    """
    features = as_float(features)
    classes = np.empty(query.shape, np.int16)
    size = 4 * support.shape[1] * max(support.shape[2], query.shape[2]) * max(features.shape[1], 1)
    step = max(1, min(len(classes) // (2 * threads), BLOCK_BYTES // size))
    starts = itertools.count(0, step)  # shared by the threads: whichever is free takes the next episodes

    def work() -> None:
        worker = _Worker(features, distance)
        while (start := next(starts)) < len(classes):
            stop = start + step
            advantage = worker.advantage(support[start:stop], query[start:stop])
            classes[start:stop] = _nearest(advantage).reshape(query[start:stop].shape)

    in_threads(work, threads)
    return classes


class _Worker:
    """Classifier of episodes in one thread, with its own buffers.

    Args:
        features: float16 or float32, as from `as_float`.
    """

    def __init__(self, features: NDArray[Any], distance: Distance) -> None:
        self._features, self._distance = features, distance
        self._block = max(1, BLOCK_BYTES // (4 * max(features.shape[1], 1)))
        self._half = np.empty((self._block, features.shape[1]), np.float16)
        self._wide = np.empty((self._block, features.shape[1]), np.float32)
        # The factor that gathered rows lack. Prototypes are multiplied at once, queries through the offsets
        # of the prototypes and in two steps, because the full factor would overflow with large features.
        self._scale = SCALE if features.dtype == np.float16 else np.float32(1)
        self._late = np.float32(2.0**12) if features.dtype == np.float16 else np.float32(1)

    def advantage(self, support: Rows, query: Rows) -> NDArray[np.float32]:
        """Return the same as `episode_advantage`, from rows [E, N, K] and [E, N, Q]."""
        query = query.reshape(len(query), -1)
        if self._distance == "centred":
            return np.stack([self._centred(s, q) for s, q in zip(support, query, strict=True)])
        offset, constant = offsets(self._prototypes(support), self._distance)
        offset *= self._scale / self._late
        advantages = self._products(query, offset.swapaxes(1, 2))
        advantages *= self._late
        advantages -= constant[:, None, :]
        return advantages

    def _prototypes(self, support: Rows) -> NDArray[np.float32]:
        """Return the means [E, N, d] of the rows [E, N, K]."""
        shots = support.shape[2]
        prototypes = np.empty((*support.shape[:2], self._features.shape[1]), np.float32)
        classes, sums = support.reshape(-1, shots), prototypes.reshape(-1, prototypes.shape[2])
        batch = max(1, self._block // shots)
        for c in range(0, len(classes), batch):
            rows = classes[c : c + batch]
            examples = self._gather(rows.ravel()).reshape(*rows.shape, -1)
            np.add.reduce(examples, axis=1, out=sums[c : c + batch])
        prototypes *= self._scale
        prototypes /= np.float32(shots)
        return prototypes

    def _products(self, query: Rows, matrices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return gathered (unscaled) rows [E, n] times matrices [E, d, m]: [E, n, m]."""
        products = np.empty((*query.shape, matrices.shape[2]), np.float32)
        batch = max(1, self._block // query.shape[1])
        for e in range(0, len(query), batch):
            for start in range(0, query.shape[1], self._block):  # once, unless an episode exceeds a block
                block = slice(e, e + batch), slice(start, start + self._block)
                rows = query[block]
                examples = self._gather(rows.ravel()).reshape(*rows.shape, -1)
                np.matmul(examples, matrices[e : e + batch], out=products[block])
        return products

    def _centred(self, support: Rows, query: Rows) -> NDArray[np.float32]:
        examples = self._gather(support.ravel()).reshape(*support.shape, -1) * self._scale
        queries = self._gather(query) * self._scale
        advantage: NDArray[np.float32] = episode_advantage(examples, queries, self._distance)
        return advantage

    def _gather(self, rows: Rows) -> NDArray[np.float32]:
        """Copy rows into the buffer as float32, divided by the scale; valid until the next call."""
        if len(rows) > len(self._wide):
            self._wide = np.empty((len(rows), self._wide.shape[1]), np.float32)
        wide = self._wide[: len(rows)]
        # mode="clip" writes straight into `out`; "raise" would go through another buffer
        if self._features.dtype == np.float32:
            np.take(self._features, rows, axis=0, out=wide, mode="clip")
            return wide
        for start in range(0, len(rows), self._block):
            chunk = rows[start : start + self._block]
            half = self._half[: len(chunk)]
            np.take(self._features, chunk, axis=0, out=half, mode="clip")
            widen(half, wide[start : start + len(chunk)])
        return wide


def as_float(features: NDArray[Any]) -> NDArray[Any]:
    """Return features as native, contiguous float16 or float32, copied only if they are not."""
    half = features.dtype.kind == "f" and features.dtype.itemsize == 2
    return np.ascontiguousarray(features, np.float16 if half else np.float32)


def in_threads(work: Callable[[], None], threads: int) -> None:
    """Run `work` in several threads, including this one, and re-raise the first error."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # even an interrupt must reach the caller
            errors.append(error)

    workers = [threading.Thread(target=guarded) for _ in range(threads - 1)]
    for thread in workers:
        thread.start()
    guarded()
    for thread in workers:
        thread.join()
    if errors:
        raise errors[0]


def predict_on_device(
    features: Any, support: Rows, query: Rows, distance: Distance = "sqeuclidean"
) -> NDArray[np.int16]:
    """Do the same as `predict` on a device, with `features` a torch tensor [N, d] on it.

    Products must not use TF32 (torch's default, and `engine.runtime.float32_products`).
    """
    from engine.runtime import fetched, placed

    near, far = (placed(rows, str(features.device)) for rows in (support, query))
    return fetched(classify_on_device(features, near, far, distance))[0].astype(np.int16)


def classify_on_device(features: Any, support: Any, query: Any, distance: Distance = "sqeuclidean") -> Any:
    """Do the same as `predict_on_device`, with rows and answers on the device, too.

    Features are gathered in their stored precision. Their sums and products are float32: in half precision
    the differences between prototypes, which decide, would lose most of their digits.

    Args:
        features: [N, d]. support, query: int64 [E, N, K] and [E, N, Q], rows.

    Returns:
        int64 [E, N, Q].
    """
    import torch

    (episodes, ways, shots), queries = support.shape, query.shape[2]
    index = torch.cat([support.reshape(episodes, -1), query.reshape(episodes, -1)], dim=1)
    positions = torch.arange(ways, device=features.device)
    step = max(1, DEVICE_BYTES // (4 * index.shape[1] * max(features.shape[1], 1)))
    classes = []
    for start in range(0, episodes, step):
        drawn = features[index[start : start + step]].float()
        support_part = drawn[:, : ways * shots].unflatten(1, (ways, shots))
        advantage = episode_advantage(support_part, drawn[:, ways * shots :], distance)
        scores = torch.cat([torch.zeros_like(advantage[..., :1]), advantage], dim=-1)
        # torch's argmax may return any of several equal classes
        classes.append(torch.where(scores == scores.amax(-1, keepdim=True), positions, ways).amin(-1))
    return torch.cat(classes).reshape(episodes, ways, queries)


#: What to say where FAISS cannot be used.
WITHOUT_FAISS = ("backend 'faiss'", "use --backend array, which gives the same answers")


def predict_by_faiss(
    features: NDArray[Any],
    support: Rows,
    query: Rows,
    distance: Distance = "sqeuclidean",
    gpu: int | None = None,
) -> NDArray[np.int16]:
    """Do the same as `predict`, by one exact FAISS search per episode: a check, which shares no product.

    Args:
        gpu: number of the CUDA device that FAISS searches on; None for the CPU.

    Raises:
        Refused: FAISS is absent, or its import fails, or it cannot use the device.
    """
    if gpu is None:
        faiss = faiss_library.import_faiss(*WITHOUT_FAISS)
        search = faiss.knn
    else:
        faiss = faiss_library.import_faiss_on_gpu(gpu, *WITHOUT_FAISS)
        search = functools.partial(faiss.knn_gpu, faiss_library.gpu_resources(), device=gpu)
    classes = np.empty(query.shape, np.int16)
    for e in range(len(classes)):
        examples = features[support[e]].astype(np.float32)
        queries = features[query[e].ravel()].astype(np.float32)
        if distance == "centred":
            mean = examples.mean(axis=(0, 1))
            examples, queries = _unit(examples - mean), _unit(queries - mean)
        prototypes = examples.mean(axis=1)
        metric = faiss.METRIC_L2
        if distance == "cosine":
            prototypes, metric = _unit(prototypes), faiss.METRIC_INNER_PRODUCT
        nearest = search(queries, np.ascontiguousarray(prototypes), 1, metric=metric)[1]
        classes[e] = nearest.reshape(query.shape[1:])
    return classes
