"""Progress and estimates of saliency evaluations, on stderr."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.report.console import LINE_EVERY_S, duration, say
from engine.report.console import width as terminal_width
from engine.report.tables import shortened
from stores.manifest.uri_policy import plain

if TYPE_CHECKING:
    from engine.evals.saliency.estimate import Estimate
    from engine.evals.saliency.evaluate import Progress


def saliency_line(progress: "Progress", width: int | None = None) -> str:
    """Describe a running saliency evaluation in one line.

    Args:
        progress: of the evaluation.
        width: of the line, for which the image's id is shortened; None for no limit.
    """
    image = f"image {progress.image}/{progress.images}"
    counts = (
        f"{progress.done:,}/{progress.total:,} places, {progress.per_s:,.1f} places/s, "
        f"{duration(progress.seconds_left)} left"
    )
    if width is None:
        return f"{image} ({progress.image_id}): {counts}"
    room = width - len(f"{image} (): {counts}")
    name = plain(progress.image_id)
    return f"{image} ({shortened([name], room)[name]}): {counts}" if room > 4 else f"{image}: {counts}"


def estimate_lines(estimate: "Estimate") -> list[str]:
    """Describe, before maps are computed, how long it will take and what would take less time."""
    maps = f"{estimate.maps:,} {'map' if estimate.maps == 1 else 'maps'} at stride {estimate.stride}"
    time_needed = f"about {_rounded(estimate.seconds)}" if math.isfinite(estimate.seconds) else "a moment"
    lines = [f"{maps}, {estimate.places:,} places: {time_needed} on this machine"]
    if estimate.long:
        advice = "fewer --images take less" if estimate.coarser is None else (
            f"--stride {estimate.coarser} is coarser and takes less"
        )  # fmt: skip
        lines.append(f"That is long: {advice}; stopped runs go on where they were")
    if estimate.exact:
        lines.append(
            f"Exact maps of {estimate.exact:,} of these images are there, finished or begun: "
            "--stride 1 goes on with them"
        )
    return lines


def _rounded(seconds: float) -> str:
    """Format seconds with no more precision than an estimate has."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def say_estimate(estimate: "Estimate") -> None:
    """Print an estimate on stderr."""
    for line in estimate_lines(estimate):
        say(line)


@contextmanager
def show_progress() -> "Iterator[Callable[[Progress], None]]":
    """Show progress on stderr: one overwritten line on a terminal, a line every ten seconds elsewhere."""
    live, last = sys.stderr.isatty(), time.monotonic() - (LINE_EVERY_S if sys.stderr.isatty() else 0)

    def update(progress: "Progress") -> None:
        nonlocal last
        interval = 0.25 if live else LINE_EVERY_S
        if time.monotonic() - last < interval and progress.done < progress.total:
            return
        last = time.monotonic()
        if live:
            line = saliency_line(progress, terminal_width() - 1)
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            say(saliency_line(progress))

    try:
        yield update
    finally:
        if live:
            print(file=sys.stderr)
