"""Whether the image files of a manifest can be used, found without decoding them where their structure tells.

Bytes within coded data that still decode, to other pixels, are not found: only a digest finds those.
"""

import zlib
from collections.abc import Callable
from dataclasses import replace

from engine.decode.formats.sniff import sniff
from engine.decode.formats.structure import png_rows_missing
from engine.decode.source import ImageSource
from engine.errors import BadImage
from engine.recipes import Recipe

#: Deep samples are no fault of a file: a recipe says what to do with them, and not all recipes can.
_RECIPE = replace(Recipe(), depth="scale")


def fault_finder(source: ImageSource) -> Callable[[int], tuple[str, str, bool] | None]:
    """Make a function that looks at one row's image, for `stores.manifest.check.check`.

    It reads the file or member and walks its structure (`engine.decode.formats.sniff`). Of a PNG the rows are
    counted too, and DICOM pixels are decoded, since their ends are seen nowhere else.

    Args:
        source: the files. Digests in it are not compared, as the check does that.

    Returns:
        A function of the row. It gives None for a sound file, else (code, detail, whether a setting or the
        machine stands in the way rather than the file), and raises MachineFault if the storage fails. It may
        be called in threads.
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
            missing = png_rows_missing(data)
        except zlib.error as error:
            raise BadImage("corrupt", "its PNG data do not unpack") from error
        if missing:
            raise BadImage("truncated", "its PNG data end before its last row")
    elif header.format == "DICOM":
        from engine.decode.pillow import picture

        picture(data, header, _RECIPE)
