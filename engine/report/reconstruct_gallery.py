"""Reconstructions as files, and a gallery of them beside the originals, drawn with Pillow.

They show images, which no record has, and so take results of the evaluation.
"""

import re
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.evals.reconstruction.result import Reconstruction
from engine.report import text_drawing
from engine.report.drawing import save_picture
from engine.report.text_drawing import LINE
from stores.outputs import Images, new_file, refuse_in_folder, written_by

if TYPE_CHECKING:
    from PIL.Image import Image

GALLERY = "gallery.png"
#: Side of a picture, and margin, in pixels; largest numbers of images and of seeds that are drawn.
SIDE, MARGIN, IMAGES, SEEDS = 168, 12, 24, 6
_PAPER, _INK, _SOFT = "#ffffff", "#222222", "#5a5a5a"
_FILE = re.compile(r"\d{3,}-.*-seed\d+\.\w+")


@dataclass(frozen=True)
class About:
    """The description of a run that its gallery carries.

    Attributes:
        model: title of the model. mode: of the run. updates: of a network.
    """

    model: str
    mode: str
    updates: int

    def lines(self) -> list[str]:
        """Return the header."""
        return [
            f"Images reconstructed from the last feature map of {self.model}, mode {self.mode}, "
            f"{self.updates:,} updates",
            "Left the image as the model sees it; beside it a reconstruction for each seed, with its loss "
            "(mean squared error of the feature map) and LPIPS (mean of three networks; 0 is identical)",
        ]


def refuse_other_files(folder: Path, images: Images, *, force: bool = False) -> None:
    """Refuse a folder that contains files a `Gallery` would replace, unless a gallery wrote them.

    A reconstruction that is no PNG is recognised by the gallery beside it.

    Args:
        folder: of the gallery; need not exist.
        images: never replaced.
        force: replace other files.

    Raises:
        Refused: naming the first of them.
    """
    beside = written_by(folder / GALLERY, "reconstruct")
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not (path.name == GALLERY or _FILE.fullmatch(path.name)):
            continue
        ours = written_by(path, "reconstruct") or (beside and path.suffix.lower() != ".png")
        refuse_in_folder(path, ours, images, force)


class Gallery:
    """A folder that receives the reconstructions of a run, and after each image the gallery so far.

    Args:
        folder: made, if absent, with the first picture.
        about: the run.

    Attributes:
        files: written, the gallery last.
    """

    def __init__(self, folder: Path, about: About) -> None:
        self.folder, self._about = folder, about
        self.files: list[Path] = []
        self._rows: dict[int, list[Reconstruction]] = {}

    def add(self, made: Reconstruction) -> None:
        """Write one reconstruction."""
        if self._rows and made.position not in self._rows:
            self._draw()
        if made.position in self._rows or len(self._rows) < IMAGES:
            self._rows.setdefault(made.position, []).append(made)
        with new_file(self.folder / made.file) as file:
            file.write(made.data)
        self.files.append(self.folder / made.file)

    def finish(self) -> None:
        """Draw the gallery of all."""
        if self._rows:
            self._draw()
            self.files.append(self.folder / GALLERY)

    def _draw(self) -> None:
        from PIL import Image, ImageDraw

        strips = [_strip(self._rows[position][:SEEDS]) for position in sorted(self._rows)]
        width = max(max(strip.width for strip in strips), 4 * (SIDE + MARGIN))
        header = text_drawing.lines_of(text_drawing.measure(), self._about.lines(), width - 2 * MARGIN)
        top = MARGIN + LINE * len(header) + MARGIN
        sheet = Image.new("RGB", (width, top + sum(strip.height for strip in strips)), _PAPER)
        text_drawing.write(ImageDraw.Draw(sheet), MARGIN, MARGIN - 2, header, _INK)
        for strip in strips:
            sheet.paste(strip, (0, top))
            top += strip.height
        save_picture(sheet, self.folder / GALLERY, "reconstruct")


def _strip(row: list[Reconstruction]) -> "Image":
    """Draw an image and its reconstructions side by side, each with its caption."""
    from PIL import Image, ImageDraw

    tiles = [(row[0].original, [row[0].image_id])]
    tiles += [(made.image, [f"seed {made.seed}", _numbers(made)]) for made in row]
    captions = [text_drawing.lines_of(text_drawing.measure(), texts, SIDE) for _, texts in tiles]
    height = SIDE + LINE * max(map(len, captions)) + MARGIN
    strip = Image.new("RGB", (MARGIN + (SIDE + MARGIN) * len(tiles), height), _PAPER)
    draw: Any = ImageDraw.Draw(strip)
    for i, (pixels, _) in enumerate(tiles):
        left = MARGIN + i * (SIDE + MARGIN)
        strip.paste(_tile(pixels), (left, 0))
        text_drawing.write(draw, left, SIDE + 2, captions[i], _SOFT if i else _INK)
    return strip


def _tile(pixels: NDArray[np.uint8]) -> "Image":
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    smaller = Image.Resampling.BICUBIC if image.width >= SIDE // 2 else Image.Resampling.NEAREST
    return image.resize((SIDE, SIDE), smaller)


def _numbers(made: Reconstruction) -> str:
    distance = made.lpips["mean"]
    lpips = f"LPIPS {distance:.3f}" if isfinite(distance) else "LPIPS not known"
    return f"loss {made.loss:.3g}, {lpips}"
