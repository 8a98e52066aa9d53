"""The only import of kvikio, which reads files straight into device memory (GPUDirect Storage).

What passes no host cannot be compared with a CRC-32C of the host. So only files are read in this way whose
SHA-256 has been found right and whose stamps say that nobody has written to them since, which is what the
mapped array relies on, too (`stores.bank.integrity`). Loss between the drive and the device is left to the
checks of their links. `KVIKIO_COMPAT_MODE=ON` in the environment turns the route off, and every byte is
checked on the host again.
"""

import functools
import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from engine.runtime.streams import DeviceEvent
from stores.backends import disk
from stores.bank.chunk_files import ChunkFiles

if TYPE_CHECKING:
    import torch


@functools.cache
def unavailable_reason() -> str:
    """Return in one line why files are not read straight into device memory; "" if they can be."""
    if importlib.util.find_spec("kvikio") is None:
        return "kvikio is not installed here"
    try:
        kvikio = _kvikio()
        mode = kvikio.defaults.get("compat_mode")
        if mode == kvikio.CompatMode.ON:
            return f"kvikio {kvikio.__version__} is in its compatibility mode (KVIKIO_COMPAT_MODE)"
        if not kvikio.cufile_driver.get("is_gds_available"):
            return f"kvikio {kvikio.__version__} finds no GPUDirect Storage (driver nvidia-fs)"
    except Exception as error:  # without its libraries it raises errors of any kind
        reason = " ".join(str(error).split())[:160]
        return f"kvikio is installed here but cannot be used ({type(error).__name__}: {reason})"
    return ""


def version() -> str:
    """Return kvikio's version."""
    return str(_kvikio().__version__)


def read(files: ChunkFiles, into: "torch.Tensor") -> bool:
    """Fill a tensor on a device from chunk files, without the host.

    Args:
        files: verified just now, by their stamps at least.
        into: [N, d], contiguous, of the files' precision.

    Returns:
        False where that cannot be done, here or on this file system; the tensor's content is then undefined.
    """
    if unavailable_reason():
        return False
    kvikio = _kvikio()
    try:
        # Without this, kvikio would silently read through the host where a file system has no GPUDirect.
        with kvikio.defaults.set("compat_mode", kvikio.CompatMode.OFF):
            return _read_all(kvikio, files, into)
    except Exception:  # no GPUDirect on this file system; what is wrong with a file, the host's route says
        return False


def _read_all(kvikio: Any, files: ChunkFiles, into: "torch.Tensor") -> bool:
    import torch

    # kvikio knows nothing of torch's streams, and the memory may be in use until there.
    DeviceEvent(str(into.device)).wait()
    target = into.view(torch.uint8).view(-1)
    opened: list[Any] = []
    reads: list[tuple[Any, int]] = []
    try:
        for index, path in enumerate(files.paths):
            disk.refuse_special(path, os.lstat(path))
            start = index * files.payload
            size = min(files.payload, files.size - start)
            opened.append(kvikio.CuFile(path, "r"))
            reads.append((opened[-1].pread(target[start : start + size], size), size))
        return all(future.get() == size for future, size in reads)
    finally:
        for future, _ in reads:  # none may write to memory that is given back
            _settled(future)
        for file in opened:
            file.close()


def _settled(future: Any) -> None:
    try:
        if not future.done():
            future.get()
    except Exception:
        return


def _kvikio() -> Any:
    for name in ("defaults", "cufile_driver"):
        importlib.import_module(f"kvikio.{name}")
    return importlib.import_module("kvikio")
