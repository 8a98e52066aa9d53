"""The header of an image file, as known before decoding."""

from dataclasses import dataclass
from typing import Literal

from engine.decode.source import Limits
from engine.errors import BadImage

Format = Literal["JPEG", "PNG", "TIFF", "WEBP", "BMP", "JPEG2000", "GIF", "DICOM", "AVIF", "PPM"]
Colour = Literal["grey", "rgb", "palette", "other"]


@dataclass(frozen=True)
class Header:
    """Properties of an image file.

    Attributes:
        format: Pillow's name of it, or DICOM.
        width, height: in pixels, before any rotation.
        bits: per channel; 8 also for palettes and bilevel images, which have 8 bits once decoded.
        colour: how pixels are stored; `other` for CMYK and everything else that only the reference renderer
            supports.
        samples: `unsigned`, `signed` or `float`.
        inverted: whether smaller samples are brighter (TIFF's WhiteIsZero, MONOCHROME1).
        exif: whether the file has EXIF data or an orientation, so that a recipe with `exif` may rotate it.
        orientation: 1 to 8, as in EXIF; 1 for an upright image.
        frames: images in the file; more than one only where the first is used (GIF).
        interlaced: whether a PNG is interlaced.
        plain: whether it is a JPEG or PNG that all renderers decode to the same pixels, at the usual cost.
    """

    format: Format
    width: int
    height: int
    bits: int = 8
    colour: Colour = "other"
    samples: Literal["unsigned", "signed", "float"] = "unsigned"
    inverted: bool = False
    exif: bool = False
    interlaced: bool = False
    plain: bool = False
    orientation: int = 1
    frames: int = 1

    @property
    def deep(self) -> bool:
        """True if samples do not fit into a byte, so that the recipe has to say how to convert them."""
        return self.bits > 8 or self.samples != "unsigned"


def check_size(header: Header, limits: Limits) -> Header:
    """Return the header if its size is possible and within the limits; called as soon as the size is known.

    Raises:
        BadImage: corrupt, too_large.
    """
    width, height = header.width, header.height
    if width < 1 or height < 1:
        raise BadImage("corrupt", f"its header says {width} x {height} pixels")
    if width * height > limits.max_pixels:
        detail = f"{width} x {height} pixels, the limit is {limits.max_pixels} (`embank embed --max-pixels`)"
        raise BadImage("too_large", detail, pending=True)
    return header
