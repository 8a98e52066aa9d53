"""The kernel that classifies the queries of episodes, on the device of the evaluation."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import is_torch
from engine.kernels import faiss_library, prototypes
from engine.kernels.episodes import Episodes
from engine.runtime import float32_products

#: More threads than this bring no further speed.
_MOST_THREADS = 16

Predictor = Callable[[Episodes], NDArray[np.int16]]


def check_backend_here(compute: Compute) -> None:
    """Refuse FAISS on a device. Raises Refused."""
    if compute.backend == "faiss" and compute.device != "cpu":
        raise Refused(
            f"backend faiss on {compute.device}",
            "It searches the few prototypes of an episode on the CPU",
            "use --backend array on a device, or --device cpu",
        )


def predictor(array: Any, distance: str, compute: Compute) -> Predictor:
    """Return the kernel that classifies queries by these features, which are brought to the device.

    Args:
        array: [N, d], numpy or torch.
        distance: one of `engine.kernels.prototypes.DISTANCES`.

    Raises:
        Refused: FAISS is asked for and is not installed, or on a device.
    """
    known = cast(prototypes.Distance, distance)
    check_backend_here(compute)
    if compute.backend == "faiss":
        faiss_library.import_faiss("backend 'faiss'", "use --backend array, which gives the same answers")
        return partial(_by_faiss, prototypes.as_float(_on_cpu(array)), known)
    if compute.device == "cpu":
        workers = min(compute.threads, _MOST_THREADS)
        return partial(_by_array, prototypes.as_float(_on_cpu(array)), known, workers)
    return partial(_by_device, _on_device(array, compute.device), known)


def _by_array(
    array: NDArray[Any], distance: prototypes.Distance, threads: int, drawn: Episodes
) -> NDArray[np.int16]:
    return prototypes.predict(array, drawn.support, drawn.query, distance, threads)


def _by_device(array: Any, distance: prototypes.Distance, drawn: Episodes) -> NDArray[np.int16]:
    with float32_products():
        return prototypes.predict_on_device(array, drawn.support, drawn.query, distance)


def _by_faiss(array: NDArray[Any], distance: prototypes.Distance, drawn: Episodes) -> NDArray[np.int16]:
    return prototypes.predict_by_faiss(array, drawn.support, drawn.query, distance)


def _on_cpu(array: Any) -> NDArray[Any]:
    on_host: NDArray[Any] = array.cpu().numpy() if is_torch(array) else array
    return on_host


def _on_device(array: Any, device: str) -> Any:
    """Copy an array to a tensor on the device."""
    import torch

    return array.to(device) if is_torch(array) else torch.tensor(array, device=device)
