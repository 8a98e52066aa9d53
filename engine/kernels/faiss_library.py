"""The only import of FAISS, made when it is first needed.

Without its CUDA libraries faiss-gpu raises errors of any kind on import, so any error counts as absence:
`auto` then works without FAISS, and an explicit choice of FAISS is refused with the reason.
"""

import functools
import importlib
import importlib.util
from typing import Any

from engine.errors import Refused

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
