"""Pictures for the benchmarks: cut from those that scikit-image and scikit-learn ship, else drawn."""

import csv
import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.runtime import usable_cores

if TYPE_CHECKING:
    from PIL.Image import Image

    from stores.manifest.manifest import Manifest

#: Photographs and microscope pictures of the two packages; their charts would code in too few bytes.
_SHIPPED = {
    "skimage": (
        "data",
        ("retina.jpg", "ihc.png", "astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg"),
    ),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}


@dataclass(frozen=True)
class ImageClass:
    """A kind of file.

    Attributes:
        name: also the folder's.
        width, height: pixels.
        grey: one channel.
        quality: of the JPEG; 0 writes PNG.
        subsampling: of the JPEG's chroma, `4:2:0` or `4:4:4`.
        progressive: the JPEG's coding.
    """

    name: str
    width: int
    height: int
    grey: bool = False
    quality: int = 90
    subsampling: str = "4:2:0"
    progressive: bool = False

    @property
    def suffix(self) -> str:
        return ".jpg" if self.quality else ".png"


XRAY = ImageClass("xray-512", 512, 512, grey=True, quality=85)
PHOTO = ImageClass("photo-640", 640, 480)
FUNDUS = ImageClass("fundus-2048", 2048, 1536)
LARGE_XRAY = ImageClass("xray-2500", 2500, 2048, grey=True)
PNG = ImageClass("png-1024", 1024, 1024, grey=True, quality=0)


def write_images(folder: Path, kind: ImageClass, count: int, *, seed: int = 0) -> list[Path]:
    """Write `count` different pictures of a kind below `folder/kind.name`; those already there are kept.

    Returns:
        Their paths, in order.
    """
    target = folder / kind.name
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / f"{i:05}{kind.suffix}" for i in range(count)]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    if missing:
        sources = _sources()
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(lambda i: _write(sources, kind, paths[i], (seed, i)), missing))
    return paths


def _write(sources: "list[Image]", kind: ImageClass, path: Path, seed: tuple[int, int]) -> None:
    picture = _picture(sources, kind, np.random.default_rng((*seed, kind.width, kind.height)))
    partial = path.with_name(path.name + ".partial")
    if kind.quality:
        coding = {"subsampling": kind.subsampling, "progressive": kind.progressive}
        picture.save(partial, "JPEG", quality=kind.quality, **coding)
    else:
        picture.save(partial, "PNG", compress_level=6)
    partial.replace(path)


def manifest_of(paths: Sequence[Path], root: Path, rows: int | None = None) -> "Manifest":
    """A manifest of `rows` rows (default: one a file) that goes round and round the files, in three classes.

    Written to and read from `root/images-ROWS.csv`, as a user's would be.
    """
    from stores.manifest.manifest import Manifest

    rows = len(paths) if rows is None else rows
    table = root / f"images-{rows}.csv"
    uris = [path.relative_to(root).as_posix() for path in paths]
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "uri", "label"])
        writer.writerows(
            [f"row{i:07}", uris[i % len(uris)], f"class{i % len(uris) % 3}"] for i in range(rows)
        )
    return Manifest.read(table)


def _sources() -> "list[Image]":
    from PIL import Image

    found = []
    for package, (folder, names) in _SHIPPED.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        for name in names:
            path = Path(spec.origin).parent / folder / name
            if path.exists():
                found.append(Image.open(path).convert("RGB"))
    return found


def _picture(sources: "list[Image]", kind: ImageClass, generator: np.random.Generator) -> "Image":
    """A random cut of a shipped picture, scaled to size, with a little grain; else a drawn one."""
    from PIL import Image

    if sources:
        source = sources[int(generator.integers(len(sources)))]
        share = float(generator.uniform(0.5, 1.0))
        width, height = int(source.width * share), int(source.height * share)
        left = int(generator.integers(source.width - width + 1))
        top = int(generator.integers(source.height - height + 1))
        scaled = source.resize(
            (kind.width, kind.height), Image.Resampling.BICUBIC, (left, top, left + width, top + height)
        )
        pixels = np.asarray(scaled, np.float32)
    else:
        pixels = _drawn(kind, generator)
    # Grain as a sensor has it; without it, enlarged pictures would code in too few bytes.
    grain = generator.standard_normal(pixels.shape[:2], dtype=np.float32)[..., None] * 3
    picture = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
    return picture.convert("L") if kind.grey else picture


def _drawn(kind: ImageClass, generator: np.random.Generator) -> NDArray[np.float32]:
    """[height, width, 3] of smooth gradients, discs with sharp edges and waves of several lengths."""
    y, x = np.mgrid[0 : kind.height, 0 : kind.width].astype(np.float32)
    x, y = x / kind.width, y / kind.height
    pixels = np.empty((kind.height, kind.width, 3), np.float32)
    for channel in range(3):
        a, b, c = generator.uniform(0, 1, 3)
        pixels[..., channel] = 40 + 90 * (a * x + b * y) + 25 * np.sin(2 * np.pi * (3 * x + 2 * c * y))
    for _ in range(12):
        cx, cy, radius = generator.uniform(0, 1, 3) * (1, 1, 0.2)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        pixels[inside] += generator.uniform(-60, 60, 3).astype(np.float32)
    waves = np.sin(2 * np.pi * generator.uniform(20, 60) * (x + y))
    pixels += (8 * waves)[..., None].astype(np.float32)
    return pixels
