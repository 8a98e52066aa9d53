"""A task in a worker process of dask, and the end of a process that has lost its device."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from engine import faults
from engine.errors import DeviceLost, MachineFault

R = TypeVar("R")

#: Seconds that a worker without its device has left to say so; those after which it ends in any case; and how
#: its process ends.
FAREWELL_S, LAST_S = 0.5, 10.0
LOST_DEVICE = 3


def in_worker(function: Callable[..., R], *arguments: Any) -> R:
    """Do a task in a worker process, which ends itself after a fault that leaves it without its device."""
    _doomed.wait_for_the_end()
    try:
        return function(*arguments)
    except Exception as error:
        fault = error if isinstance(error, MachineFault) else faults.translate(error)
        if fault is None:
            raise
        if isinstance(fault, DeviceLost):
            fault.worker = _doomed.end_soon()
        raise fault from None  # its cause may be of a class that the other side cannot unpickle


class _Doom:
    """The end of this worker process. CUDA keeps the error that cost it its device: any further task would
    fail as well, and at once, so that it would draw the tasks that sound workers have no time for."""

    def __init__(self) -> None:
        self._near = threading.Event()

    def wait_for_the_end(self) -> None:
        """Return at once, unless the process is about to end: then never. dask gives the task to another."""
        while self._near.is_set():
            time.sleep(FAREWELL_S)

    def end_soon(self) -> str:
        """End the process when what is to be said has been sent; returns the worker's name.

        Its nanny, or whoever else started it, starts another one.
        """
        from distributed import get_worker

        worker = get_worker()
        if worker.address.startswith("inproc://"):  # a thread of the user's own process
            return str(worker.name)
        self._near.set()
        # By the loop that sends the news, so that a busy one ends no sooner than it has.
        worker.loop.add_callback(worker.loop.call_later, FAREWELL_S, os._exit, LOST_DEVICE)
        timer = threading.Timer(LAST_S, os._exit, [LOST_DEVICE])
        timer.daemon = True
        timer.start()
        return str(worker.name)


_doomed = _Doom()
