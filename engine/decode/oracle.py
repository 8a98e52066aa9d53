"""Deep images by readers that share no code with embank's: the expected values of a parity certificate.

PNG and JPEG 2000 are read by imagecodecs, TIFF by tifffile and DICOM by SimpleITK, if these packages are
installed; the conversion of samples to bytes is written independently here. Everything else comes from the
reference renderer.
"""

import hashlib
import importlib
import importlib.util
import io
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.decode import isolated_process, pillow
from engine.decode.formats.header import Header
from engine.decode.geometry import plan
from engine.errors import BadImage
from engine.recipes import Recipe
from stores.json_types import JsonObject

#: Format -> package that reads it.
READERS = {"PNG": "imagecodecs", "JPEG2000": "imagecodecs", "TIFF": "tifffile", "DICOM": "SimpleITK"}
_RENDERER = "engine.decode.oracle:picture_here"


class Oracle:
    """Reference renderer with independent readers for deep images and JPEG 2000, which counts their use."""

    def __init__(self) -> None:
        self._children = isolated_process.Children(_RENDERER)
        self._readers: dict[bytes, str] = {}

    def render(self, data: bytes, header: Header, recipe: Recipe) -> np.ndarray:
        """Render one image, uint8 [side, side, 3].

        Raises:
            BadImage: as the reference renderer.
        """
        if not needs_other_reader(header):
            return pillow.render(data, header, recipe)
        image, reader = self._picture(data, header, recipe)
        self._readers[hashlib.sha256(data).digest()] = reader
        return pillow.resize_and_crop(image, plan(image.height, image.width, recipe), recipe)

    def render_row(self, data: bytes, header: Header, recipe: Recipe) -> tuple[np.ndarray, bool]:
        """Render in the form that `ThreadedDecoder` needs; nothing counts as a fallback here."""
        return self.render(data, header, recipe), False

    def _picture(self, data: bytes, header: Header, recipe: Recipe) -> tuple[Image.Image, str]:
        """Return the image and its reader; the reference's image and "" if no other reader gives one."""
        by_reference = pillow.picture(data, header, recipe)  # the reference alone decides which rows fail
        reader = READERS.get(header.format, "")
        if reader and importlib.util.find_spec(reader) is not None:
            try:
                return self._children.picture(data, header, recipe), reader
            except BadImage:
                pass
        return by_reference, ""

    def reader_counts(self) -> JsonObject:
        """Return `{images, independent, readers}`: deep images rendered, in all and by each reader."""
        readers = Counter(filter(None, self._readers.values()))
        return {"images": len(self._readers), "independent": readers.total(), "readers": dict(readers)}

    def close(self) -> None:
        """End the child processes."""
        self._children.close()


def needs_other_reader(header: Header) -> bool:
    """Return True for kinds of images whose samples Pillow does not give directly."""
    return header.deep or header.format == "JPEG2000"


def picture_here(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    """Return a deep image as 8-bit grey or RGB.

    Raises:
        BadImage: the reader of its format, or this module, cannot render it.
    """
    if recipe.exif and header.exif:
        raise BadImage("undecodable", "turned images are left to the reference")
    try:
        if header.format == "DICOM":
            return _dicom(data, header, recipe)
        stored = _tiff(data) if header.format == "TIFF" else _coded(data, header.format)
    except MemoryError:
        raise
    except Exception as error:  # readers raise errors of any class
        raise BadImage("undecodable", type(error).__name__) from error
    stored = _colours(stored)
    if not header.deep:
        largest = 255 if header.format != "JPEG2000" else _most(data, stored)
        return Image.fromarray(_bytes(stored, 0, largest))
    for rule in recipe.rules:
        if rule.window is not None:
            return _shown(stored, *rule.window, header)
        if rule.depth == "scale" and stored.dtype.kind == "u" and stored.max() < 2**header.bits:
            return _shown(stored, 0, 2**header.bits - 1, header)
    raise BadImage("depth", "no rule fits")


def _coded(data: bytes, format: str) -> npt.NDArray[Any]:
    import imagecodecs

    decode = imagecodecs.png_decode if format == "PNG" else imagecodecs.jpeg2k_decode
    samples: npt.NDArray[Any] = decode(data)
    return samples


def _tiff(data: bytes) -> npt.NDArray[Any]:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        samples: npt.NDArray[Any] = page.asarray()
        planar = page.planarconfig == 2 and samples.ndim == 3
        return np.moveaxis(samples, 0, -1) if planar else samples


def _colours(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Drop alpha: samples [height, width] or [height, width, 3]."""
    if stored.ndim == 2:
        return stored
    return stored[:, :, 0] if stored.shape[2] < 3 else stored[:, :, :3]


def _most(data: bytes, stored: npt.NDArray[Any]) -> int:
    """Return the largest possible sample of JPEG 2000 of up to 8 bits; with a palette, of its entries."""
    size = data[data.index(b"\xff\x4f\xff\x51") :]
    return 255 if b"pclr" in data[: -len(size)] else int(2 ** ((size[42] & 127) + 1) - 1)


def _shown(stored: npt.NDArray[Any], low: float, high: float, header: Header) -> Image.Image:
    grey = _bytes(stored, low, high)
    return Image.fromarray(255 - grey if header.inverted else grey)


def _bytes(stored: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    share = (stored.astype(np.float64) - low) * 255 / (high - low)
    if not np.isfinite(share).all():
        raise BadImage("corrupt", "samples that are not finite")
    return np.round(np.clip(share, 0, 255)).astype(np.uint8)


def _dicom(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    """Render grey DICOM by a window: SimpleITK gives values after the rescale."""
    sitk: Any = importlib.import_module("SimpleITK")  # without annotations
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.dcm"
        path.write_bytes(data)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        image = reader.Execute()
    values = np.squeeze(sitk.GetArrayFromImage(image), axis=0)
    plain = not reader.HasMetaDataKey("0028|1053") and not reader.HasMetaDataKey("0028|3000")
    for rule in recipe.rules:
        if rule.window is not None and not reader.HasMetaDataKey("0028|3000"):
            return _shown(values, *rule.window, header)
        if rule.depth == "scale" and plain and values.min() >= 0 and header.samples == "unsigned":
            return _shown(values, 0, 2**header.bits - 1, header)
        break
    raise BadImage("depth", "no rule fits that is known here")
