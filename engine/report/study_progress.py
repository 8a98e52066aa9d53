"""Progress of a running study on stderr: a live grid on a terminal, a line for each cell elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engine.report import console
from engine.report.study_text import LEGEND, GridCell, counts, grid_lines

if TYPE_CHECKING:
    from engine.pipeline import PassProgress

#: Lines of the terminal that the grid leaves to what stands below it.
_OTHERS = 6


@dataclass
class StudyProgress:
    """The cells of a study with their states, and the pace at which the missing ones are made.

    Attributes:
        cells: key of a cell -> how the grid shows it.
        labels: key -> its name for people.
        expected: key -> seconds that it is expected to take, of the cells that are to be made.
        draw: shows the grid; None prints lines.
        passes: shows decode passes where there is no grid.
        made: cells that have ended; past: seconds that they were expected to take.
        status: of a running decode pass.
        started, said: `time.monotonic()`, now and when the last line of a cell was printed.
    """

    cells: dict[str, GridCell]
    labels: dict[str, str]
    expected: dict[str, float]
    draw: Callable[["StudyProgress"], None] | None = None
    passes: "Callable[[PassProgress], None] | None" = None
    made: int = 0
    past: float = 0.0
    status: str = ""
    started: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)
    _begun: dict[str, float] = field(default_factory=dict)

    def on_state(self, key: str, state: str) -> None:
        """Take a cell's new state."""
        self.cells[key] = replace(self.cells[key], state=state)
        if state == "running":
            self._begun.setdefault(key, time.monotonic())
        else:
            self.made += 1
            self.past += self.expected.setdefault(key, 0.0)  # a cell that was done, and is out of date
            self.status = ""
        self._show(key, state)

    def on_work(self, what: str) -> None:
        """Take what is done besides cells."""
        self.status = what
        if self.draw:
            self.draw(self)
        else:
            console.say(what)

    def on_detail(self, line: str) -> None:
        """Take a line on how far the running cell is."""
        self.status = line
        if self.draw:
            self.draw(self)
        elif time.monotonic() - self.said >= console.LINE_EVERY_S:
            self.said = time.monotonic()
            console.say(line)

    def on_embed(self, progress: "PassProgress") -> None:
        """Take the progress of a decode pass."""
        self.status = console.progress_line(progress)
        if self.draw:
            self.draw(self)
        elif self.passes:
            self.passes(progress)

    def _show(self, key: str, state: str) -> None:
        if self.draw:
            self.draw(self)
        elif state != "running":
            begun = self._begun.get(key)
            took = "" if begun is None else f" in {time.monotonic() - begun:.1f} s"
            console.say(f"{self.labels[key]}: {state}{took} ({self.pace})")

    @property
    def pace(self) -> str:
        """Cells made, rate and time left in words."""
        left = console.duration(self.seconds_left)
        minutes = (time.monotonic() - self.started) / 60
        rate = f", {self.made / minutes:,.1f} a minute" if self.made and minutes > 0 else ""
        return f"{self.made:,} of {len(self.expected):,}{rate}, {left} left"

    @property
    def seconds_left(self) -> float:
        """Seconds left by the estimates, corrected by how long the cells before took; NaN at first."""
        if not self.made:
            return float("nan")
        gone, total = time.monotonic() - self.started, sum(self.expected.values())
        if self.past > 0:
            return gone * max(0.0, total - self.past) / self.past
        return gone * (len(self.expected) - self.made) / self.made


@contextlib.contextmanager
def study_progress(
    cells: dict[str, GridCell], labels: dict[str, str], expected: dict[str, float]
) -> Iterator[StudyProgress]:
    """Show a study's progress on stderr for the body.

    Args:
        cells, labels, expected: as `StudyProgress`.
    """
    progress = StudyProgress(dict(cells), dict(labels), dict(expected))
    if not sys.stderr.isatty() or not expected:
        with console.embed_progress() as progress.passes:
            yield progress
        return
    from rich.console import Console
    from rich.live import Live

    terminal = Console(stderr=True)
    with Live(console=terminal, auto_refresh=False, transient=True) as live:
        last = 0.0

        def draw(now: StudyProgress) -> None:
            nonlocal last
            if time.monotonic() - last >= 0.1 or now.made == len(now.expected):
                last = time.monotonic()
                live.update(_picture(now, terminal.width, terminal.height), refresh=True)

        progress.draw = draw
        draw(progress)
        yield progress


@contextlib.contextmanager
def watch() -> Iterator[Callable[[Sequence[GridCell], str], None]]:
    """Yield a function that shows a grid in place of the one before, or where it cannot, counts in a line."""
    if not sys.stderr.isatty():
        last = ""

        def say(cells: Sequence[GridCell], what: str) -> None:
            nonlocal last
            line = "; ".join(filter(None, (counts(cells), what)))
            if line != last:
                console.say(line)
            last = line

        yield say
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    terminal = Console(stderr=True)
    with Live(console=terminal, auto_refresh=False, transient=True) as live:

        def draw(cells: Sequence[GridCell], what: str) -> None:
            lines = grid_lines(_shown(cells, max(terminal.height - _OTHERS, 4)), terminal.width)
            live.update(Text("\n".join([*lines, "", counts(cells), LEGEND, what])), refresh=True)

        yield draw


def _picture(progress: StudyProgress, width: int, height: int) -> Any:
    from rich.text import Text

    room = max(height - _OTHERS, 4)
    lines = grid_lines(_shown(list(progress.cells.values()), room), width)
    below = [counts(progress.cells.values()), LEGEND, progress.pace, progress.status]
    return Text("\n".join([*lines, "", *filter(None, below)]))


def _shown(cells: Sequence[GridCell], room: int) -> list[GridCell]:
    """Return the cells whose rows fit: all, or those of the data set that is worked on."""
    rows = {(cell.dataset, cell.model) for cell in cells}
    if len(rows) + 2 <= room:
        return list(cells)
    at = next((c.dataset for c in cells if c.state == "running"), None)
    at = at or next((c.dataset for c in cells if c.state == "missing"), cells[0].dataset)
    return [cell for cell in cells if cell.dataset == at]
