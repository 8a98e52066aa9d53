"""Options of perceptual distances."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.models.perceptual import MIN_SIDE, NETS, check_nets
from engine.recipes import Recipe
from stores.limits import check_whole

#: Side of the study's images, in pixels.
STUDY_SIDE = 224


@dataclass(frozen=True)
class PerceptualOptions:
    """Options of perceptual distances.

    Attributes:
        nets: of `alex`, `squeeze` and `vgg`.
        side: both images are scaled (short side, bicubic) and centre-cropped to this side in pixels, as in
            the study; None compares them at their own size, which must be equal.
        depth: rule for images of more than 8 bits a channel, see `engine.recipes.Recipe.showing`.
        batch_size: pairs a batch of 224-pixel images; of larger images fewer, so that memory stays the same.
        trunks: net -> file of its trunk; others come from the caches (`engine.models.perceptual`).

    Raises:
        Refused: nonsense.
    """

    nets: tuple[str, ...] = NETS
    side: int | None = STUDY_SIDE
    depth: str = "refuse"
    batch_size: int = 16
    trunks: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nets", check_nets(self.nets))
        check_whole("batch size", self.batch_size, 1, 1 << 16, "give 16")
        smallest = max(MIN_SIDE[net] for net in self.nets)
        if self.side is not None:
            check_whole("side", self.side, smallest, 8192, f"give {STUDY_SIDE}")
        self.rendering  # noqa: B018 - refuses a wrong depth

    @property
    def rendering(self) -> Recipe:
        """The rendering of both images; its sides have no influence where `side` is None."""
        side = self.side or STUDY_SIDE
        return Recipe(size=side, crop=side, normalise="none").showing(self.depth)
