"""Small banks for the store tests: those of the fault scripts."""

import threading
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.banks import *  # noqa: F403


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def at_once(jobs: list[Callable[[], object]]) -> tuple[list[object], list[BaseException]]:
    """Run jobs in a thread each, which start together: what they returned, and what they raised."""
    start, said, errors = threading.Barrier(len(jobs)), [], []

    def run(job: Callable[[], object]) -> None:
        start.wait()
        try:
            said.append(job())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said, errors
