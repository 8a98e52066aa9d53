"""Executors do tasks: `Serial`, the reference, in this process, and `DaskExecutor` in worker processes.

A task is a pure function of its arguments whose effect, if any, may happen twice (chunks are committed
exclusively): workers may die, be stopped and come back, join and leave at any time.
"""

from engine.executors.base import Executor, Job, Local, Session
from engine.executors.dask import AHEAD, LOOK_S, DaskExecutor
from engine.executors.serial import SERIAL, Serial
from engine.executors.start import local, remote
from engine.executors.submitted import Submitted

__all__ = [
    "AHEAD",
    "LOOK_S",
    "SERIAL",
    "DaskExecutor",
    "Executor",
    "Job",
    "Local",
    "Serial",
    "Session",
    "Submitted",
    "local",
    "remote",
]
