"""Where and how numbers are computed: device, precision, threads, seed. Decided once, passed down.

The only module that names `torch.cuda`.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine import faults
from engine.errors import Refused
from stores.limits import MAX_THREADS, check_seed, check_whole

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]


def cuda_available() -> bool:
    """Whether torch sees at least one usable CUDA device."""
    import torch

    return torch.cuda.is_available()


def device_count() -> int:
    """CUDA devices that torch can use here; torch is not imported where there surely are none."""
    if not _perhaps_cuda():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def device_like(made_on: str, devices: int | None = None) -> str:
    """The device here that stands for one that something was made on.

    Args:
        made_on: `cpu` or `cuda:N`.
        devices: CUDA devices here; None counts them.

    Returns:
        That device if it is here, else the first of its kind, else `cpu`.
    """
    kind, _, index = made_on.partition(":")
    if kind != "cuda":
        return "cpu"
    count = device_count() if devices is None else devices
    if not count:
        return "cpu"
    return made_on if index.isdigit() and int(index) < count else "cuda:0"


def fast_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 are quicker there than in float32."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.get_device_capability(device) >= (8, 0))
    return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))


def usable_cores() -> int:
    """Cores this process may run on (affinity respected, unlike `os.cpu_count`)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Runtime:
    """One decision about the machine, made at the command line and handed to everything below.

    Attributes:
        device: `cpu` or `cuda:N`.
        precision: of the backbone's arithmetic; weights and stored norms stay float32.
        threads: worker threads for decoding, and torch's intra-op threads.
        seed: for whatever is drawn.
        compile: whether backbones go through `torch.compile`.
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
        """Turn `auto` into facts.

        `device="auto"` takes the first CUDA device, else the CPU. `precision="auto"` is bf16 on CUDA
        devices that have it, fp16 on older ones, fp32 on the CPU.

        Raises:
            Refused: unknown names, or CUDA asked for where there is none.
        """
        device = _resolve_device(device)
        if precision not in ("auto", "fp32", "bf16", "fp16"):
            raise Refused(f"precision {precision!r}", "It is one of auto, fp32, bf16, fp16", "choose one")
        if precision == "auto":
            precision = _best_precision(device)
        if precision == "fp16" and device == "cpu":
            raise Refused("fp16 on the CPU", "Half precision is for CUDA", "use --precision bf16 or fp32")
        if threads is not None:
            check_whole("threads", threads, 1, MAX_THREADS, "leave --threads out")
        check_seed(seed)
        return cls(device, precision, threads or usable_cores(), seed, compile)  # type: ignore[arg-type]

    @property
    def on_cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def torch_device(self) -> "torch.device":
        import torch

        return torch.device(self.device)

    @property
    def numerics(self) -> str:
        """What a feature's bits depend on here; part of the FeatureKey."""
        return self.precision + ("+compiled" if self.compile else "")


def _resolve_device(device: str) -> str:
    if device == "cpu":
        return device
    if device != "auto" and not device.startswith("cuda"):
        raise Refused(f"device {device!r}", "It is one of auto, cpu, cuda, cuda:N", "choose one")
    if device == "auto" and not _perhaps_cuda():
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


_DEVICES, _PCI_DEVICES = Path("/dev"), Path("/sys/bus/pci/devices")
#: What torch may call CUDA shows in /dev as one of these: NVIDIA's cards, Tegra, WSL, and AMD's cards.
_DEVICE_NODES = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")
_NVIDIA = "0x10de"


def _perhaps_cuda() -> bool:
    """False where there surely is no CUDA device: then torch, which takes seconds, need not be asked."""
    if sys.platform != "linux":
        return True
    if any(True for pattern in _DEVICE_NODES for _ in _DEVICES.glob(pattern)):
        return True
    # The driver makes its nodes when it is first used: a card may be there before them.
    try:
        return any(path.read_text().strip() == _NVIDIA for path in _PCI_DEVICES.glob("*/vendor"))
    except OSError:
        return True


def _best_precision(device: str) -> Precision:
    if device == "cpu":
        return "fp32"
    import torch

    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"


@contextlib.contextmanager
def autocast(runtime: Runtime) -> Iterator[None]:
    """Inference mode, with mixed precision where the runtime asks for it."""
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(runtime.precision)
    with torch.inference_mode():
        if dtype is None:
            yield
        else:
            with torch.autocast(runtime.torch_device.type, dtype=dtype):
                yield


def fix_flags(runtime: Runtime) -> dict[str, Any]:
    """Set the global switches that change bits, and return them for the record.

    float32 means float32: TF32 is off. cuDNN chooses its algorithm by the shape alone, never by timing
    (`benchmark` is off), and nondeterministic algorithms are excluded, so a run that resumes gives the same
    bits. On the CPU these switches mean nothing, and only the number of threads is set.
    """
    import torch

    torch.set_num_threads(runtime.threads)
    if runtime.on_cuda:
        torch.cuda.set_device(runtime.torch_device)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return {"threads": runtime.threads, "tf32": False, "cudnn_benchmark": False, "cudnn_deterministic": True}


def synchronize(device: str) -> None:
    """Wait until the device has finished; nothing on the CPU."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def peak_device_bytes(device: str, *, reset: bool = False) -> int:
    """Most bytes torch has held on the device since the last reset; 0 on the CPU."""
    if not device.startswith("cuda"):
        return 0
    import torch

    peak = int(torch.cuda.max_memory_allocated(device))
    if reset:
        torch.cuda.reset_peak_memory_stats(device)
    return peak


def current_stream_handle(device: str) -> int:
    """Address of torch's current CUDA stream, for libraries that take one (DALI)."""
    import torch

    return int(torch.cuda.current_stream(device).cuda_stream)


@contextlib.contextmanager
def side_stream(device: str) -> Iterator[None]:
    """Run the body's device work on a stream of its own; nothing on the CPU."""
    if not device.startswith("cuda"):
        yield
        return
    import torch

    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield


class HostCopy:
    """A device tensor on its way to pinned host memory; `wait` returns it once it has arrived.

    Args:
        tensor: any tensor; one on the CPU passes through without a copy.
    """

    def __init__(self, tensor: "torch.Tensor") -> None:
        self._event: Any = None
        if tensor.device.type != "cuda":
            self._host = tensor
            return
        import torch

        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> "torch.Tensor":
        if self._event is not None:
            self._event.synchronize()
        return self._host


class Span:
    """Seconds of one piece of device work, measured on the device itself (CUDA events) or by the clock."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self._device = device
        self._start = self._mark()
        self._stop: Any = None

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def stop(self) -> None:
        self._stop = self._mark()

    @property
    def seconds(self) -> float:
        """Seconds between start and stop; waits for the device if it must."""
        if not self._cuda:
            return float(self._stop - self._start)
        self._stop.synchronize()
        return float(self._start.elapsed_time(self._stop)) / 1e3


class DeviceEvent:
    """Marks a point in the current stream, so that another stream or thread can wait for it."""

    def __init__(self, device: str) -> None:
        self._event: Any = None
        if device.startswith("cuda"):
            import torch

            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(device))

    def make_current_stream_wait(self, *tensors: "torch.Tensor") -> None:
        """Order the current stream's later work after this point; the tensors' memory is kept for it."""
        if self._event is None:
            return
        import torch

        stream = torch.cuda.current_stream()
        stream.wait_event(self._event)
        for tensor in tensors:
            tensor.record_stream(stream)


@contextlib.contextmanager
def device_faults(memory_remedy: str | None = None) -> Iterator[None]:
    """Turn what libraries raise when memory is out or the device fails into faults that say how to resume.

    Args:
        memory_remedy: what makes the body need less memory; None gives a general remedy.

    Raises:
        OutOfMemory, DeviceLost, MachineFault: as `engine.faults.translate`.
    """
    try:
        yield
    except Exception as error:
        if fault := faults.translate(error, memory_remedy):
            raise fault from error
        raise


def describe_devices() -> list[dict[str, Any]]:
    """Facts of every CUDA device: name, memory in bytes, compute capability."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        found.append(
            {
                "device": f"cuda:{i}",
                "name": p.name,
                "memory": p.total_memory,
                "capability": f"{p.major}.{p.minor}",
            }
        )
    return found


def host_buffer(shape: tuple[int, ...], dtype: "torch.dtype", device: str) -> "torch.Tensor":
    """Uninitialised host memory for data on its way to `device`: pinned for CUDA, plain for the CPU."""
    import torch

    return torch.empty(shape, dtype=dtype, pin_memory=device.startswith("cuda"))


def to_device(tensor: "torch.Tensor", device: str) -> "torch.Tensor":
    """Upload a `host_buffer` on the current stream without waiting for it; on the CPU the tensor itself.

    torch reuses pinned memory only once the copies from it are done, so the buffer may be dropped at once.
    """
    return tensor.to(device, non_blocking=True) if device.startswith("cuda") else tensor


def toolkit_versions() -> dict[str, str]:
    """Versions of the CUDA and cuDNN that torch was built with; empty for a CPU build."""
    import torch

    if not torch.version.cuda:
        return {}
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return {"cuda": torch.version.cuda, "cudnn": str(cudnn or "absent")}


def device_memory(device: str) -> tuple[int, int]:
    """Free and total bytes of the device, whoever holds them (torch, DALI, others); zeros on the CPU."""
    if not device.startswith("cuda"):
        return 0, 0
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return int(free), int(total)


def release_cached(device: str) -> None:
    """Give back device memory that torch keeps for later and nothing uses."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


@contextlib.contextmanager
def plain_flags(*, tf32_matmul: bool = False) -> Iterator[None]:
    """torch's own defaults for the body, as in a script that sets nothing: TF32 convolutions, any algorithm.

    For measuring what others would get; `fix_flags`' choices are back afterwards.

    Args:
        tf32_matmul: also let matrix products use TF32, which torch leaves off.
    """
    with _cuda_flags(matmul_tf32=tf32_matmul, cudnn_tf32=True, deterministic=False):
        yield


@contextlib.contextmanager
def exact_flags() -> Iterator[None]:
    """float32 without TF32, by deterministic algorithms, for the body: whatever was set before is back after.

    For a truth to measure others by, in a process where nobody need have called `fix_flags`.
    """
    with _cuda_flags(matmul_tf32=False, cudnn_tf32=False, deterministic=True):
        yield


@contextlib.contextmanager
def _cuda_flags(*, matmul_tf32: bool, cudnn_tf32: bool, deterministic: bool) -> Iterator[None]:
    import torch

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = (
        matmul_tf32,
        cudnn_tf32,
        False,
        deterministic,
    )
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


@contextlib.contextmanager
def float32_products() -> Iterator[None]:
    """Compute the body's float32 products in float32, not TF32; the caller's setting is back afterwards."""
    import torch

    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        yield
    finally:
        matmul.allow_tf32 = before


@contextlib.contextmanager
def count_copies(device: str) -> Iterator[dict[str, int]]:
    """Count bytes copied between host and device by any library of this process while the body runs.

    Yields:
        A dictionary, filled at the end: `to_device`, `to_host` bytes and `copies`; empty on the CPU, or
        where the profiler sees no copies (no permission, no CUPTI).
    """
    counted: dict[str, int] = {}
    if not device.startswith("cuda"):
        yield counted
        return
    import tempfile  # not above: it would slow every start

    import torch

    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        yield counted
        torch.cuda.synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    # The trace is the profiler's only output that carries bytes.
    copies = [e for e in events if e.get("cat") == "gpu_memcpy"]
    for name, key in (("HtoD", "to_device"), ("DtoH", "to_host")):
        sizes = [int(e.get("args", {}).get("bytes", 0)) for e in copies if name in e.get("name", "")]
        if copies:
            counted[key] = sum(sizes)
    if copies:
        counted["copies"] = len(copies)
