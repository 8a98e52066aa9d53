"""What is known of an image file before any decoder sees it."""

from dataclasses import dataclass
from typing import Literal

from engine.decode.source import Limits
from engine.errors import BadImage

Format = Literal["JPEG", "PNG", "TIFF", "WEBP", "BMP", "JPEG2000", "GIF", "DICOM", "AVIF", "PPM"]
Colour = Literal["grey", "rgb", "palette", "other"]


@dataclass(frozen=True)
class Header:
    """Facts of one image file.

    Attributes:
        format: Pillow's name of it, or DICOM.
        width, height: pixels, before any turning.
        bits: of each channel; 8 for palettes and bilevel images too, since that is what they hold once
            looked up.
        colour: how pixels are stored; `other` is CMYK and whatever else only the reference renderer takes.
        samples: `unsigned`, `signed` or `float`.
        inverted: stored samples are brighter the smaller they are (TIFF's WhiteIsZero, MONOCHROME1).
        exif: the file carries EXIF data or an orientation, so that a recipe with `exif` may turn it.
        orientation: 1 to 8, as EXIF numbers them; 1 if the file asks for no turn.
        frames: pictures in the file; more than one only where the first is shown (GIF).
        interlaced: a PNG in seven passes.
        plain: JPEG or PNG of a kind that every renderer gives the same pixels for, at the usual cost.
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
        """Whether samples do not fit into a byte, so that a recipe has to say how they become one."""
        return self.bits > 8 or self.samples != "unsigned"


def checked(header: Header, limits: Limits) -> Header:
    """Refuse impossible and dangerous sizes; called by each reader as soon as it knows the size."""
    width, height = header.width, header.height
    if width < 1 or height < 1:
        raise BadImage("corrupt", f"its header says {width} x {height} pixels")
    if width * height > limits.max_pixels:
        detail = f"{width} x {height} pixels, the limit is {limits.max_pixels} (`embank embed --max-pixels`)"
        raise BadImage("too_large", detail, pending=True)
    return header
