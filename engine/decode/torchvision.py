"""The fast route on the CPU: JPEG decoded by torchvision, and torchvision's antialiased resize on bytes.

Everything but JPEG is decoded by Pillow. torchvision's PNG decoder would be no faster, and takes the process
down on damaged data.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torchvision.io import ImageReadMode

from engine.decode import pillow
from engine.decode.formats.header import Header
from engine.decode.geometry import Geometry, plan
from engine.recipes import Recipe

#: What torchvision's own resize calls for bytes, here with the scale factors that it does not pass on.
_RESIZE = {
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.default,
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.default,
}
#: Bytes [3, h, w], interleaved, or [1, h, w]; and the height and width of the picture in pixels of that size.
_Decoded = tuple[torch.Tensor, float, float]
_JpegDecoder = Callable[[bytes, Header, Geometry], _Decoded]


def render(data: bytes, header: Header, recipe: Recipe) -> tuple[np.ndarray, bool]:
    """Pixels of one image, uint8 [side, side, 3], and whether the fast route had to be left.

    Raises:
        BadImage: as the reference renderer.
    """
    return _render(data, header, recipe, _decode)


def render_dct(data: bytes, header: Header, recipe: Recipe) -> tuple[np.ndarray, bool]:
    """As `render`, but large JPEGs are scaled down within their DCT, to no less than twice the final size."""
    return _render(data, header, recipe, _decode_dct)


def _render(data: bytes, header: Header, recipe: Recipe, jpeg: _JpegDecoder) -> tuple[np.ndarray, bool]:
    to = plan(header.height, header.width, recipe)
    if to.extreme:
        return pillow.render(data, header, recipe), True
    fast = header.format == "JPEG" and header.plain and not (recipe.exif and header.exif)
    if fast:
        try:
            return _resize_and_crop(*jpeg(data, header, to), to, recipe), False
        except (RuntimeError, AttributeError, OSError, ValueError, SyntaxError):
            pass  # Pillow decides
    image = pillow.picture(data, header, recipe)
    to = plan(image.height, image.width, recipe)  # it may have been turned
    return _resize_and_crop(_pixels(image), image.height, image.width, to, recipe), fast


def _decode(data: bytes, header: Header, to: Geometry) -> _Decoded:
    mode = ImageReadMode.GRAY if header.colour == "grey" else ImageReadMode.RGB
    # The operator, since the function around it warns in every call that it will go some day.
    pixels = torch.ops.image.decode_jpeg(_tensor(np.frombuffer(data, np.uint8)), mode.value, False)
    return pixels, header.height, header.width


def _decode_dct(data: bytes, header: Header, to: Geometry) -> _Decoded:
    room = min(header.height // to.height, header.width // to.width) // 2
    if room < 2:
        return _decode(data, header, to)
    image = JpegImageFile(io.BytesIO(data))
    image.draft(None, (2 * to.width, 2 * to.height))
    # The scaled image covers whole blocks, so the original's edge lies a fraction of a pixel inside it.
    scale = next(s for s in (8, 4, 2, 1) if s <= room)
    image.load()
    return _pixels(image), header.height / scale, header.width / scale


def _pixels(image: Image.Image) -> torch.Tensor:
    """Bytes of a grey or RGB image, [channels, height, width]."""
    pixels = _tensor(np.asarray(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """The array's own memory as a tensor. Large copies cost more than resizing; nothing here writes to it."""
    return torch.from_numpy(np.asarray(_Writable(array)))


class _Writable:
    """Says of an array's memory that it may be written to, without which torch would warn."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array  # keeps the memory
        facts = array.__array_interface__
        self.__array_interface__ = {**facts, "data": (facts["data"][0], False)}


def _resize_and_crop(
    pixels: torch.Tensor, height: float, width: float, to: Geometry, recipe: Recipe
) -> np.ndarray:
    """Resize bytes [channels, h, w] that show `height` x `width` (perhaps fractional) original pixels."""
    if pixels.shape[1:] != (to.height, to.width):
        resize = _RESIZE[recipe.interpolation]
        scales = to.height / height, to.width / width
        if len(pixels) == 1:
            pixels = _resize_grey(pixels[0], to, resize, *scales)[None]
        else:
            pixels = resize(pixels[None], [to.height, to.width], False, *scales)[0]
    pixels = pixels[:, to.top : to.top + to.side, to.left : to.left + to.side]
    return pixels.permute(1, 2, 0).expand(-1, -1, 3).numpy()


def _resize_grey(
    pixels: torch.Tensor, to: Geometry, resize: Callable[..., torch.Tensor], down: float, across: float
) -> torch.Tensor:
    """Resize bytes [h, w]: four bands of rows at a time, since torch is as fast on four channels as on one.

    First along the rows, then down the columns, as torch does with a whole image: the same bits.
    """
    whole = len(pixels) // 4 * 4
    parts = [
        resize(part.reshape(1, bands, -1, part.shape[1]), [len(part) // bands, to.width], False, None, across)
        for part, bands in ((pixels[:whole], 4), (pixels[whole:], 1))
        if len(part)
    ]
    rows = torch.cat([part.reshape(-1, to.width) for part in parts])
    return resize(rows[None, None], [to.height, to.width], False, down, None)[0, 0]
