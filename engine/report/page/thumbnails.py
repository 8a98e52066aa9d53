"""Small pictures of a bank's images, without their metadata, and placeholders where there is none.

Files are found, and compared with those that the features were made from, as by every command that opens
images (`engine.embed.restore`); the limits of the feature's run hold.
"""

import hashlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.report.page.blocks import Picture
from engine.report.page.inputs import Source
from stores.bank.reader import Bank
from stores.errors import BankError, Refused

if TYPE_CHECKING:
    from engine.decode.source import ImageSource
    from engine.recipes import Recipe

#: Longer side of a thumbnail, in pixels; JPEG quality.
SIDE, QUALITY = 112, 75
_GREY = (200, 200, 200)
Pixels = NDArray[np.uint8]


class NoPicture(Exception):
    """Why there is no picture, in a few words."""


@dataclass
class BankImages:
    """The image files of the features of one bank; what has been read once is remembered.

    Args:
        source: the data set.
    """

    source: Source
    _files: "dict[str, ImageSource | NoPicture]" = field(default_factory=dict, repr=False)
    _reduced_images: dict[tuple[str, int], Pixels | NoPicture] = field(default_factory=dict, repr=False)

    def uncropped(self, feature: str, row: int) -> Pixels:
        """Return an image, uncropped and reduced: uint8 [H, W, 3], its longer side `SIDE`.

        Args:
            feature: full name of the feature whose files are meant.
            row: of the bank.

        Raises:
            NoPicture: it is missing, unreadable or has changed. MachineFault: the storage failed.
        """
        place = feature, row
        if place not in self._reduced_images:
            try:
                self._reduced_images[place] = self._reduced(feature, row)
            except NoPicture as reason:
                self._reduced_images[place] = reason
        outcome = self._reduced_images[place]
        if isinstance(outcome, NoPicture):
            raise outcome
        return outcome

    def _reduced(self, feature: str, row: int) -> Pixels:
        from engine.decode.formats.sniff import sniff
        from engine.decode.pillow import picture
        from engine.errors import BadImage
        from engine.recipes import Recipe

        recipe = Recipe(depth="scale")
        data = self._read(feature, row)
        try:
            image = picture(data, sniff(data, recipe, self._source(feature).limits), recipe)
        except BadImage as error:
            raise NoPicture(error.code) from None
        return reduced(np.asarray(image.convert("RGB")))

    def rendered(self, feature: str, row: int, recipe: "Recipe", sha256: str = "") -> Pixels:
        """Return an image as a model sees it: uint8 [S, S, 3].

        Args:
            recipe: that renders it.
            sha256: of the file that is wanted; "" takes what the bank's digests admit.

        Raises:
            NoPicture: as `uncropped`; or the file is another one. MachineFault: the storage failed.
        """
        from engine.decode.formats.sniff import sniff
        from engine.decode.pillow import render
        from engine.errors import BadImage

        data = self._read(feature, row)
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise NoPicture("the file has changed")
        try:
            pixels: Pixels = render(data, sniff(data, recipe, self._source(feature).limits), recipe)
        except BadImage as error:
            raise NoPicture(error.code) from None
        return pixels

    def _read(self, feature: str, row: int) -> bytes:
        from engine.errors import BadImage, ChangedImage

        source = self._source(feature)
        if not 0 <= row < len(source):
            raise NoPicture("no such row")
        try:
            return source.read(row)
        except ChangedImage:
            raise NoPicture("the file has changed") from None
        except BadImage as error:
            raise NoPicture("the file has changed" if error.code == "digest" else error.code) from None

    def _source(self, feature: str) -> "ImageSource":
        """Find the files of a feature once."""
        from engine.embed.restore import images_of

        if feature not in self._files:
            try:
                self._files[feature] = images_of(Bank.open(self.source.bank), feature)
            except (BankError, Refused):
                self._files[feature] = NoPicture("the images are not there")
        files = self._files[feature]
        if isinstance(files, NoPicture):
            raise files
        return files


def reduced(pixels: Pixels, side: int = SIDE) -> Pixels:
    """Return uint8 [H, W, 3] pixels fitted into a square of `side`; small pictures are enlarged."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    filter = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    return np.asarray(image.resize(size, filter, reducing_gap=3.0))


def jpeg(title: str, pixels: Pixels, alt: str) -> Picture:
    """Return pixels uint8 [H, W, 3] as a small JPEG that holds nothing but them."""
    from PIL import Image

    small, buffer = reduced(pixels), io.BytesIO()
    Image.fromarray(small).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return Picture(title, buffer.getvalue(), "image/jpeg", small.shape[1], small.shape[0], alt)


def placeholder(title: str, reason: str) -> Picture:
    """Return a grey picture that says why there is no other."""
    from PIL import Image, ImageDraw

    from engine.report import text_drawing

    lines = text_drawing.lines_of(text_drawing.measure(), ["no picture:", reason], SIDE - 8)
    image = Image.new("RGB", (SIDE, SIDE), _GREY)
    top = max(2, (SIDE - text_drawing.LINE * len(lines)) // 2)
    text_drawing.write(ImageDraw.Draw(image), 4, top, lines, "#1e1e1e")
    buffer = io.BytesIO()
    image.quantize(16).save(buffer, "PNG", optimize=True)
    return Picture(title, buffer.getvalue(), "image/png", SIDE, SIDE, f"No picture: {reason}")
