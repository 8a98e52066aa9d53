"""Occlusion maps and reconstructions that a bank keeps, as records name them, with the image they are of."""

import hashlib
import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.embed.restore import recipe_of
from engine.recipes import Recipe
from engine.report.map_colours import Scale, blended
from engine.report.page.evidence import Evidence
from engine.report.page.thumbnails import BankImages, NoPicture, Pixels
from engine.report.record_values import text
from stores.bank import array_cache, documents
from stores.bank.layout import SIDE
from stores.bank.reader import Bank
from stores.errors import BankError
from stores.json_types import JsonObject

#: Path of a map or a reconstruction below the bank, as records name it.
_PATH = re.compile(
    rf"{re.escape(SIDE)}/(saliency|reconstructions)/([0-9a-f]{{12}})/[0-9a-f]{{16}}(-\d+)?\.arrays"
)


@dataclass(frozen=True)
class StoredItem:
    """One item of a record.

    Attributes:
        cell: of the record.
        body: of the item, e.g. `{image_id, row, attentive_diffusion, map}`.
        images: of the data set.
    """

    cell: Evidence
    body: JsonObject
    images: BankImages

    @property
    def row(self) -> int:
        """Row of the image; -1 where the record names none."""
        row = self.body.get("row")
        return row if isinstance(row, int) else -1

    @property
    def image_id(self) -> str:
        """Id of the image."""
        return text(self.body.get("image_id"))

    def overlay(self) -> Pixels:
        """Return the occlusion map over the image, as the model sees it: uint8 [M, M, 3].

        Raises:
            NoPicture: the map or the image is not there, damaged, or another one.
        """
        stored = self._stored("map")
        map: NDArray[np.float64] = stored.arrays["map"]
        pixels = self._inner(stored)
        if pixels.shape[:2] != map.shape:
            raise NoPicture("the map is of another size")
        return blended(pixels, Scale.of(map).share(map))

    def original(self, name: str) -> Pixels:
        """Return the image as the model sees it: uint8 [S, S, 3].

        Args:
            name: of the member with the path of the array file: `map` or `kept`.

        Raises:
            NoPicture: as `overlay`.
        """
        stored = self._stored(name)
        if name == "map":
            return self._inner(stored)
        # As published, networks see pixels that are not normalised.
        return self._rendered(stored, self._recipe(), Recipe(normalise="none"))

    def reconstruction(self) -> Pixels:
        """Return the reconstruction: uint8 [S, S, 3].

        Raises:
            NoPicture: it is not there, or damaged.
        """
        image = self._stored("kept").arrays["image"]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise NoPicture("no picture in the file")
        return np.asarray(image)

    def _stored(self, name: str) -> array_cache.ArrayFile:
        match = _PATH.fullmatch(text(self.body.get(name)))
        if match is None:
            raise NoPicture("none was kept")
        relative = match[0].removeprefix(f"{SIDE}/")
        try:
            stored = array_cache.read_stored(self.cell.source.bank, relative)
        except documents.BrokenDocument:
            raise NoPicture("the file is damaged") from None
        if stored is None:
            raise NoPicture("the file is gone")
        apart = ("model", "image", "what", *(["seed"] if match[1] == "reconstructions" else []))
        settings = {name: value for name, value in stored.key.items() if name not in apart}
        if hashlib.sha256(documents.canonical(settings)).hexdigest()[:12] != match[2]:
            raise NoPicture("the file is another one")
        return stored

    def _inner(self, stored: array_cache.ArrayFile) -> Pixels:
        """Return the part of the occluded image that a map is of."""
        edge = int(stored.key.get("size", 1)) - 1
        recipe = self._recipe()
        side = recipe.side + 2 * edge
        larger = replace(recipe, resize="short", size=side, crop=side, interpolation="bicubic")
        pixels = self._rendered(stored, larger)
        return pixels[edge : side - edge, edge : side - edge]

    def _rendered(self, stored: array_cache.ArrayFile, *recipes: Recipe) -> Pixels:
        """Render the image by the recipe that the file's key names."""
        fitting = [recipe for recipe in recipes if recipe.digest == stored.key.get("recipe")]
        if not fitting:
            raise NoPicture("the preprocessing has changed")
        feature = self.cell.entry.feature
        return self.images.rendered(feature, self.row, fitting[0], str(stored.key.get("image", "")))

    def _recipe(self) -> Recipe:
        """Return the recipe that the bank's features were made with."""
        feature = self.cell.entry.feature
        if not feature:
            raise NoPicture("the bank has no such features")
        try:
            return recipe_of(Bank.open(self.cell.source.bank), feature)
        except BankError:
            raise NoPicture("the bank has no such features") from None


def items_of(cell: Evidence, images: BankImages) -> list[StoredItem]:
    """Return the items of a record."""
    items = cell.record.metrics.get("items")
    return [StoredItem(cell, item, images) for item in items or () if isinstance(item, dict)]  # type: ignore[union-attr]
