"""DICOM files: the header before anything else, then pixels by pydicom and the window by a recipe's `depth`.

One frame, grey, in colour or of a palette. Stored samples become values by the file's modality LUT or rescale
(PS3.3 C.11.1), bytes by a window (C.11.2), and MONOCHROME1 is inverted last of all.
"""

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine import dicom_file
from engine.decode.bit_depth import levels
from engine.decode.formats import dicom_codec, dicom_display
from engine.decode.formats.header import Colour, Header, checked
from engine.decode.source import Limits
from engine.errors import BadImage
from engine.recipes import Recipe

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE, _RED = "PALETTE COLOR", "RedPaletteColorLookupTable"
#: Of these a sample has 8 bits: pydicom converts no others.
_EIGHT_BITS = ("YBR_FULL", "YBR_FULL_422")
_ALLOCATED = (1, 8, 16, 32, 64)
#: Bytes of a pixel: three samples of 64 bits.
_LARGEST = 24
_FLOATS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}


def header(data: bytes, limits: Limits) -> Header:
    """Describe a DICOM file; its pixels are not touched.

    Raises:
        BadImage: as `sniff`, and no_pixels, undecodable.
    """
    file = _opened(data)
    if not file.whole:
        raise BadImage("truncated", "DICOM that ends before its pixels")
    if not file.pixels:
        raise BadImage("no_pixels", f"DICOM without pixels{_kind(file.dataset)}")
    try:
        found = _described(file.dataset, file.pixels)
        frames = int(file.dataset.get("NumberOfFrames") or 1)
    except BadImage:
        raise
    except Exception as error:  # damaged values raise nearly anything
        raise BadImage("corrupt", "its DICOM header is invalid") from error
    checked(found, limits)
    if file.unpacked > limits.max_bytes:
        detail = f"deflated DICOM of {file.unpacked} bytes, the limit is {limits.max_bytes}"
        raise BadImage("too_large", detail, pending=True)
    if frames > 1:
        raise BadImage("multi_frame", f"DICOM of {frames} frames")
    _check_kind(file.dataset)
    if file.pixels == "PixelData":
        _check_bits(file.dataset)
        dicom_codec.check_codec(file.dataset)
    return found


def picture(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    """8-bit grey or RGB.

    Raises:
        BadImage: truncated, corrupt, undecodable, depth.
    """
    dataset = _opened(data, _LARGEST * header.width * header.height).dataset
    samples = dicom_codec.samples(dataset, header)
    if header.colour == "palette":
        return Image.fromarray(dicom_display.palette(dataset, samples))
    if header.colour == "rgb":
        if recipe.depth == "voi" and header.deep:
            raise BadImage("depth", "a DICOM window is of grey images, not of colour; use scale or window")
        return Image.fromarray(
            np.stack([_bytes(dataset, samples[:, :, i], header, recipe) for i in range(3)], axis=2)
        )
    grey = _bytes(dataset, samples, header, recipe)
    return Image.fromarray(255 - grey if header.inverted else grey)


def _opened(data: bytes, room: int = 0) -> dicom_file.Opened:
    if importlib.util.find_spec("pydicom") is None:
        raise dicom_codec.needs_package("it is a DICOM file", "'embank[dicom]'")
    try:
        return dicom_file.opened(data, room=room)
    except BadImage:
        raise
    except ImportError as error:  # of pydicom, or of a plug-in that is installed but broken
        raise dicom_codec.needs_package(f"{dicom_codec.said(error)[:80]}", "'embank[dicom]'") from error
    except Exception as error:  # damaged files raise nearly anything
        raise BadImage("corrupt", dicom_codec.said(error)) from error


def _kind(dataset: "Dataset") -> str:
    """What a file without pixels is, if it says so in the standard's words."""
    try:
        name = dataset.SOPClassUID.name
    except Exception:  # it is missing, or damaged
        return ""
    return f": {name[:60]}" if name.isprintable() else ""


def _described(dataset: "Dataset", pixels: str) -> Header:
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    width, height = _number(dataset, "Columns"), _number(dataset, "Rows")
    if pixels in _FLOATS:
        return Header(
            "DICOM", width, height, _FLOATS[pixels], "grey", "float", photometric == "MONOCHROME1"
        )  # fmt: skip
    stored, signed = _number(dataset, "BitsStored"), bool(_number(dataset, "PixelRepresentation"))
    if photometric == _PALETTE:
        return Header("DICOM", width, height, 8, "palette")
    colour: Colour = "grey" if photometric in _GREY else "rgb"
    return Header(
        "DICOM", width, height, max(stored, 8), colour,
        "signed" if signed else "unsigned", photometric == "MONOCHROME1",
    )  # fmt: skip


def _number(dataset: "Dataset", name: str) -> int:
    value = dataset.get(name)
    if value is None:
        raise BadImage("corrupt", f"a DICOM header without {name}")
    return int(value)


def _check_kind(dataset: "Dataset") -> None:
    photometric = str(dataset.get("PhotometricInterpretation"))
    if photometric not in (*_GREY, *_COLOUR, _PALETTE):
        raise BadImage("undecodable", f"DICOM of photometric interpretation {photometric[:20]!r}")
    shown, has_palette = str(dataset.get("PixelPresentation")), f"{_RED}Descriptor" in dataset
    if photometric in _GREY and shown in ("COLOR", "MIXED") and has_palette:
        raise BadImage("undecodable", f"DICOM of grey samples with a supplemental palette ({shown})")
    stored = dataset.get("BitsStored")
    if photometric in _EIGHT_BITS and stored != 8:
        raise BadImage("undecodable", f"DICOM of {photometric} with {stored} bits a sample")


def _check_bits(dataset: "Dataset") -> None:
    """Refuse samples whose place within their cells is impossible, or not what the decoders take it for."""
    allocated, stored = _number(dataset, "BitsAllocated"), _number(dataset, "BitsStored")
    if allocated not in _ALLOCATED:
        raise BadImage("undecodable", f"DICOM of {allocated} bits allocated a sample")
    below = dicom_codec.unused_bits(dataset)
    if not 1 <= stored <= allocated or not 0 <= below <= allocated - stored:
        detail = f"{stored} bits stored of {allocated} allocated, the highest at {dataset.get('HighBit')}"
        raise BadImage("corrupt", f"its DICOM header is impossible: {detail}")
    if below and not dicom_codec.keeps_cells(dataset):
        raise BadImage("undecodable", f"coded DICOM whose stored bits begin at bit {below}")


def _bytes(
    dataset: "Dataset", samples: npt.NDArray[Any], header: Header, recipe: Recipe
) -> npt.NDArray[np.uint8]:
    if recipe.depth == "voi" and header.colour == "grey":
        shown = dicom_display.voi(dataset, samples)
        if shown is not None:
            return shown
        if header.deep:
            remedy = "scale or window" if header.samples == "unsigned" else "window"
            raise BadImage("depth", f"no window or VOI LUT in the file; use depth {remedy}")
    if recipe.depth == "window" and header.deep:
        assert recipe.window is not None
        values = dicom_display.modality(dataset, samples) if header.colour == "grey" else samples
        return levels(values, *recipe.window, clip=True)
    if header.samples != "unsigned":
        raise BadImage("depth", f"{header.samples} samples have no full range to scale; use window or voi")
    most = 2 ** int(dataset.BitsStored) - 1
    if samples.dtype == np.uint8 and most == 255:
        return samples
    return levels(dicom_codec.without_excess(dataset, samples, most), 0, most, clip=False)
