"""Haiku checkpoints, which are pickles, read in an isolated process; see `haiku_child`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from engine.errors import WeightsError
from engine.models.checkpoints import files

_CHILD = Path(__file__).with_name("haiku_child.py")
_SECONDS = 600
#: Memory limit: bytes for each byte of the file, and bytes on top. Protocol 2 writes bytes as text, so that
#: unpickling holds each array three times for a while.
_BYTES_A_BYTE, _BYTES = 6, 512 << 20


def read(path: Path, *, seconds: int = _SECONDS) -> dict[str, torch.Tensor]:
    """Read the parameters and the state that inference needs.

    Args:
        path: the pickle. Nothing in it is executed: the process that reads it has stand-ins for classes, and
            limits on memory (six times the file and 512 MiB) and time.
        seconds: limit of processor time.

    Returns:
        `TREE:MODULE:VARIABLE` -> tensor, of the trees `online_params` and `online_state`.

    Raises:
        WeightsError: it contains anything but arrays and containers, is damaged, or exceeds the limits.
    """
    files.sha256_of(path)  # refuses anything but a regular file of a plausible size
    memory = _BYTES_A_BYTE * path.stat().st_size + _BYTES
    with tempfile.TemporaryDirectory(prefix="embank-") as folder:
        out = Path(folder) / "arrays.safetensors"
        command = [sys.executable, "-I", "-S", "-B", str(_CHILD), str(path.resolve()), str(out)]
        try:
            process = subprocess.run(
                [*command, str(memory), str(seconds)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                cwd=folder,
                timeout=2 * seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _refuse(path, f"cannot be read within its limits ({2 * seconds} s)") from error
        if process.returncode:
            reason = process.stdout.decode("utf-8", "replace").strip()
            raise _refuse(path, reason or f"cannot be read within its limits (exit {process.returncode})")
        return _tensors(out)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    tensors: dict[str, torch.Tensor] = {}
    with safe_open(path, "pt") as file:
        fortran = set(json.loads(file.metadata()["fortran"]))
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            tensors[name] = _from_column_major(tensor) if name in fortran else tensor
    return tensors


def _from_column_major(tensor: torch.Tensor) -> torch.Tensor:
    """Return the row-major form of a tensor whose values are stored in column-major order."""
    return tensor.reshape(tuple(reversed(tensor.shape))).permute(*reversed(range(tensor.ndim))).contiguous()


def _refuse(path: Path, fault: str) -> WeightsError:
    return WeightsError(
        f"{path} {fault}",
        "A Haiku checkpoint holds arrays in mappings, and is read without executing anything",
        "fetch it again from its authors' address",
    )
