"""Images of more than 8 bits: their samples in full, what shows them, and what to say where nothing does.

Pillow keeps 8 bits of each channel of a colour image, the upper or the lower as the raw mode says: decoding
with both gives all 16.
"""

import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.decode.bit_depth import levels
from engine.decode.formats.header import Header
from engine.errors import BadImage
from engine.recipes import Recipe

#: Makes a picture ready that Pillow has opened and not decoded yet.
Prepare = Callable[[Any], None]
#: Gives Pillow's picture of a file, decoded and checked; `reference` knows how.
Load = Callable[[bytes, Prepare], Image.Image]

#: Raw modes of 16 bits in colour, without the letter for the order of bytes; alpha is dropped, as of 8 bits.
_COLOUR = ("RGB;16", "RGBA;16", "RGBX;16")
_GREY = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
#: PNG's colour type of grey with alpha, and of RGBA.
_PNG_GREY_ALPHA, _PNG_RGBA = 4, 6


def samples(data: bytes, header: Header, load: Load) -> npt.NDArray[Any]:
    """The stored samples of a PNG or TIFF, undiminished: [height, width] or, of colour, [height, width, 3].

    Raises:
        BadImage: as `load`; undecodable, what Pillow does not give in full.
    """
    if header.format == "PNG" and data[25] == _PNG_GREY_ALPHA:
        return np.asarray(load(_as_rgba(data), _as_it_is)).view(">u2")[:, :, 0]
    kept: list[str] = []
    image = load(data, lambda opened: kept.append(_order(opened, header)))
    if not kept[0]:
        return _grey(image, header)
    halves = [np.asarray(load(data, _taking(half)))[:, :, :3] for half in ("B", "L")]
    return np.stack(halves, axis=-1).view(f"{kept[0]}u2")[..., 0]


def refuse_undecodable(opened: Any, header: Header) -> None:
    """Refuse a picture that Pillow has opened and would not give in full. Raises BadImage: undecodable."""
    _order(opened, header)


def _as_it_is(opened: Any) -> None:
    pass


def _as_rgba(data: bytes) -> bytes:
    """A PNG of grey and alpha in 16 bits as one of RGBA in 8: bytes and filters of its rows are the same."""
    head = b"IHDR" + data[16:24] + bytes([8, _PNG_RGBA]) + data[26:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def _raw_modes(opened: Any) -> set[str]:
    return {args[0] if isinstance(args, tuple) else args for _, _, _, args in opened.tile}


def _order(opened: Any, header: Header) -> str:
    """Order of bytes of a colour image as numpy writes it; empty for one channel.

    Raises:
        BadImage: undecodable, Pillow would give fewer bits, or other ones.
    """
    raw = next(iter(modes)) if len(modes := _raw_modes(opened)) == 1 else ""
    tags = getattr(opened, "tag_v2", {})
    channels, apart = tags.get(277, 1), tags.get(284, 1) == 2
    if raw[:-1] in _COLOUR and raw[-1] in "BLN" and header.bits == 16 and not apart:
        little = raw[-1] == "L" or (raw[-1] == "N" and sys.byteorder == "little")
        return "<" if little else ">"
    eight = opened.mode == "L" and header.samples == "signed"  # Pillow shows these bytes as unsigned ones
    if (opened.mode not in _GREY and not eight) or channels != 1 or (opened.mode == "I" and header.bits > 32):
        what = f"{channels} channels" + " in planes of their own" * apart if tags else f"mode {opened.mode}"
        raise BadImage(
            "undecodable",
            f"{header.format} of {header.bits} bits, {what} ({raw or 'mixed'}); "
            "write it as grey, RGB or RGBA of 16 bits",
        )
    return ""


def _taking(half: str) -> Prepare:
    """Have Pillow take the first (B) or the second (L) byte of each sample."""

    def prepare(opened: Any) -> None:
        opened.tile = [tile._replace(args=_renamed(tile.args, half)) for tile in opened.tile]

    return prepare


def _renamed(args: Any, half: str) -> Any:
    return (args[0][:-1] + half, *args[1:]) if isinstance(args, tuple) else args[:-1] + half


def _grey(image: Image.Image, header: Header) -> npt.NDArray[Any]:
    found = np.asarray(image)
    if image.mode == "L":
        return found.view(np.int8)
    if header.samples == "unsigned" and found.dtype.kind == "i":
        return found.view(f"u{found.itemsize}")
    if header.samples == "signed" and found.dtype.kind == "u":
        return found.view(found.dtype.str.replace("u", "i"))
    return found


def shown(stored: npt.NDArray[Any], header: Header, recipe: Recipe) -> Image.Image:
    """Deep samples as bytes, by one rule for all channels.

    Args:
        stored: [height, width] or [height, width, 3].
        recipe: its `depth` is scale, window or voi.

    Raises:
        BadImage: depth, the rule does not fit; corrupt, samples that are not finite.
    """
    if recipe.depth == "voi":
        raise BadImage("depth", f"only DICOM files carry a window, this is {header.format}")
    if recipe.depth == "scale" and header.samples != "unsigned":
        raise BadImage("depth", f"{header.samples} samples have no full range to scale")
    low, high = recipe.window or (0.0, float(2**header.bits - 1))
    clip = recipe.depth == "window"
    if stored.ndim == 2:
        grey = levels(stored, low, high, clip=clip)
        return Image.fromarray(255 - grey if header.inverted else grey)
    # Channel by channel: what float64 takes of all of them at a time is more than a child may have.
    return Image.fromarray(np.stack([levels(stored[:, :, i], low, high, clip=clip) for i in range(3)], -1))


def by_rules(recipe: Recipe, header: Header, render: Callable[[Recipe], Image.Image]) -> Image.Image:
    """Show a deep image by the first rule of a recipe that fits it.

    Args:
        render: gives the picture by a recipe with one `depth`.

    Raises:
        BadImage: as `render`; depth, none fits, with what would.
    """
    last = BadImage("depth", kind(header))
    for rule in recipe.rules:
        try:
            return render(rule)
        except BadImage as error:
            if error.code != "depth":
                raise
            last = error
    raise BadImage("depth", f"{last.detail.partition('; use')[0]}; {remedy(header, recipe)}")


def kind(header: Header) -> str:
    """What is deep about an image, in a few words."""
    return f"{header.bits} bits a channel" if header.samples == "unsigned" else f"{header.samples} samples"


def remedy(header: Header, recipe: Recipe) -> str:
    """What gives a row an embedding that `recipe` gives none, with the key of its feature as it is."""
    tried = {rule.depth for rule in recipe.rules}
    words = ["scale"] if header.samples == "unsigned" and "scale" not in tried else []
    words += ["voi"] if header.format == "DICOM" and "voi" not in tried else []
    before = "".join(f"--deep {word} " for word in recipe.deep)
    choices = [f"`embank embed {before}--deep {word}`" for word in [*words, "window:LOW,HIGH"]]
    choices = [f"{each} (if the file has a window)" if "deep voi`" in each else each for each in choices]
    return f"{' or '.join(choices)} shows it, and changes no other row"
