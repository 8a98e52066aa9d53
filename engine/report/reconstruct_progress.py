"""Progress and estimates of reconstructions, on stderr."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.report.console import LINE_EVERY_S, duration, say
from engine.report.console import width as terminal_width

if TYPE_CHECKING:
    from engine.evals.reconstruction.progress import Estimate, Progress

#: Seconds from which an estimate also says what takes less.
LONG_S = 600.0


def reconstruction_line(progress: "Progress") -> str:
    """Describe running reconstructions in one line, with the mean of the latest losses."""
    loss = f"loss {progress.loss:.4g}" if math.isfinite(progress.loss) else "loss not known yet"
    left = duration(progress.seconds_left) if math.isfinite(progress.seconds_left) else "?"
    return (
        f"network {min(progress.finished + 1, progress.networks)}/{progress.networks}: "
        f"{progress.done:,}/{progress.total:,} updates, {progress.per_s:,.2f} a second, {loss}, {left} left"
    )


def estimate_lines(estimate: "Estimate") -> list[str]:
    """Describe, after the first updates, how long a run will take, and in how much memory."""
    networks = f"{estimate.networks:,} network{'' if estimate.networks == 1 else 's'}"
    lines = [
        f"{networks}, {estimate.abreast} at a time in {estimate.memory / 2**30:.1f} GiB, "
        f"{estimate.updates:,} updates: about {duration(estimate.seconds)} on this machine"
    ]
    if estimate.seconds > LONG_S:
        lines.append(
            "That is long: fewer --images, --seeds or --steps take less; a stopped run goes on where it was"
        )
    return lines


def say_estimate(estimate: "Estimate") -> None:
    """Print an estimate on stderr."""
    for line in estimate_lines(estimate):
        say(line)


@contextmanager
def show_progress() -> "Iterator[Callable[[Progress], None]]":
    """Show progress on stderr: one overwritten line on a terminal, a line every ten seconds elsewhere."""
    live, last = sys.stderr.isatty(), time.monotonic()

    def update(progress: "Progress") -> None:
        nonlocal last
        interval = 0.25 if live else LINE_EVERY_S
        if time.monotonic() - last < interval and progress.finished < progress.networks:
            return
        last = time.monotonic()
        if live:
            line = reconstruction_line(progress)[: terminal_width() - 1]
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            say(reconstruction_line(progress))

    try:
        yield update
    finally:
        if live:
            print(file=sys.stderr)
