"""The executor that is this process: the reference for all others."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from engine.executors.base import Job, Session

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class Serial:
    """Everything in this process, in order."""

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
        """Open the job here: its tasks overlap as far as the job lets them, and report as they go."""
        with contextlib.closing(job.open()) as session:
            yield session


#: This process: the executor of whoever names no other.
SERIAL = Serial()
