"""Deep images by readers that share no code with embank's own: the truth of a certificate.

PNG and JPEG 2000 are read by imagecodecs, TIFF by tifffile and DICOM by SimpleITK, where these packages are
installed; what samples become bytes is written down here once more. All else is the reference renderer's.
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

#: Format -> the package that reads it.
READERS = {"PNG": "imagecodecs", "JPEG2000": "imagecodecs", "TIFF": "tifffile", "DICOM": "SimpleITK"}
_RENDERER = "engine.decode.oracle:picture_here"


class Oracle:
    """Renders as the reference does, deep images and JPEG 2000 by another reader, and counts which did."""

    def __init__(self) -> None:
        self._children = isolated_process.Children(_RENDERER)
        self._readers: dict[bytes, str] = {}

    def render(self, data: bytes, header: Header, recipe: Recipe) -> np.ndarray:
        """Pixels of one image, uint8 [side, side, 3].

        Raises:
            BadImage: as the reference renderer.
        """
        if not is_wanted(header):
            return pillow.render(data, header, recipe)
        image, reader = self._picture(data, header, recipe)
        self._readers[hashlib.sha256(data).digest()] = reader
        return pillow.resize_and_crop(image, plan(image.height, image.width, recipe), recipe)

    def render_row(self, data: bytes, header: Header, recipe: Recipe) -> tuple[np.ndarray, bool]:
        """`render` as a pooled decoder wants it."""
        return self.render(data, header, recipe), False

    def _picture(self, data: bytes, header: Header, recipe: Recipe) -> tuple[Image.Image, str]:
        """The picture and its reader; that of the reference, and no name, where no other gives one."""
        by_reference = pillow.picture(data, header, recipe)  # which rows fail is not for others to say
        reader = READERS.get(header.format, "")
        if reader and importlib.util.find_spec(reader) is not None:
            try:
                return self._children.picture(data, header, recipe), reader
            except BadImage:
                pass
        return by_reference, ""

    def counted(self) -> dict[str, Any]:
        """`{images, independent, readers}`: deep images rendered, and how many of them by which reader."""
        readers = Counter(filter(None, self._readers.values()))
        return {"images": len(self._readers), "independent": readers.total(), "readers": dict(readers)}

    def close(self) -> None:
        """End the child processes."""
        self._children.close()


def is_wanted(header: Header) -> bool:
    """Whether an image is of a kind that Pillow does not simply show."""
    return header.deep or header.format == "JPEG2000"


def picture_here(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    """A deep image as bytes, grey or RGB.

    Raises:
        BadImage: the reader of its format, or what is written here, does not show it.
    """
    if recipe.exif and header.exif:
        raise BadImage("undecodable", "turned images are left to the reference")
    try:
        if header.format == "DICOM":
            return _dicom(data, header, recipe)
        stored = _tiff(data) if header.format == "TIFF" else _coded(data, header.format)
    except MemoryError:
        raise
    except Exception as error:  # readers raise nearly anything
        raise BadImage("undecodable", type(error).__name__) from error
    stored = _colours(stored)
    if not header.deep:
        most = 255 if header.format != "JPEG2000" else _most(data, stored)
        return Image.fromarray(_bytes(stored, 0, most))
    for rule in recipe.rules:
        if rule.window is not None:
            return _shown(stored, *rule.window, header)
        if rule.depth == "scale" and stored.dtype.kind == "u" and stored.max() < 2**header.bits:
            return _shown(stored, 0, 2**header.bits - 1, header)
    raise BadImage("depth", "no rule fits")


def _coded(data: bytes, format: str) -> npt.NDArray[Any]:
    import imagecodecs

    decode = imagecodecs.png_decode if format == "PNG" else imagecodecs.jpeg2k_decode
    found: npt.NDArray[Any] = decode(data)
    return found


def _tiff(data: bytes) -> npt.NDArray[Any]:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        found: npt.NDArray[Any] = page.asarray()
        apart = page.planarconfig == 2 and found.ndim == 3
        return np.moveaxis(found, 0, -1) if apart else found


def _colours(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Samples without alpha: [height, width] or [height, width, 3]."""
    if stored.ndim == 2:
        return stored
    return stored[:, :, 0] if stored.shape[2] < 3 else stored[:, :, :3]


def _most(data: bytes, stored: npt.NDArray[Any]) -> int:
    """The largest sample that JPEG 2000 of up to 8 bits can hold; of a palette, of what it shows."""
    size = data[data.index(b"\xff\x4f\xff\x51") :]
    return 255 if b"pclr" in data[: -len(size)] else int(2 ** ((size[42] & 127) + 1) - 1)


def _shown(stored: npt.NDArray[Any], low: float, high: float, header: Header) -> Image.Image:
    found = _bytes(stored, low, high)
    return Image.fromarray(255 - found if header.inverted else found)


def _bytes(stored: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    share = (stored.astype(np.float64) - low) * 255 / (high - low)
    if not np.isfinite(share).all():
        raise BadImage("corrupt", "samples that are not finite")
    return np.round(np.clip(share, 0, 255)).astype(np.uint8)


def _dicom(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    """Grey DICOM under a window: SimpleITK gives values after the rescale."""
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
