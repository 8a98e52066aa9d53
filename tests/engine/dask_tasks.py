"""Tasks for dask's workers, which import this module whenever they start again: it loads without torch."""

import os
import signal
import time
from pathlib import Path

from engine.errors import MachineFault, Refused


def square(x: int) -> int:
    return x * x


def refuse(_: int) -> None:
    raise Refused("a number", "None is good", "give none")


def fail_until(marker: str) -> str:
    """Fails as a machine does at the first call, then succeeds."""
    if not Path(marker).exists():
        Path(marker).touch()
        raise MachineFault("The disk is full", "It must not be", "free space")
    return "done"


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lose_device(folder: str, message: str, often: int, task: int) -> tuple[int, int]:
    """Meets a dead CUDA context in a process that `often` other processes have not met before."""
    mark = Path(folder, str(os.getpid()))
    if not mark.exists():
        if len(list(Path(folder).iterdir())) < often:
            mark.write_text(str(task))
            raise RuntimeError(message)
        return task, os.getpid()
    mark.write_text(mark.read_text() + f" {task}")  # the context is still dead
    raise RuntimeError(message)


def lose_then_fail(folder: str) -> str:
    """Loses its device in one process, fails once in the next, then succeeds."""
    count = len(list(Path(folder).iterdir()))
    Path(folder, str(count)).touch()
    if count == 0:
        raise RuntimeError("CUDA error: unspecified launch failure")
    if count == 1:
        raise MachineFault("The disk is full", "It must not be", "free space")
    return "done"


def lose_on(folder: str, task: int) -> tuple[int, str]:
    """On the worker named 0, whichever process it is, the device is gone for good."""
    from distributed import get_worker

    if str(get_worker().name) == "0":
        Path(folder, str(os.getpid())).write_text(str(task))
        raise RuntimeError("No CUDA GPUs are available")
    time.sleep(0.2)
    return task, str(get_worker().name)


def run_out(_: int) -> None:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def stumble(_: int) -> None:
    raise ZeroDivisionError("a fault of the program")


def sleep(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()
