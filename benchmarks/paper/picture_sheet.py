"""Sheets of pictures in rows and columns, with headings and captions, drawn with Pillow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.report import text_drawing
from engine.report.drawing import save_picture
from engine.report.text_drawing import LINE

if TYPE_CHECKING:
    from PIL.Image import Image

MARGIN, HEADS = 10, 128
_PAPER, _INK, _SOFT, _NONE = "#ffffff", "#222222", "#5a5a5a", "#eeeeee"


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture of a sheet.

    Attributes:
        pixels: uint8 [S, S, 3].
        caption: below it.
    """

    pixels: NDArray[np.uint8]
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Sheet:
    """Pictures in rows and columns.

    Attributes:
        header: above all of them, a sentence each.
        rows, columns: headings.
        tiles: (row, column) -> picture; those that are missing are shown as missing.
        side: of a picture on the sheet, in pixels.
    """

    header: Sequence[str]
    rows: Sequence[str]
    columns: Sequence[str]
    tiles: Mapping[tuple[str, str], Tile] = field(default_factory=dict)
    side: int = 112

    def draw(self, out: Path, command: str) -> None:
        """Write it as PNG, SVG or PDF by the ending.

        Args:
            command: that drew it, as `stores.outputs.written_by` looks for it.

        Raises:
            Refused: the folder is not writable. MachineFault: the disk is full or fails.
        """
        save_picture(self.image(), out, command)

    def image(self) -> "Image":
        """Return the sheet as an RGB image."""
        from PIL import Image, ImageDraw

        measure, step = text_drawing.measure(), self.side + MARGIN
        heads = [text_drawing.lines_of(measure, [name], self.side) for name in self.columns]
        width = max(HEADS + step * len(self.columns) + MARGIN, 420)
        header = text_drawing.lines_of(measure, self.header, width - 2 * MARGIN)
        top = MARGIN + LINE * len(header) + MARGIN + LINE * max(map(len, heads), default=0) + 4
        captions = {key: self._caption(tile) for key, tile in self.tiles.items()}
        below = LINE * max((len(lines) for lines in captions.values()), default=0) + MARGIN
        sheet = Image.new("RGB", (width, top + (self.side + below) * len(self.rows)), _PAPER)
        draw = ImageDraw.Draw(sheet)
        text_drawing.write(draw, MARGIN, MARGIN - 2, header, _INK)
        for i, lines in enumerate(heads):
            text_drawing.write(draw, HEADS + i * step, top - LINE * len(lines) - 4, lines, _INK)
        for j, row in enumerate(self.rows):
            y = top + j * (self.side + below)
            names = text_drawing.lines_of(measure, [row], HEADS - 2 * MARGIN)
            text_drawing.write(draw, MARGIN, y + self.side // 2 - LINE, names, _INK)
            for i, column in enumerate(self.columns):
                self._place(sheet, draw, (row, column), HEADS + i * step, y)
                text_drawing.write(
                    draw, HEADS + i * step, y + self.side + 2, captions.get((row, column), []), _SOFT
                )
        return sheet

    def _caption(self, tile: Tile) -> list[str]:
        return (
            text_drawing.lines_of(text_drawing.measure(), [tile.caption], self.side) if tile.caption else []
        )

    def _place(self, sheet: "Image", draw: Any, key: tuple[str, str], x: int, y: int) -> None:
        from PIL import Image

        tile = self.tiles.get(key)
        if tile is None:
            draw.rectangle((x, y, x + self.side - 1, y + self.side - 1), fill=_NONE)
            text_drawing.write(draw, x + 8, y + self.side // 2 - LINE // 2, ["missing"], _SOFT)
            return
        picture = Image.fromarray(np.ascontiguousarray(tile.pixels))
        smaller = Image.Resampling.BICUBIC if picture.width >= self.side // 2 else Image.Resampling.NEAREST
        sheet.paste(picture.resize((self.side, self.side), smaller), (x, y))
