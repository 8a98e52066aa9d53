"""The arrays of a Haiku checkpoint (a pickle), read by a process of its own; see `haiku_child`."""

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
#: Protocol 2 writes bytes as text, so that unpickling holds each array three times for a while.
_MEMORY = (6, 512 << 20)


def read(path: Path, *, seconds: int = _SECONDS) -> dict[str, torch.Tensor]:
    """`TREE:MODULE:VARIABLE` -> tensor, of `online_params` and `online_state`.

    Args:
        path: the pickle. Nothing in it is executed: its process has stand-ins only, and limits on memory
            (six times the file and 512 MiB) and time.
        seconds: of processor time allowed.

    Raises:
        WeightsError: it asks for anything but arrays and containers, is damaged, or goes over the limits.
    """
    files.sha256_of(path)  # a regular file of a sane size
    times, more = _MEMORY
    memory = times * path.stat().st_size + more
    with tempfile.TemporaryDirectory(prefix="embank-") as folder:
        out = Path(folder) / "arrays.safetensors"
        command = [sys.executable, "-I", "-S", "-B", str(_CHILD), str(path.resolve()), str(out)]
        try:
            done = subprocess.run(
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
        if done.returncode:
            said = done.stdout.decode("utf-8", "replace").strip()
            raise _refuse(path, said or f"cannot be read within its limits (exit {done.returncode})")
        return _tensors(out)


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        columns = set(json.loads(opened.metadata()["fortran"]))
        return {name: _rows(opened.get_tensor(name), name in columns) for name in opened.keys()}  # noqa: SIM118


def _rows(tensor: torch.Tensor, columns: bool) -> torch.Tensor:
    if not columns:
        return tensor
    return tensor.reshape(tuple(reversed(tensor.shape))).permute(*reversed(range(tensor.ndim))).contiguous()


def _refuse(path: Path, found: str) -> WeightsError:
    return WeightsError(
        f"{path} {found}",
        "A Haiku checkpoint holds arrays in mappings, and is read without executing anything",
        "fetch it again from its authors' address",
    )
