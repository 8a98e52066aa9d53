"""The reference renderer: Pillow. The oracle of the others, and the arbiter of doubtful rows."""

import io
import math
import re

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from engine.decode import deep, isolated_process
from engine.decode.bit_depth import levels
from engine.decode.formats import dicom, jpeg2000, orientation, pnm, tiff
from engine.decode.formats.header import Header
from engine.decode.formats.structure import png_rows_missing
from engine.decode.geometry import Geometry, plan
from engine.errors import BadImage
from engine.recipes import Recipe

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def render(data: bytes, header: Header, recipe: Recipe) -> np.ndarray:
    """Pixels of one image, as Pillow and torchvision's transforms give them.

    Args:
        data: the whole file.
        header: what `sniff` says of it.
        recipe: what to do.

    Returns:
        uint8 [side, side, 3], RGB.

    Raises:
        BadImage: codes truncated, corrupt, undecodable, depth, too_large, decoder_died, too_slow,
            too_much_memory.
    """
    image = picture(data, header, recipe)
    return resize_and_crop(image, plan(image.height, image.width, recipe), recipe)


def render_row(data: bytes, header: Header, recipe: Recipe) -> tuple[np.ndarray, bool]:
    """`render` as a pooled decoder wants it: nothing is a fallback here."""
    return render(data, header, recipe), False


def picture(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    """The whole picture, turned if the recipe says so, as 8-bit grey or RGB; by a child process unless plain.

    Raises:
        BadImage: as `render`.
        MachineFault: as `disposable.Children.picture`.
    """
    if isolated_process.is_wanted(header):
        return isolated_process.children.picture(data, header, recipe)
    return picture_here(data, header, recipe)


def picture_here(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    """As `picture`, in this process."""
    if header.deep:
        image = deep.by_rules(recipe, header, lambda rule: _as_stored(data, header, rule))
    else:
        image = _as_stored(data, header, recipe)
    return orientation.turn(image, header.orientation) if recipe.exif else image


def _as_stored(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    """The picture, not turned, by a recipe that says one thing of deep images."""
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
        return deep.shown(stored, header, recipe)
    return _to_rgb(_load(data, header))


def _jpeg2000(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    facts = jpeg2000.read(data)
    if facts.by_pillow and not facts.unsupported:
        return _to_rgb(_load(data, header))
    stored = jpeg2000.samples(data, facts, lambda stream: _load(stream, header))
    if header.deep:
        return deep.shown(stored, header, recipe)
    table = levels(np.arange(2**facts.bits), 0, 2**facts.bits - 1, clip=False)
    return Image.fromarray(table[stored])


def refusal(data: bytes, header: Header, recipe: Recipe) -> BadImage:
    """Why a deep image has no picture by a recipe without a rule for it: what shows it, if anything does."""
    try:
        if header.format == "JPEG2000" and (why := jpeg2000.read(data).unsupported):
            return BadImage("undecodable", why)
        if header.format == "JPEG":
            return _deep_jpeg(header)
        if header.format == "TIFF":
            deep.refuse_undecodable(_opened(data, header), header)
    except BadImage as error:
        return error
    return BadImage("depth", f"{deep.kind(header)}; {deep.remedy(header, recipe)}")


def _deep_jpeg(header: Header) -> BadImage:
    return BadImage("undecodable", f"JPEG of {header.bits} bits; write it as PNG or TIFF of 16 bits")


def _load(data: bytes, header: Header, ready: deep.Prepare = lambda opened: None) -> Image.Image:
    """Decode strictly, and turn nothing. Mode and samples are the file's.

    Args:
        ready: what is done to the picture between opening and decoding.
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
    except Exception as error:  # damaged files raise nearly anything
        if header.format == "TIFF":
            tiff.refuse_missing_codec(image.info.get("compression"))
        raise _translate(error) from error


def _opened(data: bytes, header: Header) -> ImageFile.ImageFile:
    """Open strictly: nothing is decoded yet."""
    Image.init()
    # A process-wide switch that other code may have turned on; truncated images must not pass here.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # The format's own class: `Image.open` would guess again, and warn or refuse by its own size limits.
    # JPEG's factory is avoided too: it looks for further pictures after the first.
    opener = Image.OPEN[header.format][0]
    if header.format == "TIFF":
        data = orientation.without(data)
    try:
        image = opener(io.BytesIO(data), "")
        _check_size(image, header)
    except BadImage:
        raise
    except MemoryError as error:
        raise BadImage("too_large", "Pillow ran out of memory on it") from error
    except Exception as error:  # damaged files raise nearly anything
        raise _translate(error) from error
    return image


def _check_size(image: Image.Image, header: Header) -> None:
    """The limits were checked on the header's size; what is decoded must be that."""
    if image.size != (header.width, header.height):
        raise BadImage("corrupt", f"its header says {header.width} x {header.height}, its data {image.size}")


def _check_rows(image: Image.Image, data: bytes, header: Header) -> None:
    """Find rows that Pillow filled in for want of data: zeros, and without interlacing the last is one."""
    if header.format != "PNG":
        return
    last = np.asarray(image.crop((0, image.height - 1, *image.size)))
    if (header.interlaced or not last.any()) and png_rows_missing(data):
        raise BadImage("truncated", "its PNG data end before its last row")


#: How Pillow says that it does not know a kind.
_UNSUPPORTED = re.compile("unsupported|unknown pixel mode|cannot handle", re.IGNORECASE)


def _translate(error: Exception) -> BadImage:
    # Addresses of objects differ from run to run; the ledger must not.
    said = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "the file", str(error)).splitlines()
    detail = f"Pillow: {said[0] if said else type(error).__name__}"
    if "truncated" in detail.lower() or isinstance(error, EOFError):
        return BadImage("truncated", detail)
    if isinstance(error, UnidentifiedImageError | NotImplementedError) or _UNSUPPORTED.search(detail):
        return BadImage("undecodable", detail)
    return BadImage("corrupt", detail)


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit grey or RGB, as `Image.convert("RGB")` has it (grey stays one channel until after resizing)."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode not in ("1", "P", "LA", "PA", "RGBA", "RGBX", "RGBa", "La", "CMYK", "YCbCr", "HSV"):
        raise BadImage("undecodable", f"pixels of mode {image.mode}")
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, to: Geometry, recipe: Recipe) -> np.ndarray:
    """Antialiased resize and centre crop of a grey or RGB image; uint8 [side, side, 3]."""
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
    """The crop of the resized image, without the rest: 1 x 20,000 pixels would become 224 x 4,480,000.

    Pillow keeps `box` in single precision; cutting the source down first keeps the numbers in it small. Few
    pixels differ from the whole's, by one level.
    """
    left, right, x0, x1 = _window(image.width, to.width, to.left, to.side)
    top, bottom, y0, y1 = _window(image.height, to.height, to.top, to.side)
    part = image.crop((left, top, right, bottom))
    return part.resize((to.side, to.side), filter, box=(x0, y0, x1, y1))


def _window(size: int, new_size: int, offset: int, side: int) -> tuple[int, int, float, float]:
    """Along one axis: the source pixels that the crop depends on, and its bounds from the first of them."""
    scale = size / new_size
    low, high = offset * scale, (offset + side) * scale
    reach = 2 * max(scale, 1.0) + 1
    first, last = max(0, math.floor(low - reach)), min(size, math.ceil(high + reach))
    return first, last, low - first, min(high - first, last - first)
