"""Occlusion maps and their images, drawn with Pillow: the image, the map over it, the map alone, its scale.

Colours are viridis: perceptually uniform, and told apart by people who see no red or no green. Over the image
they are the more transparent the lower a value is, so that the anatomy stays visible.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.saliency.evaluate import SaliencyMap
from engine.report import lettering
from engine.report.drawing import save_picture
from engine.report.lettering import LINE
from stores.outputs import Images, new_file, written_by

if TYPE_CHECKING:
    from PIL.Image import Image

#: Share of the colour in the overlay where the scale ends; in proportion below, none where it begins.
ALPHA = 0.6
#: The outline holds this share of the pixels, those of the highest values.
OUTLINED = 0.1
MARGIN, BAR, NUMBERS = 12, 14, 62
#: Pixels of a panel's side, about: of an image that has a picture to itself, and on a sheet.
LARGE, SMALL = 448, 224
_PAPER, _INK, _SOFT = "#ffffff", "#222222", "#5a5a5a"
_PANELS = ("image", "map over the image", "map")


@dataclass(frozen=True)
class Scale:
    """What the ends of the colour bar stand for."""

    low: float
    high: float

    @classmethod
    def of(cls, *maps: NDArray[np.float64]) -> "Scale":
        """From the least value of all maps to the largest."""
        return cls(min(float(m.min()) for m in maps), max(float(m.max()) for m in maps))

    def of_both(self, other: "Scale") -> "Scale":
        return Scale(min(self.low, other.low), max(self.high, other.high))

    def share(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where values lie on the scale, 0 to 1; all at 0 on a scale of one value."""
        if self.high <= self.low:
            return np.zeros_like(values)
        return ((values - self.low) / (self.high - self.low)).clip(0, 1)


@dataclass(frozen=True)
class About:
    """What all pictures of a run say of themselves.

    Attributes:
        model: its title.
        stride, size: of the square, pixels.
    """

    model: str
    stride: int
    size: int = 10

    def lines(self, scale: Scale | None) -> list[str]:
        """The head of a picture; `scale` is the one that all images share, None where each has its own."""
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


def colours(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matplotlib's colour map `viridis`: [...] in 0-1 to RGB float64 [..., 3] in 0-255."""
    from matplotlib import colormaps

    found: NDArray[np.float64] = np.asarray(colormaps["viridis"](shares))[..., :3] * 255
    return found


def blend(one: SaliencyMap, scale: Scale | None = None) -> NDArray[np.uint8]:
    """The map's colours over the image, at most `ALPHA` of a pixel.

    Args:
        scale: of the colours; None takes the map's own.

    Returns:
        uint8 [M, M, 3].
    """
    return _mixed(one.pixels, (scale or Scale.of(one.map)).share(one.map))


def _mixed(pixels: NDArray[np.uint8], shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    alpha = ALPHA * shares[..., None]
    mixed = (1 - alpha) * pixels.astype(np.float64) + alpha * colours(shares)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def outline(map: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pixels just inside the border of the area of the highest values; none in a map of one value."""
    above = map > np.quantile(map, 1 - OUTLINED)
    return above & ~_all_around(above)


def _all_around(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that are set and whose four neighbours are; beyond the border all are."""
    padded = np.pad(pixels, 1, constant_values=True)
    sides = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.asarray(np.logical_and.reduce((pixels, *sides)))


def panels(one: SaliencyMap, scale: Scale, side: int) -> list[NDArray[np.uint8]]:
    """Image, overlay with its outline, and the map's colours alone: uint8 [S, S, 3] each.

    Args:
        side: about the panels' side in pixels; they are enlarged by a whole number.
    """
    zoom = max(1, round(side / one.map.shape[0]))
    pixels, map = _enlarged(one.pixels, zoom), _enlarged_map(one.map, zoom)
    shares = scale.share(map)
    over = _mixed(pixels, shares)
    line = outline(map)
    over[~_all_around(~line)] = 0  # so that the line is seen on bright bones as well
    over[line] = 255
    return [pixels, over, np.rint(colours(shares)).astype(np.uint8)]


def _enlarged(pixels: NDArray[np.uint8], zoom: int) -> NDArray[np.uint8]:
    from PIL import Image

    given = Image.fromarray(np.ascontiguousarray(pixels))
    size = (given.width * zoom, given.height * zoom)
    smooth = Image.Resampling.BICUBIC if zoom <= 4 else Image.Resampling.NEAREST
    return np.asarray(given.resize(size, smooth) if zoom > 1 else given).copy()


def _enlarged_map(map: NDArray[np.float64], zoom: int) -> NDArray[np.float64]:
    """Every value repeated: nothing is drawn that was not computed."""
    return map.repeat(zoom, axis=0).repeat(zoom, axis=1)


def strip(one: SaliencyMap, scale: Scale | None = None, *, side: int = SMALL) -> "Image":
    """Image, overlay and map side by side, with a colour bar, and below them the image's id and numbers.

    Args:
        scale: of the colours; None takes the map's own.
        side: of a panel, about.
    """
    from PIL import Image, ImageDraw

    of = scale or Scale.of(one.map)
    drawn = panels(one, of, side)
    side = drawn[0].shape[0]
    width = MARGIN * 5 + side * 3 + BAR + NUMBERS
    low, mean, high = (float(v) for v in (one.map.min(), one.map.mean(), one.map.max()))
    below = lettering.lines_of(
        lettering.measure(),
        [
            one.image_id,
            f"attentive diffusion {one.diffusion:.3f}; scores {low:.3g} to {high:.3g}, mean {mean:.3g}",
        ],
        width - 2 * MARGIN,
    )
    top = LINE
    strip = Image.new("RGB", (width, top + side + LINE * len(below) + MARGIN), _PAPER)
    draw = ImageDraw.Draw(strip)
    for at, (name, panel) in enumerate(zip(_PANELS, drawn, strict=True)):
        left = MARGIN + at * (side + MARGIN)
        strip.paste(Image.fromarray(panel), (left, top))
        lettering.write(draw, left, 0, [name], _SOFT)
    left = MARGIN * 4 + side * 3
    ramp = colours(np.linspace(1, 0, side))[:, None, :].repeat(BAR, axis=1)
    strip.paste(Image.fromarray(np.rint(ramp).astype(np.uint8)), (left, top))
    _numbers(draw, left, top, side, of, mean)
    lettering.write(draw, MARGIN, top + side + 4, below, _INK)
    return strip


def _numbers(draw: Any, left: int, top: int, side: int, scale: Scale, mean: float) -> None:
    """The ends of the bar, and the map's mean on it."""
    at = left + BAR + 5
    lettering.write(draw, at, top - 4, [f"{scale.high:.3g}"], _INK)
    lettering.write(draw, at, top + side - LINE + 4, [f"{scale.low:.3g}"], _INK)
    if scale.high > scale.low:
        level = top + round((scale.high - mean) / (scale.high - scale.low) * (side - 1))
        draw.line((left - 3, level, left + BAR + 2, level), fill=_INK, width=1)
        beside = min(max(level - LINE // 2, top + LINE), top + side - 2 * LINE)
        lettering.write(draw, at, beside, [f"{mean:.3g}"], _INK)


def overlay(one: SaliencyMap, out: Path, about: About, scale: Scale | None = None) -> Path:
    """Write an image's panels below a head that names model and unit as a PNG, whole or not at all.

    Args:
        scale: that all images share; None takes the map's own.

    Raises:
        Refused: the folder is not writable.
    """
    return _sheet([strip(one, scale, side=LARGE)], out, about, scale, 1)


def contact_sheet(
    maps: Sequence[SaliencyMap], out: Path, about: About, scale: Scale | None = None, *, columns: int = 2
) -> Path:
    """Write the panels of many images on one PNG.

    Args:
        maps: at least one, all of one size.
        scale: as for `overlay`.
        columns: images a row.
    """
    return _sheet([strip(one, scale) for one in maps], out, about, scale, columns)


def _sheet(tiles: "Sequence[Image]", out: Path, about: About, scale: Scale | None, columns: int) -> Path:
    from PIL import Image, ImageDraw

    columns = min(columns, len(tiles))
    rows = [tiles[at : at + columns] for at in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    width = columns * tiles[0].width
    head = lettering.lines_of(lettering.measure(), about.lines(scale), width - 2 * MARGIN)
    top = MARGIN + LINE * len(head) + MARGIN
    sheet = Image.new("RGB", (width, top + sum(heights)), _PAPER)
    lettering.write(ImageDraw.Draw(sheet), MARGIN, MARGIN - 2, head, _INK)
    for row, height in zip(rows, heights, strict=True):
        for at, tile in enumerate(row):
            sheet.paste(tile, (at * tile.width, top))
        top += height
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
        about: what the pictures say of themselves.
        shared: draw all images on one scale, which is known at the end only: pictures are drawn again then.
        most: images on the sheet.
    """

    def __init__(self, folder: Path, about: About, *, shared: bool = False, most: int = 24) -> None:
        self.folder, self._about, self._shared, self._most = folder, about, shared, most
        self.files: list[Path] = []
        self._first: list[SaliencyMap] = []
        self._scale: Scale | None = None
        self._drawn: list[tuple[str, float]] = []
        self._pixels: IO[bytes] | None = None

    def add(self, one: SaliencyMap) -> None:
        """Draw one image and write its map beside it, as float64 npy."""
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in one.image_id)[-100:]
        stem = f"{len(self.files) // 2:03d}-{name}"
        path = overlay(one, self.folder / f"{stem}.png", self._about)
        with new_file(self.folder / f"{stem}.npy") as file:
            save: Any = np.save
            save(file, one.map, allow_pickle=False)
        self.files += [path, self.folder / f"{stem}.npy"]
        self._first += [one] if len(self._first) < self._most else []
        if self._shared:
            self._remember(one)

    def _remember(self, one: SaliencyMap) -> None:
        own = Scale.of(one.map)
        self._scale = own if self._scale is None else self._scale.of_both(own)
        self._drawn.append((one.image_id, one.diffusion))
        if self._pixels is None:
            self._pixels = TemporaryFile()  # noqa: SIM115 - it lives as long as the run
        self._pixels.write(one.pixels.tobytes())

    def finish(self) -> None:
        """Draw the sheet of the first images, and on a shared scale every image again."""
        if self._pixels is not None:
            with self._pixels:
                self._draw_again(self._pixels)
        if self._first:
            sheet = self.folder / "sheet.png"
            self.files.append(contact_sheet(self._first, sheet, self._about, self._scale))

    def _draw_again(self, pixels: IO[bytes]) -> None:
        pixels.seek(0)
        shape = self._first[0].pixels.shape
        for (image_id, diffusion), png, npy in zip(
            self._drawn, self.files[::2], self.files[1::2], strict=True
        ):
            data = np.frombuffer(pixels.read(int(np.prod(shape))), np.uint8).reshape(shape)
            one = SaliencyMap(image_id, data, np.load(npy, allow_pickle=False), diffusion)
            overlay(one, png, self._about, self._scale)
