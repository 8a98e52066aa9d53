"""Choice of the processes that compute, and the end of a stopped command."""

import contextlib
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from stores.errors import Refused

if TYPE_CHECKING:
    from engine.executors import Executor

EXIT_INTERRUPTED = 130


@contextlib.contextmanager
def executor_of(workers: int, scheduler: str | None, device: str) -> "Iterator[Executor]":
    """Yield the executor: this process, processes of this machine, or a scheduler's workers."""
    from engine import executors
    from engine.report import console
    from engine.runtime import cuda_available

    if workers and scheduler:
        raise Refused("--workers and --scheduler", "Either says who computes", "leave one out")
    if scheduler:
        with executors.remote(scheduler, say=console.say) as executor:
            yield executor
    elif workers:
        cuda = device != "cpu" and cuda_available()
        with executors.local(workers, cuda=cuda, say=console.say) as executor:
            yield executor
    else:
        yield executors.SERIAL


def threads_of_each(workers: int) -> int | None:
    """Return the threads of each process on this machine; None, which means all, for a single one."""
    from engine.runtime import usable_cores

    return max(1, usable_cores() // workers) if workers else None


class terminable:
    """Turn SIGTERM into KeyboardInterrupt, and KeyboardInterrupt into a resumable end."""

    def __enter__(self) -> "terminable":
        from engine.report.process import interrupt

        self._before = signal.signal(signal.SIGTERM, interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        signal.signal(signal.SIGTERM, self._before)
        if kind is KeyboardInterrupt:
            from engine.report.process import say_stopped

            say_stopped()
            raise typer.Exit(EXIT_INTERRUPTED)
