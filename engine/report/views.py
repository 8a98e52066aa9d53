"""The contact sheet of views with their cosines.

It shows images and views of them, which no record has, and so takes results with their pictures.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import Refused
from engine.evals.invariance.result import Invariance
from engine.kernels.transforms import find_transform
from engine.report import text_drawing
from engine.report.drawing import save_picture
from engine.report.invariance_figure import undefined

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, MARGIN, LINE = 144, 10, 15
_PAPER, _INK, _SOFT = "#ffffff", "#222222", "#6a6a6a"
#: Level of a tile whose image cannot be read.
_GREY = 200
#: Number of views beside each image, and of images if the sheet has a single transform.
VIEWS, IMAGES = 8, 5


def views_sheet(results: Sequence[Invariance], out: Path) -> int:
    """Draw images and some of their views, with parameters and cosines.

    With one transform, there is a row for each of up to `IMAGES` images, evenly spaced in the order of their
    mean cosine; with several transforms, a row for each, with the image of the median cosine.

    Returns:
        The number of rows drawn.

    Raises:
        Refused: no transform has a scored image.
    """
    from PIL import Image, ImageDraw

    strips = []
    for result in results:
        if len(result.rows):
            mean = np.nan_to_num(result.cosine.mean(axis=1), nan=-2.0)
            order = np.argsort(mean, kind="stable")
            count = min(IMAGES if len(results) == 1 else 1, len(order))
            ranks = np.linspace(0, len(order) - 1, count) if count > 1 else np.array([len(order) // 2])
            strips += _strips(result, order[ranks.round().astype(int)])
    if not strips:
        raise Refused("No image was scored", "A sheet shows scored images", "choose another --transform")
    width = max(strip.width for strip in strips)
    setting = results[0].setting
    head = text_drawing.lines_of(
        text_drawing.measure(),
        [
            f"Views of images of {setting.bank}, by {setting.model}",
            "Under each view: its parameter, and the cosine of the whitened features before and after; "
            "1 is perfectly invariant",
            *(f"{r.transform}: {undefined(r.summary.n, len(r.rows) == 0)}" for r in results if r.reason),
        ],
        width - 2 * MARGIN,
    )
    top = MARGIN + text_drawing.LINE * len(head) + MARGIN // 2
    sheet = Image.new("RGB", (width, top + sum(s.height for s in strips) + MARGIN), _PAPER)
    text_drawing.write(ImageDraw.Draw(sheet), MARGIN, MARGIN - 2, head, _INK)
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    save_picture(sheet, out, "invariance")
    return len(strips)


def _strips(result: Invariance, positions: Any) -> "list[Image]":
    """Draw one strip for each of the given positions among the result's rows."""
    count = result.views.count
    views = np.unique(np.linspace(0, count - 1, min(VIEWS, count)).round().astype(int)).tolist()
    rows = [int(result.rows[position]) for position in positions]
    pictures = result.pictures(rows, views)
    return [
        _strip(result, int(position), views, pixels)
        for position, pixels in zip(positions, pictures, strict=True)
    ]


def _strip(result: Invariance, position: int, views: list[int], pixels: Any) -> "Image":
    from PIL import Image, ImageDraw, ImageFont

    width, height = SIDE + MARGIN, SIDE + 2 * LINE + MARGIN
    strip = Image.new("RGB", ((VIEWS + 1) * width + MARGIN, height), _PAPER)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(12)
    row = int(result.rows[position])
    captions = [(result.transform, f"row {row}, mean {result.cosine[position].mean():.3f}")]
    captions += [(_caption(result, view), f"cosine {result.cosine[position, view]:.3f}") for view in views]
    if isinstance(pixels, str):  # a reason: the features are kept, but the file cannot be read
        captions = [(captions[0][0], f"no picture: {pixels}"), *captions[1:]]
        pixels = np.full((len(captions), SIDE, SIDE, 3), _GREY, np.uint8)
    for i, (picture, (first, second)) in enumerate(zip(pixels, captions, strict=True)):
        left = MARGIN + i * width
        tile = Image.fromarray(np.ascontiguousarray(picture)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        strip.paste(tile, (left, 0))
        draw.text((left, SIDE + 2), first, fill=_INK, font=font)
        draw.text((left, SIDE + 2 + LINE), second, fill=_SOFT if i else _INK, font=font)
    return strip


def _caption(result: Invariance, view: int) -> str:
    names, values = find_transform(result.views.transform).parameters, result.views.parameters[view]
    if len(result.views.parameters) <= 2:  # the transform has no strength: it is applied or not
        return names[0] if values[0] else "as it is"
    if len(values) == 1:
        return f"{names[0]} {values[0]:.3g}"
    return ", ".join(f"{value:.3g}" for value in values)
