"""The kernel that classifies the queries of episodes, on the device of the evaluation."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.compute import Compute
from engine.evals.common.features import Features, is_torch
from engine.kernels import faiss_library, prototypes
from engine.kernels.episodes import Episodes
from engine.runtime import device_number, float32_products, upload

#: More threads than this bring no further speed.
_MOST_THREADS = 16
#: Bytes of features brought to a device at a time where it has no room for all of them.
_PART_BYTES = 256 << 20

Predictor = Callable[[Episodes], NDArray[np.int16]]


def check_backend_here(compute: Compute) -> None:
    """Refuse FAISS where it is absent or cannot use the device. Raises Refused."""
    if compute.backend != "faiss":
        return
    if compute.device == "cpu":
        faiss_library.import_faiss(*prototypes.WITHOUT_FAISS)
    else:
        faiss_library.import_faiss_on_gpu(device_number(compute.device), *prototypes.WITHOUT_FAISS)


@dataclass(frozen=True, eq=False)
class Resident:
    """Features on a device, and their kernel for episodes drawn on the host.

    Attributes:
        array: tensor [N, d]. device: `cuda:N`. distance: of the prototypes.
    """

    array: Any
    device: str
    distance: prototypes.Distance

    def __call__(self, drawn: Episodes) -> NDArray[np.int16]:
        return _by_device(self.array, self.distance, drawn)


def common_device(predictors: Iterable[Predictor]) -> str | None:
    """Return the device that the features of all models are on; None if they are not all on one."""
    devices = {model.device if isinstance(model, Resident) else None for model in predictors}
    return devices.pop() if len(devices) == 1 else None


def predictor(features: Features, distance: str, compute: Compute) -> Predictor:
    """Return the kernel that classifies queries by these features, which are brought to the device.

    Where the device has no room for all of them, those of a few episodes are brought at a time.

    Args:
        distance: one of `engine.kernels.prototypes.DISTANCES`.

    Raises:
        Refused: FAISS is asked for and is not installed, or cannot use the device.
    """
    known = cast(prototypes.Distance, distance)
    check_backend_here(compute)
    if compute.backend == "faiss":
        gpu = None if compute.device == "cpu" else device_number(compute.device)
        return partial(_by_faiss, prototypes.as_float(_on_cpu(features.array)), known, gpu)
    if compute.device == "cpu":
        workers = min(compute.threads, _MOST_THREADS)
        return partial(_by_array, prototypes.as_float(_on_cpu(features.array)), known, workers)
    resident = features.on(compute.device, compute.memory)
    if resident is None:
        return partial(_in_parts, features.array, compute.device, known)
    return Resident(resident, compute.device, known)


def _by_array(
    array: NDArray[Any], distance: prototypes.Distance, threads: int, drawn: Episodes
) -> NDArray[np.int16]:
    return prototypes.predict(array, drawn.support, drawn.query, distance, threads)


def _by_device(array: Any, distance: prototypes.Distance, drawn: Episodes) -> NDArray[np.int16]:
    with float32_products():
        return prototypes.predict_on_device(array, drawn.support, drawn.query, distance)


def _by_faiss(
    array: NDArray[Any], distance: prototypes.Distance, gpu: int | None, drawn: Episodes
) -> NDArray[np.int16]:
    return prototypes.predict_by_faiss(array, drawn.support, drawn.query, distance, gpu)


def _on_cpu(array: Any) -> NDArray[Any]:
    on_host: NDArray[Any] = array.cpu().numpy() if is_torch(array) else array
    return on_host


def _in_parts(array: Any, device: str, distance: prototypes.Distance, drawn: Episodes) -> NDArray[np.int16]:
    """Classify a few episodes at a time, with their features alone on the device."""
    per_episode = (drawn.support[:1].size + drawn.query[:1].size) * array.shape[1] * array.dtype.itemsize
    step = max(1, _PART_BYTES // max(1, per_episode))
    answers = []
    for start in range(0, len(drawn), step):
        support, query = (rows[start : start + step] for rows in (drawn.support, drawn.query))
        rows, places = np.unique(np.concatenate([support.ravel(), query.ravel()]), return_inverse=True)
        near, far = np.split(places.ravel(), [support.size])
        part = Episodes(
            drawn.classes[start : start + step], near.reshape(support.shape), far.reshape(query.shape)
        )
        answers.append(_by_device(_taken(array, rows, device), distance, part))
    return np.concatenate(answers)


def _taken(array: Any, rows: NDArray[np.intp], device: str) -> Any:
    """Copy rows to a tensor on the device."""
    if not is_torch(array):
        return upload(array, device, rows)
    import torch

    return array[torch.from_numpy(rows).to(array.device)].to(device)
