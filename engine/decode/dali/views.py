"""Views of a row's image: its input to DALI, and the reference renderer's output instead."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.decode import pillow
from engine.decode.dali.graph import Target
from engine.decode.formats.header import Header
from engine.decode.geometry import plan
from engine.decode.random_crops import DrawCrop
from engine.recipes import Recipe


class View(Protocol):
    """A view of one row's image."""

    def target(self, header: Header) -> Target | None:
        """Return the image's values of the pipeline's inputs; None leaves it to the reference renderer."""
        ...

    def by_reference(self, data: bytes, header: Header) -> np.ndarray:
        """Return the pixels of the reference renderer, uint8 [side, side, 3].

        Raises:
            BadImage: as `engine.decode.pillow.render`.
        """
        ...


@dataclass(frozen=True)
class CentreView:
    """A recipe's resize and central crop, for the pipeline with the tail `CENTRE`."""

    recipe: Recipe

    def target(self, header: Header) -> Target | None:
        """See `View.target`."""
        to = plan(header.height, header.width, self.recipe)
        if to.extreme:
            return None
        return np.array([to.height, to.width], np.float32), np.array([to.top, to.left], np.int32)

    def by_reference(self, data: bytes, header: Header) -> np.ndarray:
        """See `View.by_reference`."""
        return pillow.render(data, header, self.recipe)


@dataclass(frozen=True)
class CropView:
    """A random crop, for the pipeline with the tail `CROP`."""

    recipe: Recipe
    draw: DrawCrop

    def target(self, header: Header) -> Target:
        """See `View.target`."""
        crop = self.draw(header.height, header.width)
        return (
            np.array([crop.top, crop.left], np.int32),
            np.array([crop.height, crop.width], np.int32),
            np.array(crop.flip, np.int32),
        )

    def by_reference(self, data: bytes, header: Header) -> np.ndarray:
        """See `View.by_reference`."""
        return pillow.render_crop(data, header, self.recipe, self.draw)[0]
