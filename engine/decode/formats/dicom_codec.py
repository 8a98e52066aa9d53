"""Compressed DICOM pixels: the package that decodes each transfer syntax, and the samples it returns."""

import contextlib
import re
import struct
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from engine.decode.formats import structure
from engine.decode.formats.header import Header, check_size
from engine.decode.source import Limits
from engine.errors import BadImage

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.pixels.decoders.base import Decoder

#: First bytes of compressed images whose size is checked here before a codec trusts it.
_JPEG, _JPEG_2000 = b"\xff\xd8\xff", (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
#: Markers of frame headers, of JPEG-LS and of other kinds of JPEG.
_JPEG_LS_FRAME = 0xF7
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Segments before the frame header, at most; real files have a handful.
_MAX_SEGMENTS = 1000
_LOSSY_JPEG = ("JPEGBaseline8Bit", "JPEGExtended12Bit")
#: Packages to install for the syntaxes that Pillow does not decode, by pydicom's keyword.
_REMEDIES = {
    "JPEGExtended12Bit": "pylibjpeg pylibjpeg-libjpeg",  # python-gdcm decodes only 8 bits of it
    "JPEGLossless": "python-gdcm",
    "JPEGLosslessSV1": "python-gdcm",
}
#: Length of a reason, at most.
_MAX_REASON = 190
_BY_DEFAULT = "'embank[dicom]'"


def check_codec(dataset: "Dataset") -> None:
    """Check that a decoder for the transfer syntax is installed.

    Raises:
        BadImage: undecodable, needs_package.
    """
    decoder = _decoder(dataset)
    if decoder.is_encapsulated and not _plugins(decoder, dataset):
        name, packages = decoder.UID.name, _REMEDIES.get(decoder.UID.keyword, _BY_DEFAULT)
        raise needs_package(f"its pixels are coded as {name} ({decoder.UID})", packages)


def needs_package(reason: str, packages: str) -> BadImage:
    """Return the failure that names the package to install; the row is tried again afterwards."""
    return BadImage("needs_package", f"{reason}: pip install {packages}", pending=True)


def _decoder(dataset: "Dataset") -> "Decoder":
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        return get_decoder(syntax)
    except (NotImplementedError, AttributeError, TypeError) as error:
        description = f"of transfer syntax {str(syntax)[:64]!r}" if syntax else "without a transfer syntax"
        raise BadImage("undecodable", f"DICOM {description}") from error


def _plugins(decoder: "Decoder", dataset: "Dataset") -> list[str]:
    """Return the installed plug-ins of pydicom that can decode what the header describes."""
    keyword, stored = decoder.UID.keyword, int(dataset.BitsStored)
    unable = set()
    if keyword == "JPEGExtended12Bit" and stored != 8:
        unable = {"gdcm", "pillow"}
    elif keyword.startswith("JPEG2000") and stored > (8 if dataset.get("SamplesPerPixel") != 1 else 16):
        unable = {"pillow"}  # it would reduce them to 8 bits
    return [name for name in decoder.available_plugins if name not in unable]


def samples(dataset: "Dataset", header: Header) -> npt.NDArray[Any]:
    """Decode the stored samples [height, width] or, in RGB, [height, width, 3], without unused bits.

    Raises:
        BadImage: truncated, corrupt, undecodable.
    """
    decoder = _decoder(dataset)
    try:
        if decoder.is_encapsulated:
            _check_stream(dataset, header)
        decoded, properties = _decoded(decoder, dataset)
    except BadImage:
        raise
    except Exception as error:  # damaged files raise errors of any class
        raise _translate(error, decoder) from error
    if decoded.shape != (header.height, header.width, 3)[: 3 if header.colour == "rgb" else 2]:
        raise BadImage("corrupt", f"its header and its data, of shape {decoded.shape}, contradict each other")
    photometric = properties["photometric_interpretation"]
    if header.colour == "rgb" and photometric != "RGB":
        raise BadImage("undecodable", f"{photometric} coded as {decoder.UID.name}")
    return decoded


def clip_excess(dataset: "Dataset", samples: npt.NDArray[Any], largest: int) -> npt.NDArray[Any]:
    """Clip samples that near-lossless JPEG-LS has raised above `largest`, within its stated error."""
    if _decoder(dataset).UID.keyword != "JPEGLSNearLossless":
        return samples
    excess = int(samples.max()) - largest
    return samples.clip(None, largest) if 0 < excess <= _near(_frame(dataset)) else samples


def _near(stream: bytes) -> int:
    """Return the maximum error of JPEG-LS, from the header of its first scan (T.87, C.2.3)."""
    header = re.search(rb"\xff\xda..(.)", stream, re.DOTALL)
    position = header.end() + 2 * header.group(1)[0] if header else len(stream)
    return stream[position] if position < len(stream) else 0


def _decoded(decoder: "Decoder", dataset: "Dataset") -> tuple[npt.NDArray[Any], dict[str, Any]]:
    unused = unused_bits(dataset)
    # pydicom assumes that the lowest bits are the stored ones.
    options: dict[str, Any] = {"correct_unused_bits": False} if unused else {}
    # Decoders of lossy JPEG differ by a few levels. Pillow is always installed, so that pixels do not depend
    # on other packages; GDCM, which pydicom prefers, gives the same pixels.
    if decoder.UID.keyword in _LOSSY_JPEG and "pillow" in _plugins(decoder, dataset):
        with contextlib.suppress(RuntimeError):  # other plug-ins may succeed
            return decoder.as_array(dataset, decoding_plugin="pillow", **options)
    decoded, properties = decoder.as_array(dataset, **options)
    if unused:
        shift_up = int(dataset.BitsAllocated) - int(dataset.HighBit) - 1
        decoded = (decoded << shift_up) >> (shift_up + unused)
    return decoded, properties


def keeps_cells(dataset: "Dataset") -> bool:
    """Return True if the transfer syntax stores complete memory cells, not samples of a stated precision."""
    decoder = _decoder(dataset)
    return not decoder.is_encapsulated or decoder.UID.keyword == "RLELossless"


def unused_bits(dataset: "Dataset") -> int:
    """Return the number of bits of a sample below the stored ones."""
    high, stored = dataset.get("HighBit"), dataset.get("BitsStored")
    return 0 if high is None or stored is None else int(high) + 1 - int(stored)


def _translate(error: Exception, decoder: "Decoder") -> BadImage:
    code = "corrupt"
    if isinstance(error, EOFError) or "less than expected" in str(error):
        code = "truncated"
    elif isinstance(error, NotImplementedError):
        code = "undecodable"
    return BadImage(code, f"{decoder.UID.name}: {one_line(error)}"[:_MAX_REASON])


def one_line(error: Exception) -> str:
    """Return pydicom's message in one line, without addresses, which differ between runs, and shortened."""
    text = " ".join((str(error) or type(error).__name__).split())
    text = text.partition("raised by all available plugins: ")[2] or text
    text = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "the file", text)
    return ("pydicom: " + "".join(c if c.isprintable() else "?" for c in text))[:_MAX_REASON]


def _check_stream(dataset: "Dataset", header: Header) -> None:
    """Refuse a compressed image of a larger size than the header's, on which the limits were checked."""
    stream = _frame(dataset)
    # A smaller image is harmless, and is detected after decoding.
    max_pixels = header.width * header.height
    try:
        if stream.startswith(_JPEG) and (size := _jpeg_ls_size(stream)):
            check_size(Header("JPEG", *size), Limits(max_pixels=max_pixels))
        elif stream.startswith((_JPEG, *_JPEG_2000)):
            structure.read(stream, Limits(max_pixels=max_pixels))
    except BadImage as bad:
        if not bad.pending:
            raise
        detail = f"its header says {header.width} x {header.height} pixels, its coded picture {bad.detail}"
        raise BadImage("corrupt", detail.partition(", the limit")[0]) from bad


def _frame(dataset: "Dataset") -> bytes:
    from pydicom.encaps import get_frame

    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def _jpeg_ls_size(stream: bytes) -> tuple[int, int] | None:
    """Return width and height stated by a JPEG-LS stream; None for other kinds of JPEG (T.87, C.2)."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        if len(stream) < position + 4:
            raise BadImage("truncated", "its JPEG data end within a header segment")
        start, marker, length = struct.unpack_from(">BBH", stream, position)
        if start != 0xFF or marker in _JPEG_FRAMES or length < 2:
            return None  # errors of other JPEGs are reported by their reader
        if marker == _JPEG_LS_FRAME:
            return _jpeg_ls_frame(stream, position + 4)
        position += 1 if marker == 0xFF else 2 + length
    return None


def _jpeg_ls_frame(stream: bytes, position: int) -> tuple[int, int]:
    height, width = struct.unpack_from(">HH", stream.ljust(position + 5, b"\0"), position + 1)
    if not (height and width):
        raise BadImage("undecodable", "JPEG-LS that states its size outside its frame header")
    # Within compressed data 0xFF is followed by a zero bit.
    if stream.find(b"\xff\xd9", position) < 0:
        raise BadImage("truncated", "its JPEG-LS data stop without an end marker")
    return width, height
