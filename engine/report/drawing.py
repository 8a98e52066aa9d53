"""Pictures on their way to a file: PNG, SVG or PDF by the ending, signed with the command that drew them."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stores.outputs import author, new_file

if TYPE_CHECKING:
    from PIL.Image import Image

#: As matplotlib writes it, so that one reading serves both.
_SVG = """<?xml version="1.0" encoding="utf-8" standalone="no"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1"
 width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<metadata>
<rdf:RDF xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:cc="http://creativecommons.org/ns#"
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<cc:Work><dc:creator><cc:Agent><dc:title>{author}</dc:title></cc:Agent></dc:creator></cc:Work>
</rdf:RDF>
</metadata>
<image width="{width}" height="{height}" xlink:href="data:image/png;base64,{data}"/>
</svg>
"""


def save_picture(image: "Image", out: Path, command: str) -> None:
    """Write pixels, whole or not at all; an SVG holds them as a PNG.

    Args:
        out: its ending, .png, .svg or .pdf, says the format; missing folders are made.
        command: that drew it, e.g. `search`.

    Raises:
        Refused: the folder is not writable. MachineFault: the disk is full or fails.
    """
    with new_file(out) as file:
        kind = out.suffix.lower()
        if kind == ".svg":
            data = base64.b64encode(_png(image, command)).decode("ascii")
            text = _SVG.format(width=image.width, height=image.height, author=author(command), data=data)
            file.write(text.encode())
        elif kind == ".pdf":
            undated: Any = {"creationDate": None, "modDate": None}
            image.save(file, format="PDF", creator=author(command), **undated)
        else:
            file.write(_png(image, command))


def _png(image: "Image", command: str) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    text, buffer = PngInfo(), io.BytesIO()
    text.add_text("Software", author(command))
    image.save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue()


def save_figure(figure: Any, out: Path, command: str, dpi: int = 130) -> None:
    """Write a matplotlib figure, whole or not at all; the same figure gives the same bytes.

    Args:
        figure, dpi: as matplotlib's `savefig`.
        out, command: as for `save_picture`.

    Raises:
        Refused: the folder is not writable. MachineFault: the disk is full or fails.
    """
    import matplotlib

    kind = out.suffix.lower().lstrip(".") or "png"
    of_kind: dict[str, dict[str, Any]] = {
        "png": {"Software": author(command)},
        "pdf": {"Creator": author(command), "CreationDate": None},
        "svg": {"Creator": author(command), "Date": None},
    }
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "embank"}):
        figure.savefig(buffer, dpi=dpi, format=kind, metadata=of_kind[kind])
    with new_file(out) as file:
        file.write(buffer.getvalue())
