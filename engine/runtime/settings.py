"""Device, precision, threads and seed of a command: decided once at the command line, and passed down."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import Refused
from engine.runtime.devices import Precision, best_precision, resolve_device, usable_cores
from stores.limits import MAX_THREADS, check_seed, check_whole

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Runtime:
    """How a command computes.

    Attributes:
        device: `cpu` or `cuda:N`.
        precision: of the backbone's arithmetic; weights and stored norms stay float32.
        threads: worker threads for decoding, and torch's intra-op threads.
        seed: of all random draws.
        compile: whether backbones are compiled with `torch.compile`.
    """

    device: str = "cpu"
    precision: Precision = "fp32"
    threads: int = 1
    seed: int = 0
    compile: bool = False

    @classmethod
    def resolve(
        cls,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        seed: int = 0,
        compile: bool = False,
    ) -> "Runtime":
        """Replace `auto` by what this machine has.

        `device="auto"` takes the first CUDA device, else the CPU. `precision="auto"` is bf16 on CUDA
        devices that support it, fp16 on older ones, fp32 on the CPU.

        Raises:
            Refused: unknown names, or a CUDA device where there is none.
        """
        device = resolve_device(device)
        if precision not in ("auto", "fp32", "bf16", "fp16"):
            raise Refused(f"precision {precision!r}", "It is one of auto, fp32, bf16, fp16", "choose one")
        if precision == "auto":
            precision = best_precision(device)
        if precision == "fp16" and device == "cpu":
            raise Refused("fp16 on the CPU", "Half precision is for CUDA", "use --precision bf16 or fp32")
        if threads is not None:
            check_whole("threads", threads, 1, MAX_THREADS, "leave --threads out")
        check_seed(seed)
        return cls(device, precision, threads or usable_cores(), seed, compile)  # type: ignore[arg-type]

    @property
    def on_cuda(self) -> bool:
        """True for a CUDA device."""
        return self.device.startswith("cuda")

    @property
    def torch_device(self) -> "torch.device":
        """The device as torch's object."""
        import torch

        return torch.device(self.device)

    @property
    def numerics(self) -> str:
        """The settings that the bits of a feature depend on; part of the FeatureKey."""
        return self.precision + ("+compiled" if self.compile else "")
