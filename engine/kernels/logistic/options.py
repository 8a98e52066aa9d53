"""How a path of logistic regressions is solved: precision, effort, device and memory."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.runtime import free_device_bytes

#: Called with (fits converged or stopped, first counted in float32; fits in all; iterations so far).
Progress = Callable[[int, int, int], None]

#: Bytes that the solver takes on the CPU.
_CPU_MEMORY = 4 << 30


@dataclass(frozen=True)
class Options:
    """Options of the solver.

    Attributes:
        tolerance: estimated (f - min f) / f at which a fit has converged.
        max_iterations: of one fit in float32, and again each time (at most twice) that the check in float64
            finds that more are needed.
        device: `cpu` or `cuda:N`.
        threads: of torch's products on the CPU; None leaves torch's setting. Small problems use one thread,
            because threads wait for one another on busy cores.
        memory: bytes that the solver may use beyond its inputs: 8/16 for the design matrix, 5/16 for Hessian
            blocks, 3/16 for the fits iterated together. A design matrix that does not fit in its share as
            float32 is read and widened again in every pass. None takes 4 GiB on the CPU, and on a CUDA device
            three quarters of its memory that is free when the fit begins.
    """

    tolerance: float = 1e-7
    max_iterations: int = 2000
    device: str = "cpu"
    threads: int | None = None
    memory: int | None = None

    @property
    def limit(self) -> int:
        """`memory` in bytes, where it is None what this device has now."""
        if self.memory is not None:
            return self.memory
        if self.device.startswith("cuda"):
            return free_device_bytes(self.device) * 3 // 4
        return _CPU_MEMORY
