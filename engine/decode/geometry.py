"""Sizes and offsets of a recipe's resize and crop: one computation that all renderers share.

They are torchvision's (`transforms.Resize`, `transforms.CenterCrop`), in exact integer arithmetic.
"""

from dataclasses import dataclass

from engine.recipes import Recipe

#: Past this many pixels after resizing, only the window that the crop keeps is computed.
EXTREME_PIXELS = 16_000_000


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of one image go.

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
        """Whether rendering the whole resized image would be a waste, or a danger, of memory."""
        return self.height * self.width > EXTREME_PIXELS


def plan(height: int, width: int, recipe: Recipe) -> Geometry:
    """Geometry of one image of `height` x `width` pixels.

    The long side becomes floor(long * size / short). The crop starts at half the surplus, rounded half
    to even.
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
