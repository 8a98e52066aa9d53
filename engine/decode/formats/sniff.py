"""What a file is, read from its structure before any decoder sees it.

All decoders share it, so that the same rows fail under every decoder.
"""

from dataclasses import replace

from engine.decode import pillow
from engine.decode.formats import dicom, orientation, structure
from engine.decode.formats.header import Header
from engine.decode.source import Limits
from engine.recipes import Recipe

#: DICOM's preamble may be the start of a TIFF.
_READERS = ((b"DICM", 128, dicom.header), *structure.READERS)


def sniff(data: bytes, recipe: Recipe, limits: Limits) -> Header:
    """Check a file and describe it.

    Args:
        data: the whole file.
        recipe: for its `depth`.
        limits: for `max_pixels`.

    Raises:
        BadImage: codes unknown_format, truncated, corrupt, too_large, multi_frame, no_pixels, depth,
            undecodable, needs_package.
    """
    header = _oriented(structure.read(data, limits, _READERS), data)
    if header.deep and not recipe.rules:
        raise pillow.refusal(data, header, recipe)
    return header


def _oriented(header: Header, data: bytes) -> Header:
    """With the orientation that the file asks for, wherever its format keeps it."""
    number = orientation.read(data, header.format)
    return header if number == 1 else replace(header, exif=True, orientation=number)
