"""Progress of a finetuning, and the estimate of its time and disk before it goes on."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from engine.evals.finetune.curve import Curve
from engine.evals.finetune.options import FinetuneOptions
from stores.json_types import JsonObject

#: Updates that are timed for the estimate.
TIMED = 3


@dataclass(frozen=True)
class Progress:
    """A running finetuning.

    Attributes:
        model: its title.
        step, steps: updates made, and at most to make.
        loss: of the newest update whose loss is known; NaN before the first.
        val_score: of the newest validation; NaN before the first.
        img_per_s: images trained on a second, in this process.
        seconds_left: until the last step at this pace, validations included; NaN before it is known.
    """

    model: str
    step: int
    steps: int
    loss: float
    val_score: float
    img_per_s: float
    seconds_left: float


@dataclass(frozen=True)
class Estimate:
    """The work that is left, and what it takes.

    Attributes:
        steps: updates left, at most.
        images: of an update.
        validations: left, at most; val_images: of each.
        seconds: about, from the first updates of this process.
        checkpoint_bytes: of the checkpoint; weights_bytes: of what stays when the run is done.
    """

    steps: int
    images: int
    validations: int
    val_images: int
    seconds: float
    checkpoint_bytes: int
    weights_bytes: int

    def to_dict(self) -> JsonObject:
        """Return all fields."""
        return asdict(self)


class Pace:
    """The clock of a run.

    Args:
        model: its title.
        options: of the run.
        val_images: of a validation.
        batch_size: images of an update, at most.
    """

    def __init__(self, model: str, options: FinetuneOptions, val_images: int, batch_size: int) -> None:
        self._model, self._options = model, options
        self._val_images, self._batch_size = val_images, batch_size
        self._updates = self._images = 0
        self._seconds = 0.0
        self._last = time.monotonic()
        self._estimated = False

    def add(self, images: int) -> None:
        """Note an update of so many images. The first of a process is not timed: it warms up."""
        now = time.monotonic()
        if self._updates:
            self._seconds += now - self._last
            self._images += images
        self._updates += 1
        self._last = now

    def skip(self) -> None:
        """Leave out the time since the last update, which was a validation's."""
        self._last = time.monotonic()

    def take_estimate(self) -> bool:
        """Return True once, when enough updates were timed for an estimate."""
        due = self._updates > TIMED and not self._estimated
        self._estimated = self._estimated or due
        return due

    def progress(self, step: int, loss: float, val_score: float) -> Progress:
        """Describe the run after so many updates."""
        rate = self._images / self._seconds if self._seconds else math.nan
        return Progress(
            self._model, step, self._options.steps, loss, val_score, rate, self._seconds_left(step)
        )

    def estimate(self, step: int, network_bytes: int, keeps_best: bool) -> Estimate:
        """Estimate what is left after so many updates.

        Args:
            network_bytes: of the network's weights, of which momentum, and the best ones, take as much again.
        """
        steps, validations = self._left(step)
        return Estimate(
            steps,
            self._batch_size,
            validations,
            self._val_images,
            self._seconds_left(step),
            network_bytes * (2 + keeps_best),
            network_bytes,
        )

    def _left(self, step: int) -> tuple[int, int]:
        """Return updates and validations that are left, at most."""
        steps, every = self._options.steps, self._options.validate_every
        return steps - step, -(-steps // every) - step // every

    def _seconds_left(self, step: int) -> float:
        """Return the seconds left; an image of a validation takes a third of one trained on."""
        if not self._images:
            return math.nan
        steps, validations = self._left(step)
        images = steps * self._images / (self._updates - 1) + validations * self._val_images / 3
        return images * self._seconds / self._images


@dataclass(frozen=True)
class Validation:
    """A validation that was just made.

    Attributes:
        model, label: of the run.
        select: the score by which the best weights are chosen.
        curve: all validations of the run so far, those before it was resumed included.
    """

    model: str
    label: str
    select: str
    curve: Curve


@dataclass(frozen=True)
class Hooks:
    """Callbacks of a run.

    Attributes:
        on_progress: called after every update, and every validation.
        on_estimate: called once the first updates of this process are timed.
        on_note: called with sentences for the reader as they become known, e.g. where a run goes on.
        on_validation: called after every validation, once its checkpoint is written.
    """

    on_progress: Callable[[Progress], None] | None = None
    on_estimate: Callable[[Estimate], None] | None = None
    on_note: Callable[[str], None] | None = None
    on_validation: Callable[[Validation], None] | None = None
