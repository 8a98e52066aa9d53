"""Real medical pictures that scikit-image ships, cut into tiles labelled by their modality."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.datasets._files import Picture, package_file, write_pictures
from engine.datasets._protocol import Facts, Mode

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest

#: A tile is kept if at most this share of its pixels is darker than this grey level: no black borders.
DARK_SHARE = 0.1
DARK_LEVEL = 20

facts = Facts(
    name="tiles",
    title="tiles of four real pictures: fundus, histology, phase microscopy",
    source=(
        "scikit-image: retina.jpg (Haggstrom 2014, doi:10.15347/wjm/2014.008), microaneurysms.png (Budai and "
        "others 2013, doi:10.1155/2013/154860), ihc.png (immunohistochemistry of colonic glands, CMMI), "
        "cell.png (quantitative phase image, Mueller and others 2018, doi:10.1364/OE.26.010729)"
    ),
    licence="CC0 (fundus, cell); no known copyright restrictions (histology)",
    images=286,
    classes={"fundus": 149, "histology": 64, "phase": 73},
    groups="the picture a tile was cut from",
    caveats=(
        "Tiles of one picture are not independent, and each class comes from one or two pictures: accuracy "
        "here says that the pipeline works, nothing about a model.",
        "No split by group is possible. This is a demonstration, not a study.",
    ),
    embedded=True,
)


@dataclass(frozen=True)
class _Source:
    file: str
    label: str
    side: int


#: Side in pixels, so that a tile shows structure of its modality and a class has enough tiles.
_SOURCES = (
    _Source("retina.jpg", "fundus", 96),
    _Source("microaneurysms.png", "fundus", 51),
    _Source("ihc.png", "histology", 64),
    _Source("cell.png", "phase", 64),
)


def index(root: Path, mode: Mode = "default") -> "Manifest":
    """Cut the pictures into tiles on a grid from the top left and write them as PNG. See `Dataset.index`.

    Extra columns: `x`, `y` (left and top edge in the picture) and `side`, in pixels.
    """
    return write_pictures(root, (tile for source in _SOURCES for tile in _tiles(source)))


def _tiles(source: _Source) -> Iterator[Picture]:
    pixels = _read(package_file("skimage", f"data/{source.file}", "scikit-image"))
    name, side = source.file.partition(".")[0], source.side
    for y in range(0, pixels.shape[0] - side + 1, side):
        for x in range(0, pixels.shape[1] - side + 1, side):
            tile = pixels[y : y + side, x : x + side]
            if not _dark(tile):
                place = {"x": str(x), "y": str(y), "side": str(side)}
                yield Picture(f"{name}-{y:04d}-{x:04d}", source.label, name, tile, place)


def _dark(tile: npt.NDArray[np.uint8]) -> bool:
    grey = tile if tile.ndim == 2 else tile.mean(axis=2)
    return bool((grey < DARK_LEVEL).mean() > DARK_SHARE)


def _read(path: Path) -> npt.NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image, dtype=np.uint8)
