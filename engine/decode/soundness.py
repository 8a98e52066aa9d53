"""Checks of the image files of a manifest, by their structure where that is enough.

Damage within coded data that still decodes, to other pixels, is not detected: that needs a digest.
"""

import zlib
from collections.abc import Callable
from dataclasses import replace

from engine.decode.formats import png
from engine.decode.formats.sniff import sniff
from engine.decode.source import ImageSource
from engine.errors import BadImage
from engine.recipes import Recipe

#: Deep samples are not a fault of the file: they depend on the recipe, and this one accepts most of them.
_RECIPE = replace(Recipe(), depth="scale")


def fault_finder(source: ImageSource) -> Callable[[int], tuple[str, str, bool] | None]:
    """Return a function that checks the image of a row, for `stores.manifest.check.check`.

    It reads the file or member and walks through its structure (`engine.decode.formats.sniff`). The rows of a
    PNG are counted, and DICOM pixels are decoded, because truncation shows nowhere else.

    Args:
        source: the files. Its digests are not compared, because the caller does that.

    Returns:
        A function of the row that returns None for a sound file, else (code, detail, pending), with pending
        True if a setting or the machine is at fault rather than the file. It raises MachineFault if the
        storage fails, and may be called from several threads.
    """
    plain = replace(source, sha256=None, contents=None)

    def fault(row: int) -> tuple[str, str, bool] | None:
        try:
            _look(plain.read(row), plain)
        except BadImage as error:
            return None if error.code == "depth" else (error.code, error.detail, error.pending)
        return None

    return fault


def _look(data: bytes, source: ImageSource) -> None:
    header = sniff(data, _RECIPE, source.limits)
    if header.format == "PNG":
        try:
            missing = png.rows_missing(data)
        except zlib.error as error:
            raise BadImage("corrupt", "its PNG data do not unpack") from error
        if missing:
            raise BadImage("truncated", "its PNG data end before its last row")
    elif header.format == "DICOM":
        from engine.decode.pillow import picture

        picture(data, header, _RECIPE)
