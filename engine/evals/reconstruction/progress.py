"""Progress and estimate of a running reconstruction."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import nan

from engine.evals.reconstruction.result import Reconstruction
from stores.json_types import JsonObject


@dataclass(frozen=True)
class Estimate:
    """The work that is left, its time and its memory, from the first updates.

    Attributes:
        networks: that have to be optimised; updates: over all of them.
        abreast: networks that advance at a time.
        seconds: about.
        memory: bytes that the networks at work take.
    """

    networks: int
    updates: int
    abreast: int
    seconds: float
    memory: int

    def to_dict(self) -> JsonObject:
        """Return all fields."""
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """Progress of a reconstruction.

    Attributes:
        finished, networks: networks that are done, and all that had to be optimised.
        done, total: updates, over these.
        computed: updates by this run; seconds: since it began.
        loss: mean of the latest losses of the networks at work; NaN before the first.
    """

    finished: int
    networks: int
    done: int
    total: int
    computed: int
    seconds: float
    loss: float = nan

    @property
    def per_s(self) -> float:
        """Updates computed a second by this run."""
        return self.computed / self.seconds if self.seconds > 0 else nan

    @property
    def seconds_left(self) -> float:
        """Seconds until all updates are done; NaN before the first."""
        return (self.total - self.done) / self.per_s if self.computed else nan


@dataclass(frozen=True)
class Hooks:
    """Callbacks of a run, all from its own thread.

    Attributes:
        on_progress: called several times a second.
        on_reconstruction: called with each reconstruction, image by image.
        on_estimate: called once, after the first updates.
    """

    on_progress: Callable[[Progress], None] | None = None
    on_reconstruction: Callable[[Reconstruction], None] | None = None
    on_estimate: Callable[[Estimate], None] | None = None
