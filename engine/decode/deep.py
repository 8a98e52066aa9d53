"""Images of more than 8 bits: reading their samples in full, and rendering them by a recipe's rules.

Of 16-bit colour images Pillow keeps 8 bits a channel, the upper or the lower ones depending on the raw mode:
decoding with both raw modes gives all 16.
"""

import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.decode.bit_depth import scale_to_bytes
from engine.decode.formats.header import Header
from engine.errors import BadImage
from engine.recipes import Recipe

#: Modifies an image that Pillow has opened but not yet decoded.
Prepare = Callable[[Any], None]
#: Decodes a file with Pillow and checks it, see `pillow._load`.
Load = Callable[[bytes, Prepare], Image.Image]

#: Raw modes of 16-bit colour without the letter of the byte order; alpha is dropped, as for 8 bits.
_COLOUR = ("RGB;16", "RGBA;16", "RGBX;16")
_GREY = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
#: PNG colour types: grey with alpha, and RGBA.
_PNG_GREY_ALPHA, _PNG_RGBA = 4, 6


def samples(data: bytes, header: Header, load: Load) -> npt.NDArray[Any]:
    """Read the samples of a PNG or TIFF in full depth: [height, width] or, in colour, [height, width, 3].

    Raises:
        BadImage: as `load`; undecodable, if Pillow does not give the samples in full.
    """
    if header.format == "PNG" and data[25] == _PNG_GREY_ALPHA:
        return np.asarray(load(_as_rgba(data), _as_it_is)).view(">u2")[:, :, 0]
    byte_order: list[str] = []
    image = load(data, lambda opened: byte_order.append(_order(opened, header)))
    if not byte_order[0]:
        return _grey(image, header)
    halves = [np.asarray(load(data, _taking(half)))[:, :, :3] for half in ("B", "L")]
    return np.stack(halves, axis=-1).view(f"{byte_order[0]}u2")[..., 0]


def refuse_undecodable(opened: Any, header: Header) -> None:
    """Raise BadImage undecodable for an opened image that Pillow would not decode in full depth."""
    _order(opened, header)


def _as_it_is(opened: Any) -> None:
    pass


def _as_rgba(data: bytes) -> bytes:
    """Relabel a PNG of 16-bit grey and alpha as 8-bit RGBA, whose rows have the same bytes and filters."""
    head = b"IHDR" + data[16:24] + bytes([8, _PNG_RGBA]) + data[26:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def _raw_modes(opened: Any) -> set[str]:
    return {args[0] if isinstance(args, tuple) else args for _, _, _, args in opened.tile}


def _order(opened: Any, header: Header) -> str:
    """Return the byte order of a colour image in numpy's notation; "" for one channel.

    Raises:
        BadImage: undecodable, if Pillow would give fewer bits, or different ones.
    """
    raw = next(iter(modes)) if len(modes := _raw_modes(opened)) == 1 else ""
    tags = getattr(opened, "tag_v2", {})
    channels, planar = tags.get(277, 1), tags.get(284, 1) == 2
    if raw[:-1] in _COLOUR and raw[-1] in "BLN" and header.bits == 16 and not planar:
        little = raw[-1] == "L" or (raw[-1] == "N" and sys.byteorder == "little")
        return "<" if little else ">"
    signed_bytes = opened.mode == "L" and header.samples == "signed"  # Pillow gives these bytes as unsigned
    if (
        (opened.mode not in _GREY and not signed_bytes)
        or channels != 1
        or (opened.mode == "I" and header.bits > 32)
    ):
        description = (
            f"{channels} channels" + " in planes of their own" * planar if tags else f"mode {opened.mode}"
        )
        raise BadImage(
            "undecodable",
            f"{header.format} of {header.bits} bits, {description} ({raw or 'mixed'}); "
            "write it as grey, RGB or RGBA of 16 bits",
        )
    return ""


def _taking(half: str) -> Prepare:
    """Return a function that makes Pillow take the first (B) or the second (L) byte of each sample."""

    def prepare(opened: Any) -> None:
        opened.tile = [tile._replace(args=_renamed(tile.args, half)) for tile in opened.tile]

    return prepare


def _renamed(args: Any, half: str) -> Any:
    return (args[0][:-1] + half, *args[1:]) if isinstance(args, tuple) else args[:-1] + half


def _grey(image: Image.Image, header: Header) -> npt.NDArray[Any]:
    samples = np.asarray(image)
    if image.mode == "L":
        return samples.view(np.int8)
    if header.samples == "unsigned" and samples.dtype.kind == "i":
        return samples.view(f"u{samples.itemsize}")
    if header.samples == "signed" and samples.dtype.kind == "u":
        return samples.view(samples.dtype.str.replace("u", "i"))
    return samples


def to_image(stored: npt.NDArray[Any], header: Header, recipe: Recipe) -> Image.Image:
    """Convert deep samples to an 8-bit image, by one rule for all channels.

    Args:
        stored: [height, width] or [height, width, 3].
        recipe: its `depth` is scale, window or voi.

    Raises:
        BadImage: depth, if the rule does not apply; corrupt, if samples are not finite.
    """
    if recipe.depth == "voi":
        raise BadImage("depth", f"only DICOM files carry a window, this is {header.format}")
    if recipe.depth == "scale" and header.samples != "unsigned":
        raise BadImage("depth", f"{header.samples} samples have no full range to scale")
    low, high = recipe.window or (0.0, float(2**header.bits - 1))
    clip = recipe.depth == "window"
    if stored.ndim == 2:
        grey = scale_to_bytes(stored, low, high, clip=clip)
        return Image.fromarray(255 - grey if header.inverted else grey)
    # Channel by channel, because all channels in float64 exceed the memory of an isolated process.
    return Image.fromarray(
        np.stack([scale_to_bytes(stored[:, :, i], low, high, clip=clip) for i in range(3)], -1)
    )


def render_by_rules(recipe: Recipe, header: Header, render: Callable[[Recipe], Image.Image]) -> Image.Image:
    """Render a deep image by the first rule of a recipe that applies to it.

    Args:
        render: renders the image by a recipe with one `depth`.

    Raises:
        BadImage: as `render`; depth, if no rule applies, with a remedy.
    """
    last = BadImage("depth", describe_depth(header))
    for rule in recipe.rules:
        try:
            return render(rule)
        except BadImage as error:
            if error.code != "depth":
                raise
            last = error
    raise BadImage("depth", f"{last.detail.partition('; use')[0]}; {remedy(header, recipe)}")


def describe_depth(header: Header) -> str:
    """Describe the depth of an image in a few words."""
    return f"{header.bits} bits a channel" if header.samples == "unsigned" else f"{header.samples} samples"


def remedy(header: Header, recipe: Recipe) -> str:
    """Return the options that render an image which `recipe` does not, without changing the feature's key."""
    tried = {rule.depth for rule in recipe.rules}
    words = ["scale"] if header.samples == "unsigned" and "scale" not in tried else []
    words += ["voi"] if header.format == "DICOM" and "voi" not in tried else []
    earlier = "".join(f"--deep {word} " for word in recipe.deep)
    choices = [f"`embank embed {earlier}--deep {word}`" for word in [*words, "window:LOW,HIGH"]]
    choices = [f"{c} (if the file has a window)" if "deep voi`" in c else c for c in choices]
    return f"{' or '.join(choices)} shows it, and changes no other row"
