"""A task in a worker process of dask, and the end of a process that has lost its device."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from engine import faults
from engine.errors import DeviceLost, MachineFault

R = TypeVar("R")

#: Seconds in which a worker that has lost its device can report it; seconds after which it ends in any case;
#: and the exit code of its process.
FAREWELL_S, LAST_S = 0.5, 10.0
LOST_DEVICE = 3


def in_worker(function: Callable[..., R], *arguments: Any) -> R:
    """Do a task in a worker process; end the process after a fault that has cost it its device."""
    _doomed.wait_for_the_end()
    try:
        return function(*arguments)
    except Exception as error:
        fault = error if isinstance(error, MachineFault) else faults.translate(error)
        if fault is None:
            raise
        if isinstance(fault, DeviceLost):
            fault.worker = _doomed.end_soon()
        raise fault from None  # the other side may be unable to unpickle the class of its cause


class _Doom:
    """The pending end of this worker process.

    CUDA keeps the error that cost it its device: any further task would fail at once as well, so that this
    worker would draw the tasks for which sound workers have no time."""

    def __init__(self) -> None:
        self._near = threading.Event()

    def wait_for_the_end(self) -> None:
        """Return at once, or never if the process is about to end; dask then gives its task to another."""
        while self._near.is_set():
            time.sleep(FAREWELL_S)

    def end_soon(self) -> str:
        """End the process once pending messages have been sent; return the worker's name.

        Its nanny, or another parent, starts a new one.
        """
        from distributed import get_worker

        worker = get_worker()
        if worker.address.startswith("inproc://"):  # a thread of the user's own process
            return str(worker.name)
        self._near.set()
        # On the loop that sends the report, so that a busy one does not end before it is sent.
        worker.loop.add_callback(worker.loop.call_later, FAREWELL_S, os._exit, LOST_DEVICE)
        timer = threading.Timer(LAST_S, os._exit, [LOST_DEVICE])
        timer.daemon = True
        timer.start()
        return str(worker.name)


_doomed = _Doom()
