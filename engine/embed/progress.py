"""Counts of what a pass has done, and their display."""

import copy
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.pipeline import PROGRESS_EVERY_S, Clocks, PassProgress, StageClock, new_clocks
from stores.json_types import JsonObject


@dataclass
class Tally:
    """Counts of what has been done.

    Attributes:
        rows, failed: images done, and how many of them have no embedding.
        stages: clocks of the three stages.
        batch_sizes: images encoded in batches of each size.
        first_frames: images that are the first of several frames in their file (GIF).
        encoders: position of each model that was used -> how its encoder computes.
        encoding: position of each model -> the clock of its encoder alone, where several share a pass.
    """

    rows: int = 0
    failed: int = 0
    first_frames: int = 0
    stages: Clocks = field(default_factory=new_clocks)
    batch_sizes: Counter[int] = field(default_factory=Counter)
    encoders: dict[int, JsonObject] = field(default_factory=dict)
    encoding: dict[int, StageClock] = field(default_factory=dict)

    def add(self, part: "Tally") -> None:
        """Add a part, of this process or another; clocks add up over processes."""
        self.rows += part.rows
        self.failed += part.failed
        self.first_frames += part.first_frames
        self.batch_sizes.update(part.batch_sizes)
        self.encoders |= part.encoders
        for clock, clock_of_part in zip(self.stages, part.stages, strict=True):
            clock.add(clock_of_part)
        for position, clock_of_part in part.encoding.items():
            self.encoding.setdefault(position, StageClock()).add(clock_of_part)

    def since(self, earlier: "Tally") -> "Tally":
        """Return the part that has been done after an earlier state of this tally."""
        sizes = Counter(self.batch_sizes)
        sizes.subtract(earlier.batch_sizes)
        first, second, third = (
            now.since(then) for now, then in zip(self.stages, earlier.stages, strict=True)
        )
        encoding = {
            position: clock.since(earlier.encoding.get(position, StageClock()))
            for position, clock in self.encoding.items()
        }
        return Tally(
            self.rows - earlier.rows,
            self.failed - earlier.failed,
            self.first_frames - earlier.first_frames,
            (first, second, third),
            Counter({size: count for size, count in sizes.items() if count}),
            dict(self.encoders),
            encoding,
        )


class Reporter:
    """A reporter of a tally's growth, part by part; the parts add up to the tally."""

    def __init__(self, report: Callable[[Tally], None]) -> None:
        self.tally = Tally()
        self._report, self._reported = report, Tally()

    def send(self) -> None:
        """Report what has been added since the last call."""
        now = copy.deepcopy(self.tally)
        part, self._reported = now.since(self._reported), now
        self._report(part)


class Watch:
    """The sum of a pass's parts, which calls the progress callback, but not too often.

    Args:
        models: slugs.
        total: images that this run does.
        callback: None shows nothing.
        before: images that earlier runs have done.
    """

    def __init__(
        self,
        models: tuple[str, ...],
        total: int,
        callback: Callable[[PassProgress], None] | None,
        before: int = 0,
    ) -> None:
        self.tally = Tally()
        self._models, self._total, self._before, self._callback = models, total, before, callback
        self._started, self._last = time.perf_counter(), 0.0

    def count(self, part: Tally) -> None:
        """Add a part, and show where the pass is."""
        tally, now = self.tally, time.perf_counter()
        tally.add(part)
        too_soon = now - self._last < PROGRESS_EVERY_S and tally.rows < self._total
        if not self._callback or not part.rows or too_soon:
            return
        self._last = now
        done, total, seconds = self._before + tally.rows, self._before + self._total, now - self._started
        self._callback(
            PassProgress(self._models, done, total, tally.failed, seconds, *tally.stages, self._before)
        )
