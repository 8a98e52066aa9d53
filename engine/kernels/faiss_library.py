"""FAISS, imported when it is first needed, and nowhere else.

faiss-gpu raises all kinds of errors at its import where its CUDA libraries are missing, so every kind counts
as absent: `auto` then does without it, and who asked for it is refused with the reason.
"""

import functools
import importlib
import importlib.util
from typing import Any

from engine.errors import Refused

#: The most neighbours of a query that FAISS finds on a GPU.
GPU_MOST_NEIGHBOURS = 2048


@functools.cache
def why_not() -> str:
    """Say why FAISS cannot be used here, in one line; empty where it can be."""
    if importlib.util.find_spec("faiss") is None:
        return "FAISS is not installed here"
    try:
        importlib.import_module("faiss")
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        return f"FAISS is installed here but cannot be imported ({type(error).__name__}: {reason})"
    return ""


def library(wanted_by: str, instead: str) -> Any:
    """Import FAISS.

    Args:
        wanted_by: what needs it, e.g. "backend 'faiss'".
        instead: what does without it, e.g. "use --backend array".

    Raises:
        Refused: it is not installed, or its import fails.
    """
    if reason := why_not():
        install = "install embank[cpu], or embank[gpu] beside a GPU, never both"
        raise Refused(wanted_by, reason, f"{install}, or {instead}")
    return importlib.import_module("faiss")


def library_on(gpu: int, wanted_by: str, instead: str) -> Any:
    """Import FAISS for use on CUDA device number `gpu`.

    Args:
        wanted_by, instead: as for `library`.

    Raises:
        Refused: FAISS is absent or of the CPU alone, or sees no such device.
    """
    faiss = library(wanted_by, instead)
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
    """FAISS's memory and streams on the devices, hundreds of MiB each: one set a process."""
    return importlib.import_module("faiss").StandardGpuResources()
