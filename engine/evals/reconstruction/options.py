"""Options of reconstruction, and those that the study fixed."""

from dataclasses import dataclass

from engine.errors import Refused
from stores.limits import MAX_SEED, check_number, check_seed, check_whole

MODES = ("default", "as-published")
#: Default number of images, of seeds, and of iterations of the study's command line.
IMAGES, SEEDS, STEPS = 4, 3, 3000
MAX_IMAGES, MAX_SEEDS, MAX_STEPS = 100_000_000, 1000, 10_000_000
#: Learning rate of Adam in the study.
LR = 1e-3


@dataclass(frozen=True)
class ReconstructionOptions:
    """Options of a reconstruction.

    Attributes:
        mode: `default`: the model's own preprocessing, several seeds, PNG. `as-published`: values of 0-1 at
            224 pixels for every model, one seed, one update more than `steps`, files of the kind of the
            source.
        images: how many, drawn by `seed` without replacement; None takes 4, or all if there are fewer.
        ids: these images instead.
        steps: updates of a network. seeds: networks for each image, of the seeds `seed`, `seed + 1`, ...;
            None takes 3, and 1 as-published.
        lr: learning rate.
        seed: of the draw of images, and the first of the networks.

    Raises:
        Refused: a value outside its range, or against the mode.
    """

    mode: str = "default"
    images: int | None = None
    ids: tuple[str, ...] = ()
    steps: int = STEPS
    seeds: int | None = None
    lr: float = LR
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise Refused(f"mode {self.mode!r}", f"It is one of {', '.join(MODES)}", "choose one")
        check_seed(self.seed)
        check_whole("steps", self.steps, 1, MAX_STEPS)
        check_number("lr", self.lr, 1e-12, 1e3, f"{LR:g} is the study's")
        for name, value, most in (("seeds", self.seeds, MAX_SEEDS), ("images", self.images, MAX_IMAGES)):
            if value is not None:
                check_whole(name, value, 1, most)
        if self.seed + self.count > MAX_SEED:
            raise Refused(f"seed {self.seed}", "The seeds after it are used as well", "choose a smaller one")
        if self.images is not None and self.ids:
            raise Refused("A number of images and their ids", "One of them decides", "give one of them")
        if self.mode == "as-published" and (self.count, self.lr) != (1, LR):
            raise Refused(
                f"{self.count} seeds and learning rate {self.lr:g}, as published",
                f"The study made one reconstruction of an image, at {LR:g}",
                "leave these options out, or use --mode default",
            )

    @property
    def wanted(self) -> int:
        """Images to draw."""
        return self.images or IMAGES

    @property
    def count(self) -> int:
        """Networks for each image."""
        return self.seeds or (SEEDS if self.mode == "default" else 1)

    @property
    def network_seeds(self) -> range:
        """Seeds of an image's networks."""
        return range(self.seed, self.seed + self.count)

    @property
    def updates(self) -> int:
        """Updates of a network. The study's loop runs to its number of iterations, and once more."""
        return self.steps + (self.mode == "as-published")
