"""A session whose tasks are done in worker processes, each of which keeps one job open."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from engine.executors.base import Executor, Job, Session

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class Submitted(Generic[T, R]):
    """A session that hands out tasks one by one; what a task reports arrives when it has ended."""

    executor: Executor
    job: Job[T, R]

    def run(self, tasks: Sequence[T], report: Callable[[R], None], /) -> None:
        """Have the tasks done, in any order."""
        for _, parts in self.executor.run(run_task, [(self.job, task) for task in tasks]):
            for part in parts:
                report(part)

    def close(self) -> None:
        """Do nothing: the workers keep the job open for further tasks of it."""


_turn = threading.Lock()
_open: tuple[Job[Any, Any], Session[Any, Any]] | None = None


def run_task(job: Job[T, R], task: T) -> list[R]:
    """Do one task in a worker process, which keeps the job open for the next ones.

    One task at a time, whatever the number of threads that the worker was given: a session has its own. One
    job at a time: of two jobs' models only one is in memory.

    Returns:
        All that the task reported.
    """
    global _open
    with _turn:
        if _open is None or _open[0] != job:
            if _open is not None:
                _open[1].close()
                _open = None
            _open = job, job.open()
        parts: list[R] = []
        try:
            _open[1].run([task], parts.append)
        except BaseException:
            _open = None  # a session that was interrupted is not used again
            raise
        return parts
