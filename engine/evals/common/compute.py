"""Where an evaluation computes, found out without importing torch where there cannot be a GPU."""

from pathlib import Path

#: Present wherever an NVIDIA driver is loaded (Linux, and Linux under Windows).
_DRIVER = ("/dev/nvidiactl", "/dev/dxg")


def evaluation_device(device: str) -> str:
    """`cpu` or `cuda:N` for `auto`, `cpu`, `cuda` or `cuda:N`.

    Importing torch costs seconds, so it is done only where it may help.

    Raises:
        Refused: an unknown name, or CUDA asked for where there is none.
    """
    if device == "cpu" or (device == "auto" and not any(Path(name).exists() for name in _DRIVER)):
        return "cpu"
    from engine.runtime import Runtime

    return Runtime.resolve(device).device
