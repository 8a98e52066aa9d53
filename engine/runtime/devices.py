"""The devices of this machine: which there are, what they can do, and how much memory they have."""

import os
import sys
from pathlib import Path
from typing import Literal, TypedDict

from engine.errors import Refused

Precision = Literal["fp32", "bf16", "fp16"]


class DeviceDescription(TypedDict):
    """A CUDA device: name, memory in bytes, compute capability."""

    device: str
    name: str
    memory: int
    capability: str


_DEVICES, _PCI_DEVICES = Path("/dev"), Path("/sys/bus/pci/devices")
#: Device nodes of everything torch may call CUDA: NVIDIA's cards, Tegra, WSL, and AMD's cards.
_DEVICE_NODES = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")
_NVIDIA = "0x10de"


def cuda_available() -> bool:
    """Return True if torch sees at least one usable CUDA device."""
    import torch

    return torch.cuda.is_available()


def cuda_in_use() -> bool:
    """Return whether this process has begun to use a CUDA device."""
    import torch

    return bool(torch.cuda.is_initialized())


def device_count() -> int:
    """Return the number of CUDA devices usable by torch, which is not imported where there can be none."""
    if not _may_have_cuda():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def device_number(device: str) -> int:
    """Return N of `cuda:N`; 0 of `cuda` and `cpu`."""
    return int(device.partition(":")[2] or 0)


def device_like(made_on: str, devices: int | None = None) -> str:
    """Return this machine's counterpart of the device that something was made on.

    Args:
        made_on: `cpu` or `cuda:N`.
        devices: number of CUDA devices of this machine; None counts them.

    Returns:
        The same device if this machine has it, else the first of its kind, else `cpu`.
    """
    kind, _, index = made_on.partition(":")
    if kind != "cuda":
        return "cpu"
    count = device_count() if devices is None else devices
    if not count:
        return "cpu"
    return made_on if index.isdigit() and int(index) < count else "cuda:0"


def resolve_device(device: str) -> str:
    """Resolve `auto`, `cpu`, `cuda` or `cuda:N` to `cpu` or `cuda:N`.

    Raises:
        Refused: an unknown name, or a CUDA device that torch does not see.
    """
    if device == "cpu":
        return device
    if device != "auto" and not device.startswith("cuda"):
        raise Refused(f"device {device!r}", "It is one of auto, cpu, cuda, cuda:N", "choose one")
    if device == "auto" and not _may_have_cuda():
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        if device == "auto":
            return "cpu"
        raise Refused(
            f"device {device!r}", "torch sees no CUDA device here", "run `embank doctor`, or use --device cpu"
        )
    index = (
        int(device.partition(":")[2] or 0) if device.partition(":")[2].isdigit() or ":" not in device else -1
    )
    if not 0 <= index < torch.cuda.device_count():
        raise Refused(
            f"device {device!r}",
            f"This machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}",
            "choose one",
        )
    return f"cuda:{index}"


def _may_have_cuda() -> bool:
    """Return False if there can be no CUDA device, which saves the seconds of importing torch."""
    if sys.platform != "linux":
        return True
    if any(True for pattern in _DEVICE_NODES for _ in _DEVICES.glob(pattern)):
        return True
    # The driver creates its nodes when it is first used: a card may exist without them.
    try:
        return any(path.read_text().strip() == _NVIDIA for path in _PCI_DEVICES.glob("*/vendor"))
    except OSError:
        return True


def best_precision(device: str) -> Precision:
    """Return bf16 on CUDA devices that support it, fp16 on older ones, fp32 on the CPU."""
    if device == "cpu":
        return "fp32"
    import torch

    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"


def fast_bfloat16(device: str) -> bool:
    """Return True if bfloat16 products are faster on the device than float32 products."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.get_device_capability(device) >= (8, 0))
    return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))


def usable_cores() -> int:
    """Return the number of cores this process may run on (by its affinity, unlike `os.cpu_count`)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_devices() -> list[DeviceDescription]:
    """Describe every CUDA device."""
    import torch

    if not torch.cuda.is_available():
        return []
    descriptions: list[DeviceDescription] = []
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        descriptions.append(
            {
                "device": f"cuda:{i}",
                "name": properties.name,
                "memory": properties.total_memory,
                "capability": f"{properties.major}.{properties.minor}",
            }
        )
    return descriptions


def toolkit_versions() -> dict[str, str]:
    """Return the versions of CUDA and cuDNN that torch was built with; empty for a CPU build."""
    import torch

    if not torch.version.cuda:
        return {}
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return {"cuda": torch.version.cuda, "cudnn": str(cudnn or "absent")}


def device_memory(device: str) -> tuple[int, int]:
    """Return free and total bytes of the device's memory, whoever uses it; zeros on the CPU."""
    if not device.startswith("cuda"):
        return 0, 0
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return int(free), int(total)


def free_device_bytes(device: str) -> int:
    """Return the bytes of the device's memory that this process may still take; 0 on the CPU.

    That is what is free, and what torch holds without using it.
    """
    if not device.startswith("cuda"):
        return 0
    import torch

    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return device_memory(device)[0] + max(0, int(unused))


def peak_device_bytes(device: str, *, reset: bool = False) -> int:
    """Return the peak of bytes allocated by torch on the device since the last reset; 0 on the CPU."""
    if not device.startswith("cuda"):
        return 0
    import torch

    peak = int(torch.cuda.max_memory_allocated(device))
    if reset:
        torch.cuda.reset_peak_memory_stats(device)
    return peak


def release_cached(device: str) -> None:
    """Release device memory that torch caches and nothing uses."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
