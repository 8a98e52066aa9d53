"""The contract of executors.

An executor calls functions (`ask`, `run`) or does the tasks of a job in a session (`session`). A job
describes what a process needs for its tasks; each process that does some opens it once, and keeps what it has
loaded (a decoder, encoders on the GPU) from task to task.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

R = TypeVar("R")
T = TypeVar("T")
TaskOf = TypeVar("TaskOf", contravariant=True)
PartOf = TypeVar("PartOf", covariant=True)


class Session(Protocol[TaskOf, PartOf]):
    """A session in which the tasks of one job share what has been made ready for it."""

    def run(self, tasks: Sequence[TaskOf], report: Callable[[PartOf], None], /) -> None:
        """Do tasks; `report` gets each part of the result as soon as it is computed, from any thread."""

    def close(self) -> None:
        """Release what was made ready."""


class Job(Protocol[TaskOf, PartOf]):
    """Description of what tasks need: small, comparable, and pickled with each task for another process."""

    def open(self) -> Session[TaskOf, PartOf]:
        """Make ready whatever the tasks share."""


class Executor(Protocol):
    """A place where tasks are done: this process or others."""

    @property
    def workers(self) -> int:
        """Count the worker processes that compute at this moment; 0: this process computes."""

    def ask(self, function: Callable[..., R], *arguments: Any) -> R:
        """Call a function once, in a process that does tasks."""

    def run(self, function: Callable[..., R], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, R]]:
        """Call `function(*task)` for each task; yield (position of the task, result) as they end.

        Raises:
            EmbankError: as raised by a task; MachineFault after it has been tried again.
        """

    def session(self, job: Job[T, R]) -> AbstractContextManager[Session[T, R]]:
        """Open a session of a job, which does its tasks while the context lasts.

        Raises:
            EmbankError: as raised by opening the job, wherever that is, or by a task.
        """


@dataclass(frozen=True)
class Local(Generic[T]):
    """A value that only the process that made it has.

    Pickling leaves it out: another process gets `Local(None)`, and makes its own.
    """

    value: T | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Local, ()
