"""DICOM files: the header before anything else, then pixels by pydicom and the window by a recipe's `depth`.

One frame, grey or RGB, with its preamble. Stored samples become values by the file's modality LUT or rescale
(PS3.3 C.11.1), bytes by a window (C.11.2), and MONOCHROME1 is inverted last of all.
"""

import importlib.util
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.decode.depth import levels
from engine.decode.sniff import Header, checked, sniff
from engine.decode.source import Limits
from engine.errors import BadImage
from engine.recipes import Recipe

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: As the element Transfer Syntax UID is written. It would be unpacked on opening, to any size.
_DEFLATED = b"\x02\x00\x10\x00UI\x16\x001.2.840.10008.1.2.1.99"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
#: Coded pictures whose own size can be read here before a codec trusts it.
_KNOWN_STREAMS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")


def header(data: bytes, limits: Limits) -> Header:
    """Describe a DICOM file; its pixels are not touched.

    Raises:
        BadImage: as `sniff`, and undecodable.
    """
    dataset = _dataset(data, pixels=False)
    try:
        photometric = str(dataset.PhotometricInterpretation)
        stored, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
        frames = int(dataset.get("NumberOfFrames") or 1)
        found = Header(
            "DICOM", int(dataset.Columns), int(dataset.Rows), max(stored, 8),
            "grey" if photometric in _GREY else "rgb",
            "signed" if signed else "unsigned", photometric == "MONOCHROME1",
        )  # fmt: skip
    except AttributeError as error:
        raise BadImage("truncated", "DICOM that ends before its pixels, or has none") from error
    except (TypeError, ValueError) as error:
        raise BadImage("corrupt", "its DICOM header is invalid") from error
    checked(found, limits)
    if frames > 1:
        raise BadImage("multi_frame", f"DICOM of {frames} frames")
    if photometric not in _GREY + _COLOUR:
        raise BadImage("undecodable", f"DICOM of photometric interpretation {photometric[:20]!r}")
    _check_codec(dataset)
    return found


def picture(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    """8-bit grey or RGB.

    Raises:
        BadImage: truncated, corrupt, undecodable, depth.
    """
    dataset = _dataset(data, pixels=True)
    samples = _samples(dataset, header)
    if samples.ndim == 3:
        if not header.deep and samples.dtype == np.uint8:
            return Image.fromarray(samples)
        if str(dataset.PhotometricInterpretation).startswith("YBR_FULL"):  # pydicom converts bytes only
            raise BadImage("undecodable", f"DICOM of {header.bits} bits in YBR_FULL; write it as RGB")
        if recipe.depth == "voi":
            raise BadImage("depth", "a DICOM window is for one channel, and this image is in colour")
        channels = [_bytes(dataset, samples[:, :, i], header, recipe) for i in range(3)]
        return Image.fromarray(np.stack(channels, -1))
    grey = _bytes(dataset, samples, header, recipe)
    return Image.fromarray(255 - grey if header.inverted else grey)


def _dataset(data: bytes, *, pixels: bool) -> "Dataset":
    if importlib.util.find_spec("pydicom") is None:
        raise _package("it is a DICOM file", "embank[dicom]")
    import pydicom

    # Values that break the standard are common, are not used here, and would be warned of one by one.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    if _DEFLATED in data:
        raise BadImage("undecodable", "deflated DICOM; write it without compression of the whole file")
    try:
        return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=not pixels)
    except Exception as error:  # damaged files raise nearly anything
        raise BadImage("corrupt", f"pydicom: {_said(error)}") from error


def _check_codec(dataset: "Dataset") -> None:
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        decoder = get_decoder(syntax)
    except (NotImplementedError, AttributeError, TypeError) as error:
        raise BadImage("undecodable", f"DICOM of transfer syntax {str(syntax)[:64]!r}") from error
    if not decoder.is_available:
        raise _package(f"its pixels are coded as {decoder.UID.name}", "pylibjpeg[all]")


def _package(reason: str, package: str) -> BadImage:
    return BadImage("needs_package", f"{reason}: pip install '{package}'", pending=True)


def _samples(dataset: "Dataset", header: Header) -> npt.NDArray[Any]:
    """Stored samples [height, width], or RGB bytes [height, width, 3]."""
    from pydicom.pixels.utils import pixel_array

    try:
        _check_stream(dataset, header)
        samples = pixel_array(dataset)
    except BadImage:
        raise
    except Exception as error:  # damaged files raise nearly anything
        code = "truncated" if isinstance(error, EOFError) or "less than expected" in str(error) else "corrupt"
        raise BadImage(code, f"pydicom: {_said(error)}") from error
    if samples.shape[:2] != (header.height, header.width) or samples.shape[2:] not in ((), (3,)):
        raise BadImage("corrupt", f"its header and its data, of shape {samples.shape}, contradict each other")
    return samples


def _check_stream(dataset: "Dataset", header: Header) -> None:
    """The limits were checked on the DICOM header's size; a coded picture inside states its own."""
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        return
    from pydicom.encaps import get_frame

    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if stream.startswith(_KNOWN_STREAMS):
        # What is smaller than the header says does no harm, and is found once decoded.
        sniff(stream, Recipe(depth="scale"), Limits(max_pixels=header.width * header.height))


def _bytes(
    dataset: "Dataset", samples: npt.NDArray[Any], header: Header, recipe: Recipe
) -> npt.NDArray[np.uint8]:
    if recipe.depth == "voi":
        shown = _voi(dataset, samples)
        if shown is not None:
            return shown
        if header.deep:
            raise BadImage("depth", "no window or VOI LUT in the file; use depth scale or window")
    if recipe.depth == "window" and header.deep:
        assert recipe.window is not None
        return levels(_modality(dataset, samples), *recipe.window, clip=True)
    if header.samples != "unsigned":
        raise BadImage("depth", f"{header.samples} samples have no full range to scale; use window or voi")
    return levels(samples, 0, 2**header.bits - 1, clip=False)


def _modality(dataset: "Dataset", samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values in the file's own unit, for instance Hounsfield units."""
    from pydicom.pixels.processing import apply_modality_lut

    try:
        return apply_modality_lut(samples, dataset)
    except Exception as error:  # damaged files raise nearly anything
        raise BadImage("corrupt", f"pydicom: {_said(error)}") from error


def _voi(dataset: "Dataset", samples: npt.NDArray[Any]) -> npt.NDArray[np.uint8] | None:
    """What the file's first VOI LUT, else its first window, shows; None if it has neither."""
    try:
        if dataset.get("VOILUTSequence"):
            return _voi_table(dataset, _modality(dataset, samples))
        centre, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
        function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    except (AttributeError, TypeError, ValueError) as error:
        raise BadImage("corrupt", "its DICOM window or VOI LUT is invalid") from error
    if centre is None or width is None:
        return None
    return window(_modality(dataset, samples), centre, width, function)


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value if isinstance(value, int | float | str) else value[0])


def _voi_table(dataset: "Dataset", values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_voi

    whole = np.rint(values).astype(np.int64) if values.dtype.kind == "f" else values
    bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
    return levels(apply_voi(whole, dataset), 0, 2**bits - 1, clip=False)


def window(
    values: npt.NDArray[Any], centre: float, width: float, function: str = "LINEAR"
) -> npt.NDArray[np.uint8]:
    """A DICOM window to bytes.

    Args:
        values: [height, width], after the modality transform.
        centre, width: in their unit.
        function: LINEAR, LINEAR_EXACT or SIGMOID.

    Raises:
        BadImage: corrupt, a width or function that the standard does not know.

    Source: DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3.
    """
    least = 1.0 if function == "LINEAR" else 0.0
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or not (
        width >= least and width > 0 and np.isfinite([centre, width]).all()
    ):
        raise BadImage("corrupt", f"a DICOM window {function[:20]!r} of width {width:g}")
    if function == "SIGMOID":
        # Beyond 700 the exponential overflows, and the byte has long been 0 or 255.
        slope = ((values.astype(np.float64) - centre) * (-4 / width)).clip(-700, 700)
        return levels(1 / (1 + np.exp(slope)), 0, 1, clip=True)
    middle, half = (centre - 0.5, (width - 1) / 2) if function == "LINEAR" else (centre, width / 2)
    if half == 0:
        return np.where(values > middle, np.uint8(255), np.uint8(0))
    return levels(values, middle - half, middle + half, clip=True)


def _said(error: Exception) -> str:
    """The first line of a message, cut; addresses and long texts differ from run to run."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    return "".join(c if c.isprintable() else "?" for c in text)[:150]
