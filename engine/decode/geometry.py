"""Sizes and offsets of a recipe's resize and crop, shared by all renderers.

They equal those of torchvision (`transforms.Resize`, `transforms.CenterCrop`), in exact integer arithmetic.
"""

from dataclasses import dataclass

from engine.recipes import Recipe

#: Pixels after resizing above which only the part inside the crop is computed.
EXTREME_PIXELS = 16_000_000


@dataclass(frozen=True)
class Geometry:
    """Geometry of resizing and cropping one image, in pixels.

    Attributes:
        height, width: after resizing.
        top, left: of the crop in the resized image.
        side: of the crop.
    """

    height: int
    width: int
    top: int
    left: int
    side: int

    @property
    def extreme(self) -> bool:
        """True if the resized image is so large that only its crop should be computed."""
        return self.height * self.width > EXTREME_PIXELS


def plan(height: int, width: int, recipe: Recipe) -> Geometry:
    """Compute the geometry of an image of `height` x `width` pixels.

    The long side becomes floor(long * size / short). The crop starts at half the surplus, rounded half to
    even.
    """
    if recipe.resize == "exact":
        new_height = new_width = recipe.size
    else:
        short = min(height, width)
        new_height, new_width = height * recipe.size // short, width * recipe.size // short
    side = recipe.side
    return Geometry(new_height, new_width, _half_even(new_height - side), _half_even(new_width - side), side)


def _half_even(surplus: int) -> int:
    return round(surplus / 2)
