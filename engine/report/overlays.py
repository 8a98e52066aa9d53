"""Pictures of occlusion maps, drawn with Pillow: the image, the map over it, the map alone, a colour bar.

They show images and maps, which no record has, and so take results of evaluations.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.evals.saliency.evaluate import SaliencyMap
from engine.report import text_drawing
from engine.report.drawing import save_picture
from engine.report.map_colours import OUTLINED, Scale, blended, colours, eroded, outline
from engine.report.text_drawing import LINE
from stores.outputs import Images, new_file, refuse_in_folder, written_by

if TYPE_CHECKING:
    from PIL.Image import Image

#: Margin, width of the colour bar, and room for its numbers, in pixels.
MARGIN, BAR, NUMBERS = 12, 14, 62
#: Approximate side of a panel in pixels: in the picture of a single image, and on a sheet.
LARGE, SMALL = 448, 224
_PAPER, _INK, _SOFT = "#ffffff", "#222222", "#5a5a5a"
_PANELS = ("image", "map over the image", "map")


@dataclass(frozen=True)
class About:
    """The description of a run that its pictures carry.

    Attributes:
        model: title of the model.
        stride, size: of the occluding square, in pixels.
    """

    model: str
    stride: int
    size: int = 10

    def lines(self, scale: Scale | None) -> list[str]:
        """Return the header of a picture; `scale` is shared by all images, None if each has its own."""
        exact = "exact, as in the study" if self.stride == 1 else "coarser than the study's stride 1"
        shared = "each image has its own scale" if scale is None else (
            f"one scale for all images, {scale.low:.3g} to {scale.high:.3g}"
        )  # fmt: skip
        return [
            f"Occlusion saliency of {self.model}: {self.size} x {self.size} square, stride {self.stride} "
            f"({exact})",
            "Score: relative change of the feature vector, ||f - f_occluded|| / ||f||, without unit; a pixel "
            f"has the mean of the squares that cover it; {shared}",
            f"Outline: the {OUTLINED:.0%} of pixels with the highest scores; line across the bar: the mean",
        ]


def blend(result: SaliencyMap, scale: Scale | None = None) -> NDArray[np.uint8]:
    """Blend the map's colours into the image, with an opacity of at most `ALPHA`.

    Args:
        result: image and map.
        scale: of the colours; None takes the map's own.

    Returns:
        uint8 [M, M, 3].
    """
    return blended(result.pixels, (scale or Scale.of(result.map)).share(result.map))


def panels(result: SaliencyMap, scale: Scale, side: int) -> list[NDArray[np.uint8]]:
    """Return image, overlay with its outline, and the map's colours alone: uint8 [S, S, 3] each.

    Args:
        result: image and map.
        scale: of the colours.
        side: wanted side of the panels in pixels; the nearest multiple of the map's is taken.
    """
    zoom = max(1, round(side / result.map.shape[0]))
    pixels, map = _enlarge(result.pixels, zoom), _enlarge_map(result.map, zoom)
    shares = scale.share(map)
    overlaid = blended(pixels, shares)
    line = outline(map)
    overlaid[~eroded(~line)] = 0  # a black border shows the white line on bright bones
    overlaid[line] = 255
    return [pixels, overlaid, np.rint(colours(shares)).astype(np.uint8)]


def _enlarge(pixels: NDArray[np.uint8], zoom: int) -> NDArray[np.uint8]:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    size = (image.width * zoom, image.height * zoom)
    filter = Image.Resampling.BICUBIC if zoom <= 4 else Image.Resampling.NEAREST
    return np.asarray(image.resize(size, filter) if zoom > 1 else image).copy()


def _enlarge_map(map: NDArray[np.float64], zoom: int) -> NDArray[np.float64]:
    """Repeat every value: interpolation would show values that were not computed."""
    return map.repeat(zoom, axis=0).repeat(zoom, axis=1)


def strip(result: SaliencyMap, scale: Scale | None = None, *, side: int = SMALL) -> "Image":
    """Draw image, overlay, map and colour bar side by side, and the image's id and numbers below them.

    Args:
        result: image and map.
        scale: of the colours; None takes the map's own.
        side: wanted side of a panel in pixels, see `panels`.
    """
    from PIL import Image, ImageDraw

    scale = scale or Scale.of(result.map)
    drawn = panels(result, scale, side)
    side = drawn[0].shape[0]
    width = MARGIN * 5 + side * 3 + BAR + NUMBERS
    low, mean, high = (float(v) for v in (result.map.min(), result.map.mean(), result.map.max()))
    caption = text_drawing.lines_of(
        text_drawing.measure(),
        [
            result.image_id,
            f"attentive diffusion {result.diffusion:.3f}; scores {low:.3g} to {high:.3g}, mean {mean:.3g}",
        ],
        width - 2 * MARGIN,
    )
    top = LINE
    strip = Image.new("RGB", (width, top + side + LINE * len(caption) + MARGIN), _PAPER)
    draw = ImageDraw.Draw(strip)
    for i, (name, panel) in enumerate(zip(_PANELS, drawn, strict=True)):
        left = MARGIN + i * (side + MARGIN)
        strip.paste(Image.fromarray(panel), (left, top))
        text_drawing.write(draw, left, 0, [name], _SOFT)
    left = MARGIN * 4 + side * 3
    ramp = colours(np.linspace(1, 0, side))[:, None, :].repeat(BAR, axis=1)
    strip.paste(Image.fromarray(np.rint(ramp).astype(np.uint8)), (left, top))
    _bar_numbers(draw, left, top, side, scale, mean)
    text_drawing.write(draw, MARGIN, top + side + 4, caption, _INK)
    return strip


def _bar_numbers(draw: Any, left: int, top: int, side: int, scale: Scale, mean: float) -> None:
    """Write the values at the ends of the colour bar, and mark the map's mean on it."""
    x = left + BAR + 5
    text_drawing.write(draw, x, top - 4, [f"{scale.high:.3g}"], _INK)
    text_drawing.write(draw, x, top + side - LINE + 4, [f"{scale.low:.3g}"], _INK)
    if scale.high > scale.low:
        level = top + round((scale.high - mean) / (scale.high - scale.low) * (side - 1))
        draw.line((left - 3, level, left + BAR + 2, level), fill=_INK, width=1)
        y = min(max(level - LINE // 2, top + LINE), top + side - 2 * LINE)
        text_drawing.write(draw, x, y, [f"{mean:.3g}"], _INK)


def overlay(result: SaliencyMap, out: Path, about: About, scale: Scale | None = None) -> Path:
    """Write an image's panels, below a header with model and unit, as a PNG, atomically.

    Args:
        result: image and map.
        out: the file.
        about: the run.
        scale: shared by all images; None takes the map's own.

    Raises:
        Refused: the folder is not writable.
    """
    return _sheet([strip(result, scale, side=LARGE)], out, about, scale, 1)


def contact_sheet(
    maps: Sequence[SaliencyMap], out: Path, about: About, scale: Scale | None = None, *, columns: int = 2
) -> Path:
    """Write the panels of many images as one PNG.

    Args:
        maps: at least one, all of one size.
        out, about, scale: as for `overlay`.
        columns: images in a row.
    """
    return _sheet([strip(result, scale) for result in maps], out, about, scale, columns)


def _sheet(tiles: "Sequence[Image]", out: Path, about: About, scale: Scale | None, columns: int) -> Path:
    from PIL import Image, ImageDraw

    columns = min(columns, len(tiles))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    width = columns * tiles[0].width
    header = text_drawing.lines_of(text_drawing.measure(), about.lines(scale), width - 2 * MARGIN)
    top = MARGIN + LINE * len(header) + MARGIN
    sheet = Image.new("RGB", (width, top + sum(heights)), _PAPER)
    text_drawing.write(ImageDraw.Draw(sheet), MARGIN, MARGIN - 2, header, _INK)
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (column * tile.width, top))
        top += height
    save_picture(sheet, out, "saliency")
    return out


def refuse_other_files(folder: Path, images: Images, *, force: bool = False) -> None:
    """Refuse a folder that contains files a `Gallery` would replace, unless a gallery wrote them.

    A map (`.npy`) is recognised by the picture beside it.

    Args:
        folder: of the gallery; need not exist.
        images: never replaced.
        force: replace other files.

    Raises:
        Refused: naming the first of them.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not (path.name == "sheet.png" or re.fullmatch(r"\d{3,}-.*\.(png|npy)", path.name)):
            continue
        ours = written_by(path.with_suffix(".png"), "saliency")
        refuse_in_folder(path, ours, images, force)


class Gallery:
    """A folder that receives the results of a run: a PNG and the map of each image, and finally a sheet.

    Args:
        folder: made, if absent, with the first picture.
        about: the run.
        shared: draw all images on one scale; as it is known only at the end, pictures are then drawn again.
        most: number of images on the sheet.
    """

    def __init__(self, folder: Path, about: About, *, shared: bool = False, most: int = 24) -> None:
        self.folder, self._about, self._shared, self._most = folder, about, shared, most
        self.files: list[Path] = []
        self._first: list[SaliencyMap] = []
        self._scale: Scale | None = None
        self._drawn: list[tuple[str, float]] = []
        self._pixels: IO[bytes] | None = None

    def add(self, result: SaliencyMap) -> None:
        """Draw one image and write its map beside it, as float64 npy."""
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in result.image_id)[-100:]
        stem = f"{len(self.files) // 2:03d}-{name}"
        path = overlay(result, self.folder / f"{stem}.png", self._about)
        with new_file(self.folder / f"{stem}.npy") as file:
            save: Any = np.save
            save(file, result.map, allow_pickle=False)
        self.files += [path, self.folder / f"{stem}.npy"]
        self._first += [result] if len(self._first) < self._most else []
        if self._shared:
            self._remember(result)

    def _remember(self, result: SaliencyMap) -> None:
        scale = Scale.of(result.map)
        self._scale = scale if self._scale is None else self._scale.union(scale)
        self._drawn.append((result.image_id, result.diffusion))
        if self._pixels is None:
            self._pixels = TemporaryFile()  # noqa: SIM115 - open until `finish`
        self._pixels.write(result.pixels.tobytes())

    def finish(self) -> None:
        """Draw the sheet of the first images, and with a shared scale every image again."""
        if self._pixels is not None:
            with self._pixels:
                self._redraw(self._pixels)
        if self._first:
            sheet = self.folder / "sheet.png"
            self.files.append(contact_sheet(self._first, sheet, self._about, self._scale))

    def _redraw(self, pixels: IO[bytes]) -> None:
        pixels.seek(0)
        shape = self._first[0].pixels.shape
        for (image_id, diffusion), png, npy in zip(
            self._drawn, self.files[::2], self.files[1::2], strict=True
        ):
            data = np.frombuffer(pixels.read(int(np.prod(shape))), np.uint8).reshape(shape)
            result = SaliencyMap(image_id, data, np.load(npy, allow_pickle=False), diffusion)
            overlay(result, png, self._about, self._scale)
