"""Progress and estimates of a finetuning, on stderr."""

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
    from engine.evals.finetune.progress import Estimate, Hooks, Progress


def progress_line(progress: "Progress", width: int | None = None) -> str:
    """Describe a running finetuning in one line.

    Args:
        width: of the line, for which the model's name is shortened; None for no limit.
    """
    val = "" if math.isnan(progress.val_score) else f", validation {progress.val_score:.3f}"
    text = (
        f"step {progress.step:,}/{progress.steps:,}, loss {progress.loss:.4f}{val}, "
        f"{progress.img_per_s:,.1f} img/s, {duration(progress.seconds_left)} left"
    )
    if width is None:
        return f"{progress.model}: {text}"
    room, name = width - len(f": {text}"), plain(progress.model)
    return f"{shortened([name], room)[name]}: {text}" if room > 4 else text


def estimate_line(estimate: "Estimate") -> str:
    """Describe the work that is left, the time that it takes, and the disk."""
    steps, validations = (_counted(estimate.steps, "more step"), _counted(estimate.validations, "validation"))
    return (
        f"At most {steps} of {estimate.images:,} images and {validations} of {estimate.val_images:,}: about "
        f"{duration(estimate.seconds)} on this machine; {estimate.checkpoint_bytes / 1e6:,.0f} MB for "
        f"checkpoints, {estimate.weights_bytes / 1e6:,.0f} MB for the weights; stopped runs go on where they "
        "were"
    )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


@contextmanager
def show_progress() -> "Iterator[Hooks]":
    """Show progress on stderr: one overwritten line on a terminal, a line every ten seconds elsewhere."""
    from engine.evals.finetune.progress import Hooks

    live = sys.stderr.isatty()

    def clearing(text: str) -> None:
        if live:
            print("\r\x1b[K", end="", file=sys.stderr)
        say(text)

    try:
        yield Hooks(_updater(live), lambda estimate: clearing(estimate_line(estimate)), clearing)
    finally:
        if live:
            print(file=sys.stderr)


def _updater(live: bool) -> "Callable[[Progress], None]":
    interval = 0.25 if live else LINE_EVERY_S
    last, shown = time.monotonic() - (interval if live else 0), ""

    def update(progress: "Progress") -> None:
        nonlocal last, shown
        over = progress.step >= progress.steps and not math.isnan(progress.val_score)
        if (time.monotonic() - last < interval and not over) or progress_line(progress) == shown:
            return
        last, shown = time.monotonic(), progress_line(progress)
        if live:
            line = progress_line(progress, terminal_width() - 1)
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            say(progress_line(progress))

    return update
