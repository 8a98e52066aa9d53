"""Choice of the device of an evaluation, without importing torch where there cannot be a GPU."""

import re
from dataclasses import dataclass
from pathlib import Path

from engine.errors import Refused
from engine.runtime import usable_cores
from stores import limits

#: Backends for distances and neighbours, with equal results.
BACKENDS = ("auto", "array", "faiss")

#: Present wherever an NVIDIA driver is loaded (Linux, and Linux under Windows).
_DRIVER = ("/dev/nvidiactl", "/dev/dxg")
_DEVICE = re.compile(r"cpu|cuda:\d+")


@dataclass(frozen=True)
class Compute:
    """Device, threads, backend and memory for an evaluation, chosen once.

    Attributes:
        device: `cpu` or `cuda:N`.
        threads: of the CPU that the evaluation may use.
        backend: `auto`, `array` (numpy, or torch on a device) or `faiss`; evaluations that know other
            backends take `auto` and choose among them by their options.
        memory: bytes that it may take; None for what the machine has.

    Raises:
        Refused: a value out of range.
    """

    device: str = "cpu"
    threads: int = 1
    backend: str = "auto"
    memory: int | None = None

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise Refused(
                f"device {self.device!r}", "It is cpu or cuda:N", "let Compute.resolve find the device"
            )
        limits.check_whole("threads", self.threads, 1, limits.MAX_THREADS)
        check_backend(self.backend)
        if self.memory is not None:
            limits.check_whole("memory", self.memory, 1, 1 << 60, "leave it out for what the machine has")

    @classmethod
    def resolve(
        cls,
        device: str = "auto",
        threads: int | None = None,
        backend: str = "auto",
        memory: int | None = None,
    ) -> "Compute":
        """Choose device, threads, backend and memory for an evaluation.

        Args:
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            threads: None takes all usable cores.
            backend, memory: as the attributes.

        Raises:
            Refused: an unknown name, a value out of range, or CUDA asked for where there is none.
        """
        cores = usable_cores() if threads is None else threads
        return cls(evaluation_device(device), cores, backend, memory)

    def check_memory(self, needed: int, what: str, remedy: str) -> None:
        """Refuse what takes more memory than this evaluation may take or the machine has. Raises Refused."""
        if self.memory is not None and needed > self.memory:
            raise Refused(
                f"{what} would take {needed / 2**30:,.1f} GiB of memory",
                f"{self.memory / 2**30:,.1f} GiB are allowed",
                f"{remedy}, or allow more memory",
            )
        limits.check_memory(needed, what, remedy)


def check_backend(backend: str) -> None:
    """Refuse a backend that no evaluation has. Raises Refused."""
    if backend not in BACKENDS:
        raise Refused(f"backend {backend!r}", f"It is one of {', '.join(BACKENDS)}", "choose one")


def evaluation_device(device: str) -> str:
    """Return `cpu` or `cuda:N` for `auto`, `cpu`, `cuda` or `cuda:N`.

    Importing torch costs seconds, so it is done only where it may help.

    Raises:
        Refused: an unknown name, or CUDA asked for where there is none.
    """
    if device == "cpu" or (device == "auto" and not any(Path(name).exists() for name in _DRIVER)):
        return "cpu"
    from engine.runtime import Runtime

    return Runtime.resolve(device).device
