"""The kinds of TIFF that Pillow does not read, named from their tags; damage has other words."""

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache

from engine.errors import BadImage

#: Registered compressions; those that Pillow lacks are refused by these names.
_COMPRESSIONS = {
    6: "old-style JPEG", 9: "JBIG", 10: "JBIG", 32766: "NeXT RLE", 32809: "ThunderScan", 32895: "IT8",
    32896: "IT8", 32897: "IT8", 32898: "IT8", 32908: "Pixar film", 32909: "Pixar log", 32947: "Kodak DCS",
    33003: "JPEG 2000 (Aperio, YCbCr)", 33004: "JPEG 2000 (Aperio, lossy)", 33005: "JPEG 2000 (Aperio, RGB)",
    33007: "ALT_JPEG", 34661: "JBIG", 34676: "SGI log", 34677: "SGI log", 34712: "JPEG 2000",
    34713: "Nikon NEF", 34715: "JBIG2", 34887: "LERC", 34892: "lossy JPEG (DNG)", 34925: "LZMA",
    34933: "PNG", 34934: "JPEG XR", 22610: "JPEG XR", 48124: "Jetraw", 50000: "Zstandard", 50001: "WebP",
    50002: "JPEG XL", 50013: "Pixtiff", 52546: "JPEG XL", 65000: "EER", 65001: "EER", 65002: "EER",
}  # fmt: skip
_NUMBERS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "unsigned", 5: "complex", 6: "complex"}
_PHOTOMETRIC = {
    0: "grey (white is zero)", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr",
    8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "colour filter array", 32844: "LogL", 32845: "LogLuv",
    34892: "linear raw",
}  # fmt: skip
_WITH = "convert it (for instance with tifffile and imagecodecs in Python)"
#: Samples of these many bits exist in files; other numbers are damage.
_BITS = frozenset(range(1, 33)) | {64, 128}
_COLOURS = {2: 3, 5: 4, 6: 3, 8: 3}

Tags = Mapping[str, Sequence[int]]


def refuse_unreadable(tags: Tags, little: bool) -> None:
    """Refuse a sound TIFF of a kind that Pillow does not read.

    Args:
        tags: of its directory, by `sniff`'s names.
        little: whether its numbers are little-endian.

    Raises:
        BadImage: undecodable; corrupt, tags that no file can have.
    """
    from PIL import TiffImagePlugin

    compression = _first(tags, "packing", 1)
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        if compression not in _COMPRESSIONS:
            raise BadImage("corrupt", f"TIFF of compression {compression}, which is not registered")
        raise _compressed(compression)
    photometric = 6 if compression == 6 else _first(tags, "photometric", 0)
    colours = _COLOURS.get(photometric, 1)
    bits, extra = _channels(tags, compression, photometric)
    numbers = tuple(tags.get("samples") or (1,))
    if len(set(numbers)) == 1:
        numbers = numbers[:1]
    prefix = b"II" if little else b"MM"
    key = prefix, photometric, numbers, _first(tags, "fill", 1), bits, extra
    many = colours == 1 and _first(tags, "channels", 1) > 2
    if key not in TiffImagePlugin.OPEN_INFO or many:
        raise _of_kind(tags, photometric, numbers)


def _channels(tags: Tags, compression: int, photometric: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bits of each channel and kinds of the extra ones, as Pillow looks them up."""
    bits, extra = tuple(tags.get("bits") or (1,)), tuple(tags.get("extra", ()))
    count = _first(tags, "channels", 3 if compression == 6 and photometric in (2, 6) else 1)
    if count > 65535:
        raise BadImage("corrupt", f"TIFF of {count} channels")
    if _first(tags, "planes", 1) == 2 and extra and max(extra) == 0:
        bits, count, extra = bits[: -len(extra)], count - len(extra), ()
    if count < len(bits):
        bits = bits[:count]
    elif len(bits) == 1:
        bits *= count
    return bits, extra


def _first(tags: Tags, name: str, otherwise: int) -> int:
    values = tags.get(name)
    return values[0] if values else otherwise


def _compressed(compression: int) -> BadImage:
    name = _COMPRESSIONS[compression]
    return BadImage("undecodable", f"TIFF with {name} compression ({compression}); {_WITH}")


def _of_kind(tags: Tags, photometric: int, numbers: Sequence[int]) -> BadImage:
    bits = tuple(tags.get("bits") or (1,))
    if not set(bits) <= _BITS or not set(numbers) <= set(_NUMBERS) or photometric not in _PHOTOMETRIC:
        return BadImage("corrupt", "its TIFF tags state samples that do not exist")
    kind = _NUMBERS[numbers[0]]
    channels = _first(tags, "channels", 1)
    samples = f"{' and '.join(map(str, sorted(set(bits))))}-bit {kind} samples"
    what = f"TIFF of {samples}, {_PHOTOMETRIC[photometric]}"
    if channels > 1:
        what += f", {channels} channels"
    if kind == "floating-point" and channels == 1:
        return BadImage("undecodable", f"floating-point {what}; convert it to float32 samples")
    if channels > 1 and _COLOURS.get(photometric, 1) == 1:
        return BadImage("undecodable", f"{what}; write one channel, or three, as an image")
    return BadImage("undecodable", f"{what}; {_WITH}")


def refuse_missing_codec(compression: object) -> None:
    """Refuse what this Pillow's libtiff was built without, rather than call the file corrupt.

    Args:
        compression: Pillow's word for it.

    Raises:
        BadImage: undecodable.
    """
    from PIL import TiffImagePlugin

    number = TiffImagePlugin.COMPRESSION_INFO_REV.get(str(compression))
    if number in _COMPRESSIONS and compression not in ("tiff_jpeg",) and not _has_codec(str(compression)):
        raise _compressed(number)


@lru_cache
def _has_codec(compression: str) -> bool:
    from PIL import Image

    try:
        Image.new("RGB", (8, 8)).save(io.BytesIO(), "TIFF", compression=compression)
    except (OSError, ValueError, KeyError):
        return False
    return True
