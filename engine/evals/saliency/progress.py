"""Progress of a running saliency evaluation."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.evals.saliency.estimate import Estimate
from engine.evals.saliency.result import SaliencyMap


@dataclass(frozen=True)
class Progress:
    """Progress of an evaluation: places of the square that are done and to do, over all images."""

    image_id: str
    image: int
    images: int
    done: int
    total: int
    computed: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Places computed a second by this run."""
        return self.computed / self.seconds if self.seconds > 0 else float("nan")

    @property
    def seconds_left(self) -> float:
        """Seconds until all places are done; NaN before the first."""
        return (self.total - self.done) / self.per_s if self.computed else float("nan")


@dataclass(frozen=True)
class Hooks:
    """Callbacks of a run.

    Attributes:
        on_progress: called after every block of places.
        on_map: called with each map, in order.
        on_estimate: called on the CPU, before the first map is computed, with how long all of them will take.
    """

    on_progress: Callable[[Progress], None] | None = None
    on_map: Callable[[SaliencyMap], None] | None = None
    on_estimate: Callable[[Estimate], None] | None = None
