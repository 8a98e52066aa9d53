"""Saving pictures as PNG, SVG or PDF, with the command that drew them in their metadata."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stores.outputs import author, new_file

if TYPE_CHECKING:
    from PIL.Image import Image

#: Metadata as matplotlib writes them, so that `stores.outputs.written_by` reads both alike.
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


def folder_for(out: Path, title: str) -> Path:
    """Return the folder of the pictures of one of several models."""
    return out / "".join(c if c.isalnum() or c in "-_.+" else "-" for c in title)[-100:]


def save_picture(image: "Image", out: Path, command: str) -> None:
    """Write pixels atomically; an SVG contains them as a PNG.

    Args:
        image: the picture.
        out: its ending, .png, .svg or .pdf, gives the format; missing folders are made.
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
            no_dates: Any = {"creationDate": None, "modDate": None}
            image.save(file, format="PDF", creator=author(command), **no_dates)
        else:
            file.write(_png(image, command))


def _png(image: "Image", command: str) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    text, buffer = PngInfo(), io.BytesIO()
    text.add_text("Software", author(command))
    image.save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue()


def save_figure(figure: Any, out: Path, command: str, dpi: int = 130) -> None:
    """Write a matplotlib figure atomically; the same figure gives the same bytes.

    Args:
        figure, dpi: as matplotlib's `savefig`.
        out, command: as for `save_picture`.

    Raises:
        Refused: the folder is not writable. MachineFault: the disk is full or fails.
    """
    import matplotlib

    kind = out.suffix.lower().lstrip(".") or "png"
    metadata: dict[str, dict[str, str | None]] = {
        "png": {"Software": author(command)},
        "pdf": {"Creator": author(command), "CreationDate": None},
        "svg": {"Creator": author(command), "Date": None},
    }
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "embank"}):
        figure.savefig(buffer, dpi=dpi, format=kind, metadata=metadata[kind])
    with new_file(out) as file:
        file.write(buffer.getvalue())


def draw_figure(draw: Callable[[], Any], out: Path, command: str, dpi: int = 130) -> Path:
    """Draw a matplotlib figure without a display, write it, and forget it.

    Args:
        draw: returns the figure.
        out, command, dpi: as for `save_figure`.

    Returns:
        `out`.

    Raises:
        Refused, MachineFault: as `save_figure`, or as `draw`.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = draw()
    save_figure(figure, out, command, dpi)
    plt.close(figure)
    return out
