"""The fast renderer on the CPU: torchvision's JPEG decoder and its antialiased resize on bytes.

Formats other than JPEG are decoded by Pillow. torchvision's PNG decoder is not faster, and crashes the
process on damaged data.
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
from engine.decode.random_crops import Crop, DrawCrop
from engine.recipes import Recipe

#: The operators behind torchvision's resize of bytes, called with scale factors that it does not pass on.
_RESIZE = {
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.default,
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.default,
}
#: Bytes [3, h, w], interleaved, or [1, h, w]; and height and width of the image, possibly fractional.
_Decoded = tuple[torch.Tensor, float, float]
_JpegDecoder = Callable[[bytes, Header], _Decoded]
#: (decoded image, its height and width in the file) -> uint8 [side, side, 3].
_Shape = Callable[[_Decoded, int, int], np.ndarray]


def render(data: bytes, header: Header, recipe: Recipe) -> tuple[np.ndarray, bool]:
    """Render one image, uint8 [side, side, 3]; return also whether the reference renderer was needed.

    Raises:
        BadImage: as the reference renderer.
    """
    return _render_by_recipe(data, header, recipe, lambda data, header, to: _decode(data, header))


def render_dct(data: bytes, header: Header, recipe: Recipe) -> tuple[np.ndarray, bool]:
    """Do the same as `render`, but scale large JPEGs in the DCT domain, to at least twice the final size."""
    return _render_by_recipe(data, header, recipe, _decode_dct)


def render_crop(data: bytes, header: Header, recipe: Recipe, draw: DrawCrop) -> tuple[np.ndarray, bool]:
    """Render a crop of one image as torchvision's `resized_crop` and `hflip` do, uint8 [side, side, 3].

    Args:
        data: the complete file.
        header: from `sniff`.
        recipe: its side, interpolation, depth and rotation.
        draw: gives the crop for the upright image's height and width.

    Raises:
        BadImage: as the reference renderer.
    """

    def shape(decoded: _Decoded, height: int, width: int) -> np.ndarray:
        return _crop_and_resize(decoded[0], draw(height, width), recipe)

    return _render(data, header, recipe, _decode, shape)


def _render_by_recipe(
    data: bytes, header: Header, recipe: Recipe, jpeg: Callable[[bytes, Header, Geometry], _Decoded]
) -> tuple[np.ndarray, bool]:
    to = plan(header.height, header.width, recipe)
    if to.extreme:
        return pillow.render(data, header, recipe), True

    def shape(decoded: _Decoded, height: int, width: int) -> np.ndarray:
        return _resize_and_crop(*decoded, plan(height, width, recipe), recipe)

    return _render(data, header, recipe, lambda data, header: jpeg(data, header, to), shape)


def _render(
    data: bytes, header: Header, recipe: Recipe, jpeg: _JpegDecoder, shape: _Shape
) -> tuple[np.ndarray, bool]:
    fast = header.format == "JPEG" and header.plain and not (recipe.exif and header.exif)
    if fast:
        try:
            return shape(jpeg(data, header), header.height, header.width), False
        except (RuntimeError, AttributeError, OSError, ValueError, SyntaxError):
            pass  # Pillow decides whether the file is sound
    image = pillow.picture(data, header, recipe)
    # The image's size, not the header's: it may have been rotated.
    return shape((_pixels(image), image.height, image.width), image.height, image.width), fast


def _decode(data: bytes, header: Header) -> _Decoded:
    mode = ImageReadMode.GRAY if header.colour == "grey" else ImageReadMode.RGB
    # The operator itself, because its wrapper warns of its deprecation in every call.
    pixels = torch.ops.image.decode_jpeg(_tensor(np.frombuffer(data, np.uint8)), mode.value, False)
    return pixels, header.height, header.width


def _decode_dct(data: bytes, header: Header, to: Geometry) -> _Decoded:
    max_scale = min(header.height // to.height, header.width // to.width) // 2
    if max_scale < 2:
        return _decode(data, header)
    image = JpegImageFile(io.BytesIO(data))
    image.draft(None, (2 * to.width, 2 * to.height))
    # The scaled image consists of complete blocks: the original's edge lies a fraction of a pixel inside it.
    scale = next(s for s in (8, 4, 2, 1) if s <= max_scale)
    image.load()
    return _pixels(image), header.height / scale, header.width / scale


def _pixels(image: Image.Image) -> torch.Tensor:
    """Return the bytes of a grey or RGB image, [channels, height, width]."""
    pixels = _tensor(np.asarray(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """Return a tensor that shares the array's memory, avoiding a copy; nothing here writes to it."""
    return torch.from_numpy(np.asarray(_Writable(array)))


class _Writable:
    """Array interface that declares an array's memory writable, without which torch would warn."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array  # keeps the memory
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def _resize_and_crop(
    pixels: torch.Tensor, height: float, width: float, to: Geometry, recipe: Recipe
) -> np.ndarray:
    """Resize bytes [channels, h, w] that represent `height` x `width` original pixels, not always whole."""
    pixels = _resize(pixels, to, recipe, to.height / height, to.width / width)
    return _rgb(pixels[:, to.top : to.top + to.side, to.left : to.left + to.side])


def _crop_and_resize(pixels: torch.Tensor, crop: Crop, recipe: Recipe) -> np.ndarray:
    """Crop bytes [channels, h, w], resize to the recipe's side, and flip."""
    to = Geometry(recipe.side, recipe.side, 0, 0, recipe.side)
    box = pixels[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    resized = _rgb(_resize(box, to, recipe, None, None))  # with the operator's own scales, as in torchvision
    return resized[:, ::-1] if crop.flip else resized


def _rgb(pixels: torch.Tensor) -> np.ndarray:
    """Return bytes [channels, h, w] as [h, w, 3]."""
    return pixels.permute(1, 2, 0).expand(-1, -1, 3).numpy()


def _resize(
    pixels: torch.Tensor, to: Geometry, recipe: Recipe, down: float | None, across: float | None
) -> torch.Tensor:
    """Resize bytes [channels, h, w] to the geometry's height and width, by explicit scales if given."""
    if pixels.shape[1:] == (to.height, to.width):
        return pixels
    resize: Callable[..., torch.Tensor] = _RESIZE[recipe.interpolation]
    if len(pixels) == 1:
        return _resize_grey(pixels[0], to, resize, down, across)[None]
    return resize(pixels[None], [to.height, to.width], False, down, across)[0]


def _resize_grey(
    pixels: torch.Tensor,
    to: Geometry,
    resize: Callable[..., torch.Tensor],
    down: float | None,
    across: float | None,
) -> torch.Tensor:
    """Resize bytes [h, w] as four bands of rows, because torch takes no longer for four channels than for
    one.

    First along rows, then along columns, as torch does with a complete image, for the same bits.
    """
    banded_rows = len(pixels) // 4 * 4
    parts = [
        resize(part.reshape(1, bands, -1, part.shape[1]), [len(part) // bands, to.width], False, None, across)
        for part, bands in ((pixels[:banded_rows], 4), (pixels[banded_rows:], 1))
        if len(part)
    ]
    rows = torch.cat([part.reshape(-1, to.width) for part in parts])
    return resize(rows[None, None], [to.height, to.width], False, down, None)[0, 0]
