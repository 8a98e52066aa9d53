"""The fast route on the CPU: JPEG decoded by torchvision, and torchvision's antialiased resize on bytes.

Everything but JPEG is decoded by Pillow. torchvision's PNG decoder would be no faster, and takes the process
down on damaged data.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL.JpegImagePlugin import JpegImageFile
from torchvision.io import ImageReadMode

from engine.decode import reference
from engine.decode.geometry import Geometry, plan
from engine.decode.sniff import Header
from engine.recipes import Recipe

#: What torchvision's own resize calls for bytes, here with the scale factors that it does not pass on.
_RESIZE = {
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.default,
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.default,
}
#: Bytes [3, h, w], and the height and width of the picture in pixels of that size.
_Decoded = tuple[torch.Tensor, float, float]
_JpegDecoder = Callable[[bytes, Header, Geometry], _Decoded]


def render(data: bytes, header: Header, recipe: Recipe) -> tuple[np.ndarray, bool]:
    """Pixels of one image, uint8 [side, side, 3], and whether the reference renderer made them.

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
        return reference.render(data, header, recipe), True
    fast = header.format == "JPEG" and header.plain and not (recipe.exif and header.exif)
    if fast:
        try:
            return _resize_and_crop(*jpeg(data, header, to), to, recipe), False
        except (RuntimeError, AttributeError, OSError, ValueError, SyntaxError):
            pass  # Pillow decides
    image = reference.to_rgb(reference.load(data, header, recipe), header, recipe)
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    to = plan(image.height, image.width, recipe)  # it may have been turned
    return _resize_and_crop(pixels, image.height, image.width, to, recipe), fast


def _decode(data: bytes, header: Header, to: Geometry) -> _Decoded:
    # A copy, since torch warns of memory that it must not write to; it costs microseconds.
    encoded = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    # torch resizes three interleaved channels faster than one, and that pays for making them.
    # The operator, since the function around it warns in every call that it will go some day.
    pixels = torch.ops.image.decode_jpeg(encoded, ImageReadMode.RGB.value, False)
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
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    return pixels, header.height / scale, header.width / scale


def _resize_and_crop(
    pixels: torch.Tensor, height: float, width: float, to: Geometry, recipe: Recipe
) -> np.ndarray:
    """Resize [3, h, w] bytes that show `height` x `width` (perhaps fractional) pixels of the picture."""
    if pixels.shape[1:] != (to.height, to.width):
        resize = _RESIZE[recipe.interpolation]
        pixels = resize(pixels[None], [to.height, to.width], False, to.height / height, to.width / width)[0]
    bottom, right = to.top + to.side, to.left + to.side
    return pixels[:, to.top : bottom, to.left : right].permute(1, 2, 0).numpy()
