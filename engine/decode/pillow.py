"""The reference renderer, with Pillow: the oracle of the other decoders, which defer to it in doubt."""

import io
import math
import re

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from engine.decode import deep, isolated_process
from engine.decode.bit_depth import scale_to_bytes
from engine.decode.formats import dicom, jpeg2000, orientation, png, pnm, tiff
from engine.decode.formats.header import Header
from engine.decode.geometry import Geometry, plan
from engine.decode.random_crops import DrawCrop
from engine.errors import BadImage
from engine.recipes import Recipe

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def render(data: bytes, header: Header, recipe: Recipe) -> np.ndarray:
    """Render one image, with the pixels of Pillow and torchvision's transforms.

    Args:
        data: the complete file.
        header: from `sniff`.
        recipe: to render.

    Returns:
        uint8 [side, side, 3], RGB.

    Raises:
        BadImage: codes truncated, corrupt, undecodable, depth, too_large, decoder_died, too_slow,
            too_much_memory.
    """
    image = picture(data, header, recipe)
    return resize_and_crop(image, plan(image.height, image.width, recipe), recipe)


def render_row(data: bytes, header: Header, recipe: Recipe) -> tuple[np.ndarray, bool]:
    """Render in the form that `ThreadedDecoder` needs; nothing counts as a fallback here."""
    return render(data, header, recipe), False


def render_crop(data: bytes, header: Header, recipe: Recipe, draw: DrawCrop) -> tuple[np.ndarray, bool]:
    """Render a crop of one image as torchvision's `resized_crop` and `hflip` do on a Pillow image.

    Args:
        data, header: as in `render`.
        recipe: its side, interpolation, depth and rotation.
        draw: gives the crop for the upright image's height and width.

    Returns:
        uint8 [side, side, 3], RGB; and False, as in `render_row`.

    Raises:
        BadImage: as `render`.
    """
    image = picture(data, header, recipe)
    crop = draw(image.height, image.width)
    image = image.crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))
    to = Geometry(recipe.side, recipe.side, 0, 0, recipe.side)
    pixels = resize_and_crop(image, to, recipe)
    return pixels[:, ::-1] if crop.flip else pixels, False


def picture(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    """Decode a file to 8-bit grey or RGB, rotated if the recipe says so; in a child process unless ordinary.

    Raises:
        BadImage: as `render`.
        MachineFault: as `isolated_process.Children.picture`.
    """
    if isolated_process.needs_isolation(header):
        return isolated_process.children.picture(data, header, recipe)
    return picture_here(data, header, recipe)


def picture_here(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    """Decode as `picture` does, in this process."""
    if header.deep:
        image = deep.render_by_rules(recipe, header, lambda rule: _as_stored(data, header, rule))
    else:
        image = _as_stored(data, header, recipe)
    return orientation.apply_orientation(image, header.orientation) if recipe.exif else image


def _as_stored(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    """Decode without rotation, by a recipe with a single rule for deep images."""
    if header.format == "DICOM":
        return dicom.picture(data, header, recipe)
    if header.format == "PPM":
        return pnm.picture(data, recipe)
    if header.format == "JPEG2000":
        return _jpeg2000(data, header, recipe)
    if header.deep and header.format == "JPEG":
        raise _deep_jpeg(header)
    if header.deep:
        stored = deep.samples(data, header, lambda file, ready: _load(file, header, ready))
        return deep.to_image(stored, header, recipe)
    return _to_rgb(_load(data, header))


def _jpeg2000(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    picture = jpeg2000.read(data)
    if picture.exact_in_pillow and not picture.unsupported:
        return _to_rgb(_load(data, header))
    stored = jpeg2000.samples(data, picture, lambda stream: _load(stream, header))
    if header.deep:
        return deep.to_image(stored, header, recipe)
    table = scale_to_bytes(np.arange(2**picture.bits), 0, 2**picture.bits - 1, clip=False)
    return Image.fromarray(table[stored])


def refusal(data: bytes, header: Header, recipe: Recipe) -> BadImage:
    """Return why a recipe without a rule for deep images cannot render this one, with a remedy if any."""
    try:
        if header.format == "JPEG2000" and (obstacle := jpeg2000.read(data).unsupported):
            return BadImage("undecodable", obstacle)
        if header.format == "JPEG":
            return _deep_jpeg(header)
        if header.format == "TIFF":
            deep.refuse_undecodable(_opened(data, header), header)
    except BadImage as error:
        return error
    return BadImage("depth", f"{deep.describe_depth(header)}; {deep.remedy(header, recipe)}")


def _deep_jpeg(header: Header) -> BadImage:
    return BadImage("undecodable", f"JPEG of {header.bits} bits; write it as PNG or TIFF of 16 bits")


def _load(data: bytes, header: Header, ready: deep.Prepare = lambda opened: None) -> Image.Image:
    """Decode strictly and without rotation, in the file's mode and depth.

    Args:
        ready: applied to the image between opening and decoding.
    """
    image = _opened(data, header)
    try:
        ready(image)
        image.load()
        _check_rows(image, data, header)
        return image
    except BadImage:
        raise
    except MemoryError as error:
        raise BadImage("too_large", "Pillow ran out of memory on it") from error
    except Exception as error:  # damaged files raise errors of any class
        if header.format == "TIFF":
            tiff.refuse_missing_codec(image.info.get("compression"))
        raise _translate(error) from error


def _opened(data: bytes, header: Header) -> ImageFile.ImageFile:
    """Open a file strictly, without decoding it."""
    Image.init()
    # A process-wide switch that other code may have set; truncated images must be refused.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # The format's class, not `Image.open`, which would detect the format again and apply its own size limits.
    # JPEG's factory is avoided as well, because it looks for further images after the first.
    opener = Image.OPEN[header.format][0]
    if header.format == "TIFF":
        data = orientation.without_orientation(data)
    try:
        image = opener(io.BytesIO(data), "")
        _check_size(image, header)
    except BadImage:
        raise
    except MemoryError as error:
        raise BadImage("too_large", "Pillow ran out of memory on it") from error
    except Exception as error:  # damaged files raise errors of any class
        raise _translate(error) from error
    return image


def _check_size(image: Image.Image, header: Header) -> None:
    """Refuse an image whose size differs from its header's, on which the limits were checked."""
    if image.size != (header.width, header.height):
        raise BadImage("corrupt", f"its header says {header.width} x {header.height}, its data {image.size}")


def _check_rows(image: Image.Image, data: bytes, header: Header) -> None:
    """Refuse a PNG whose missing rows Pillow has filled with zeros; without interlacing, the last is one."""
    if header.format != "PNG":
        return
    last = np.asarray(image.crop((0, image.height - 1, *image.size)))
    if (header.interlaced or not last.any()) and png.rows_missing(data):
        raise BadImage("truncated", "its PNG data end before its last row")


#: Messages of Pillow for kinds of images that it does not support.
_UNSUPPORTED = re.compile("unsupported|unknown pixel mode|cannot handle", re.IGNORECASE)


def _translate(error: Exception) -> BadImage:
    # Addresses of objects differ between runs, which the ledger must not.
    lines = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "the file", str(error)).splitlines()
    detail = f"Pillow: {lines[0] if lines else type(error).__name__}"
    if "truncated" in detail.lower() or isinstance(error, EOFError):
        return BadImage("truncated", detail)
    if isinstance(error, UnidentifiedImageError | NotImplementedError) or _UNSUPPORTED.search(detail):
        return BadImage("undecodable", detail)
    return BadImage("corrupt", detail)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to 8-bit grey or RGB as `Image.convert("RGB")` does; grey keeps one channel until resized."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode not in ("1", "P", "LA", "PA", "RGBA", "RGBX", "RGBa", "La", "CMYK", "YCbCr", "HSV"):
        raise BadImage("undecodable", f"pixels of mode {image.mode}")
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, to: Geometry, recipe: Recipe) -> np.ndarray:
    """Resize (antialiased) and centre-crop a grey or RGB image; uint8 [side, side, 3]."""
    filter = FILTERS[recipe.interpolation]
    if to.extreme:
        image = _resize_window(image, to, filter)
    else:
        if image.size != (to.width, to.height):
            image = image.resize((to.width, to.height), filter)
        image = image.crop((to.left, to.top, to.left + to.side, to.top + to.side))
    pixels = np.asarray(image)
    return np.broadcast_to(pixels[:, :, None], (*pixels.shape, 3)) if pixels.ndim == 2 else pixels


def _resize_window(image: Image.Image, to: Geometry, filter: Image.Resampling) -> Image.Image:
    """Compute only the crop of the resized image: 1 x 20,000 pixels would become 224 x 4,480,000.

    Pillow stores `box` in single precision, and cropping the source first keeps its numbers small. Few pixels
    differ from those of the complete image, by one level.
    """
    left, right, x0, x1 = _window(image.width, to.width, to.left, to.side)
    top, bottom, y0, y1 = _window(image.height, to.height, to.top, to.side)
    source = image.crop((left, top, right, bottom))
    return source.resize((to.side, to.side), filter, box=(x0, y0, x1, y1))


def _window(size: int, new_size: int, offset: int, side: int) -> tuple[int, int, float, float]:
    """Return, for one axis, the source pixels the crop depends on, and its bounds relative to the first."""
    scale = size / new_size
    low, high = offset * scale, (offset + side) * scale
    reach = 2 * max(scale, 1.0) + 1
    first, last = max(0, math.floor(low - reach)), min(size, math.ceil(high + reach))
    return first, last, low - first, min(high - first, last - first)
