"""Occlusion maps over their images, drawn with Pillow: the image, the map over it, and the map's scale."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.saliency import SaliencyMap
from engine.report.drawing import save_picture
from engine.report.sheets import _text
from stores.outputs import Images, new_file, written_by

if TYPE_CHECKING:
    from PIL.Image import Image

#: Share of the colours in the overlay, as in the study.
ALPHA = 0.6
MARGIN, LINE, BAR = 12, 17, 14
_PAPER, _INK = "#ffffff", "#222222"


def jet(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matplotlib's colour map `jet`: [...] in 0-1 to RGB float64 [..., 3] in 0-255."""
    from matplotlib import colormaps

    colours: NDArray[np.float64] = np.asarray(colormaps["jet"](values))[..., :3] * 255
    return colours


def blend(one: SaliencyMap) -> NDArray[np.uint8]:
    """The map's colours, 60 %, over the image.

    Colours run from the map's least value to its largest; a map of one value is all lowest colour.

    Returns:
        uint8 [M, M, 3].
    """
    low, high = float(one.map.min()), float(one.map.max())
    scaled = (one.map - low) / (high - low) if high > low else np.zeros_like(one.map)
    mixed = (1 - ALPHA) * one.pixels.astype(np.float64) + ALPHA * jet(scaled)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def pair(one: SaliencyMap) -> "Image":
    """Image and overlay side by side, with a colour bar that states the map's scale."""
    from PIL import Image, ImageDraw

    side = one.map.shape[0]
    width = MARGIN * 4 + side * 2 + BAR + 64
    drawn = Image.new("RGB", (width, MARGIN * 2 + side + LINE * 2), _PAPER)
    drawn.paste(Image.fromarray(np.ascontiguousarray(one.pixels)), (MARGIN, MARGIN))
    drawn.paste(Image.fromarray(blend(one)), (MARGIN * 2 + side, MARGIN))
    left = MARGIN * 3 + side * 2
    ramp = jet(np.linspace(1, 0, side))[:, None, :].repeat(BAR, axis=1)
    drawn.paste(Image.fromarray(np.rint(ramp).astype(np.uint8)), (left, MARGIN))
    draw = ImageDraw.Draw(drawn)
    low, mean, high = (float(v) for v in (one.map.min(), one.map.mean(), one.map.max()))
    room, at = 60, left + BAR + 4
    _text(draw, at, MARGIN - 4, [f"{high:.3g}"], room, _INK)
    _text(draw, at, MARGIN + side - LINE + 4, [f"{low:.3g}"], room, _INK)
    if high > low:
        level = MARGIN + round((high - mean) / (high - low) * (side - 1))
        draw.line((left - 3, level, left + BAR + 2, level), fill=_INK)
        beside = min(max(level - LINE // 2, MARGIN + LINE), MARGIN + side - 2 * LINE)
        _text(draw, at, beside, [f"{mean:.3g}"], room, _INK)
    about = f"attentive diffusion {one.diffusion:.3f}; scale: ||f - f_occ|| / ||f||, line: the map's mean"
    _text(draw, MARGIN, MARGIN + side + 4, [one.image_id, about], width - 2 * MARGIN, _INK)
    return drawn


def overlay(one: SaliencyMap, out: Path) -> Path:
    """Write `pair` as a PNG, whole or not at all.

    Raises:
        Refused: the folder is not writable.
    """
    save_picture(pair(one), out, "saliency")
    return out


def contact_sheet(maps: Sequence[SaliencyMap], out: Path, *, columns: int = 2) -> Path:
    """Write the pairs of many images on one PNG.

    Args:
        maps: at least one, all of one size.
        columns: pairs a row.
    """
    from PIL import Image

    tiles = [pair(one) for one in maps]
    columns = min(columns, len(tiles))
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), _PAPER)
    for at, tile in enumerate(tiles):
        sheet.paste(tile, (at % columns * width, at // columns * height))
    save_picture(sheet, out, "saliency")
    return out


def refuse_strangers(folder: Path, images: Images, *, force: bool = False) -> None:
    """Refuse a folder with files of the names that a `Gallery` writes, which no gallery wrote.

    A map is known by the picture of it beside it.

    Args:
        images: which are never replaced.
        force: replace other files.

    Raises:
        Refused: naming the first of them.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not (path.name == "sheet.png" or re.fullmatch(r"\d{3,}-.*\.(png|npy)", path.name)):
            continue
        ours = written_by(path.with_suffix(".png"), "saliency")
        if path.is_file() and images.contain(path, thorough=force or not ours):
            raise Refused(
                f"{path} is one of the images", "An output replaces no image", "choose another folder"
            )
        if path.is_dir() or not (force or ours):
            raise Refused(
                f"{path} exists",
                "An output replaces only a picture that the same command drew",
                "choose another folder" + ("" if path.is_dir() else ", or add --force"),
            )


class Gallery:
    """A folder that fills with the results of a run: for each image a PNG and the map, at the end a sheet.

    Args:
        folder: made, if absent, with the first picture.
        most: pairs on the sheet.
    """

    def __init__(self, folder: Path, most: int = 24) -> None:
        self.folder, self._most = folder, most
        self.files: list[Path] = []
        self._first: list[SaliencyMap] = []

    def add(self, one: SaliencyMap) -> None:
        """Draw one image and write its map beside it, as float64 npy."""
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in one.image_id)[-100:]
        stem = f"{len(self.files) // 2:03d}-{name}"
        path = overlay(one, self.folder / f"{stem}.png")
        with new_file(self.folder / f"{stem}.npy") as file:
            save: Any = np.save
            save(file, one.map, allow_pickle=False)
        self.files += [path, self.folder / f"{stem}.npy"]
        self._first += [one] if len(self._first) < self._most else []

    def finish(self) -> None:
        """Draw the sheet of the first images."""
        if self._first:
            self.files.append(contact_sheet(self._first, self.folder / "sheet.png"))
