"""The executor that does everything in this process: the reference for all others."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from engine.executors.base import Job, Session

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class Serial:
    """Executor that does all tasks in this process, in order."""

    workers: ClassVar[int] = 0

    def ask(self, function: Callable[..., R], *arguments: Any) -> R:
        """Call the function."""
        return function(*arguments)

    def run(self, function: Callable[..., R], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, R]]:
        """Call `function(*task)` for each task, in order; yield (position, result)."""
        for position, task in enumerate(tasks):
            yield position, function(*task)

    @contextlib.contextmanager
    def session(self, job: Job[T, R]) -> Iterator[Session[T, R]]:
        """Open the job in this process; its tasks overlap as far as the job allows, and report as they go."""
        with contextlib.closing(job.open()) as session:
            yield session


#: The default executor: this process.
SERIAL = Serial()
