"""The only import of FAISS, made when it is first needed.

Without its CUDA libraries faiss-gpu raises errors of any kind on import, so any error counts as absence:
`auto` then works without FAISS, and an explicit choice of FAISS is refused with the reason.
"""

import functools
import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine.errors import Refused
from engine.runtime.streams import current_device

if TYPE_CHECKING:
    import torch

#: Neighbours of a query that FAISS finds on a GPU, at most.
GPU_MAX_NEIGHBOURS = 2048


@functools.cache
def unavailable_reason() -> str:
    """Return in one line why FAISS cannot be used; "" if it can."""
    if importlib.util.find_spec("faiss") is None:
        return "FAISS is not installed here"
    try:
        importlib.import_module("faiss")
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        return f"FAISS is installed here but cannot be imported ({type(error).__name__}: {reason})"
    return ""


def import_faiss(wanted_by: str, instead: str) -> Any:
    """Import FAISS.

    Args:
        wanted_by: what needs FAISS, e.g. "backend 'faiss'".
        instead: an alternative without it, e.g. "use --backend array".

    Raises:
        Refused: FAISS is not installed, or its import fails.
    """
    if reason := unavailable_reason():
        install = "install embank[cpu], or embank[gpu] beside a GPU, never both"
        raise Refused(wanted_by, reason, f"{install}, or {instead}")
    return importlib.import_module("faiss")


def import_faiss_on_gpu(gpu: int, wanted_by: str, instead: str) -> Any:
    """Import FAISS for use on CUDA device number `gpu`.

    Args:
        wanted_by, instead: as for `import_faiss`.

    Raises:
        Refused: FAISS is absent, or built for the CPU only, or does not see the device.
    """
    faiss = import_faiss(wanted_by, instead)
    if not hasattr(faiss, "StandardGpuResources"):
        raise Refused(
            f"{wanted_by} on cuda:{gpu}",
            f"FAISS {faiss.__version__} is built for the CPU alone here",
            f"replace faiss-cpu by faiss-gpu (embank[gpu]), or {instead}",
        )
    count = faiss.get_num_gpus()
    if gpu >= count:
        raise Refused(
            f"{wanted_by} on cuda:{gpu}",
            f"FAISS sees {count} devices here",
            f"run `embank doctor`, or {instead}",
        )
    return faiss


@functools.cache
def gpu_resources() -> Any:
    """Return FAISS's memory and streams on the devices, hundreds of MiB each: one set per process."""
    return importlib.import_module("faiss").StandardGpuResources()


def gpu_unavailable_reason(gpu: int) -> str:
    """Return in one line why FAISS cannot be used on CUDA device number `gpu`; "" if it can."""
    try:
        import_faiss_on_gpu(gpu, "FAISS", "use torch")
    except Refused as refusal:
        return refusal.rule
    return ""


@contextmanager
def on_gpu(gpu: int) -> Iterator[Any]:
    """Run the body with FAISS taking and returning tensors of CUDA device number `gpu`.

    FAISS follows torch's stream of the device that is current, so that one is made current.

    Yields:
        FAISS.
    """
    faiss = importlib.import_module("faiss")
    importlib.import_module("faiss.contrib.torch_utils")  # lets FAISS take tensors
    with current_device(gpu):
        yield faiss


def knn_on_gpu(
    gpu: int, queries: "torch.Tensor", base: "torch.Tensor", k: int, *, cosine: bool
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Find the k best base vectors of each query on CUDA device number `gpu`; nothing leaves it.

    Args:
        queries, base: float32 [n, d] and [b, d] of that device.
        k: at most `GPU_MAX_NEIGHBOURS`, and b.
        cosine: products are compared; else squared distances.

    Returns:
        Products, or squared distances, float32 [n, k], and positions int64 [n, k] in the base.
    """
    with on_gpu(gpu) as faiss:
        metric = faiss.METRIC_INNER_PRODUCT if cosine else faiss.METRIC_L2
        values, positions = faiss.knn_gpu(
            gpu_resources(), queries.contiguous(), base.contiguous(), k, metric=metric, device=gpu
        )
    return values, positions
