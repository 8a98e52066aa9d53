"""DICOM's coded pixels: which package decodes which transfer syntax, and the samples that it gives."""

import contextlib
import re
import struct
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from engine.decode.formats import structure
from engine.decode.formats.header import Header, checked
from engine.decode.source import Limits
from engine.errors import BadImage

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.pixels.decoders.base import Decoder

#: Coded pictures whose own size can be read here before a codec trusts it.
_JPEG, _JPEG_2000 = b"\xff\xd8\xff", (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
#: Frame headers: of JPEG-LS, and of the other kinds.
_JPEG_LS_FRAME = 0xF7
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Segments before the frame header; real files have a handful.
_MAX_SEGMENTS = 1000
_LOSSY_JPEG = ("JPEGBaseline8Bit", "JPEGExtended12Bit")
#: What to install for the syntaxes that Pillow does not decode, by pydicom's keyword of them.
_REMEDIES = {
    "JPEGExtended12Bit": "pylibjpeg pylibjpeg-libjpeg",  # python-gdcm decodes its 8 bits only
    "JPEGLossless": "python-gdcm",
    "JPEGLosslessSV1": "python-gdcm",
}
#: Characters of a reason.
_LONGEST = 190
_BY_DEFAULT = "'embank[dicom]'"


def check_codec(dataset: "Dataset") -> None:
    """Make sure that a decoder for the transfer syntax is installed.

    Raises:
        BadImage: undecodable, needs_package.
    """
    decoder = _decoder(dataset)
    if decoder.is_encapsulated and not _plugins(decoder, dataset):
        name, packages = decoder.UID.name, _REMEDIES.get(decoder.UID.keyword, _BY_DEFAULT)
        raise needs_package(f"its pixels are coded as {name} ({decoder.UID})", packages)


def needs_package(reason: str, packages: str) -> BadImage:
    """Say what to install; the row is tried again once it is there."""
    return BadImage("needs_package", f"{reason}: pip install {packages}", pending=True)


def _decoder(dataset: "Dataset") -> "Decoder":
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        return get_decoder(syntax)
    except (NotImplementedError, AttributeError, TypeError) as error:
        said = f"of transfer syntax {str(syntax)[:64]!r}" if syntax else "without a transfer syntax"
        raise BadImage("undecodable", f"DICOM {said}") from error


def _plugins(decoder: "Decoder", dataset: "Dataset") -> list[str]:
    """Plug-ins of pydicom that are installed and can decode what the header describes."""
    keyword, stored = decoder.UID.keyword, int(dataset.BitsStored)
    unable = set()
    if keyword == "JPEGExtended12Bit" and stored != 8:
        unable = {"gdcm", "pillow"}
    elif keyword.startswith("JPEG2000") and stored > (8 if dataset.get("SamplesPerPixel") != 1 else 16):
        unable = {"pillow"}  # it would make 8 bits of them
    return [name for name in decoder.available_plugins if name not in unable]


def samples(dataset: "Dataset", header: Header) -> npt.NDArray[Any]:
    """Stored samples [height, width], or [height, width, 3] of RGB, without the bits that are not stored.

    Raises:
        BadImage: truncated, corrupt, undecodable.
    """
    decoder = _decoder(dataset)
    try:
        if decoder.is_encapsulated:
            _check_stream(dataset, header)
        found, facts = _decoded(decoder, dataset)
    except BadImage:
        raise
    except Exception as error:  # damaged files raise nearly anything
        raise _translate(error, decoder) from error
    if found.shape != (header.height, header.width, 3)[: 3 if header.colour == "rgb" else 2]:
        raise BadImage("corrupt", f"its header and its data, of shape {found.shape}, contradict each other")
    shown = facts["photometric_interpretation"]
    if header.colour == "rgb" and shown != "RGB":
        raise BadImage("undecodable", f"{shown} coded as {decoder.UID.name}")
    return found


def without_excess(dataset: "Dataset", samples: npt.NDArray[Any], most: int) -> npt.NDArray[Any]:
    """Samples of which near-lossless JPEG-LS put none above `most` by the error that it states."""
    if _decoder(dataset).UID.keyword != "JPEGLSNearLossless":
        return samples
    excess = int(samples.max()) - most
    return samples.clip(None, most) if 0 < excess <= _near(_frame(dataset)) else samples


def _near(stream: bytes) -> int:
    """The largest error of a JPEG-LS scan, from the header of the first (T.87, C.2.3)."""
    found = re.search(rb"\xff\xda..(.)", stream, re.DOTALL)
    at = found.end() + 2 * found.group(1)[0] if found else len(stream)
    return stream[at] if at < len(stream) else 0


def _decoded(decoder: "Decoder", dataset: "Dataset") -> tuple[npt.NDArray[Any], dict[str, Any]]:
    below = unused_bits(dataset)
    # pydicom takes the lowest bits for the stored ones, wherever they are.
    options: dict[str, Any] = {"correct_unused_bits": False} if below else {}
    # Decoders of lossy JPEG differ by a few levels. Pillow is always there, so that pixels do not depend on
    # what else is installed; GDCM, which pydicom prefers, gives the same.
    if decoder.UID.keyword in _LOSSY_JPEG and "pillow" in _plugins(decoder, dataset):
        with contextlib.suppress(RuntimeError):  # the others may do better
            return decoder.as_array(dataset, decoding_plugin="pillow", **options)
    found, facts = decoder.as_array(dataset, **options)
    if below:
        above = int(dataset.BitsAllocated) - int(dataset.HighBit) - 1
        found = (found << above) >> (above + below)
    return found, facts


def keeps_cells(dataset: "Dataset") -> bool:
    """Whether the transfer syntax keeps cells of memory as they are, not samples of a stated precision."""
    decoder = _decoder(dataset)
    return not decoder.is_encapsulated or decoder.UID.keyword == "RLELossless"


def unused_bits(dataset: "Dataset") -> int:
    """How many bits of a sample lie below the stored ones."""
    high, stored = dataset.get("HighBit"), dataset.get("BitsStored")
    return 0 if high is None or stored is None else int(high) + 1 - int(stored)


def _translate(error: Exception, decoder: "Decoder") -> BadImage:
    code = "corrupt"
    if isinstance(error, EOFError) or "less than expected" in str(error):
        code = "truncated"
    elif isinstance(error, NotImplementedError):
        code = "undecodable"
    return BadImage(code, f"{decoder.UID.name}: {said(error)}"[:_LONGEST])


def said(error: Exception) -> str:
    """What pydicom says, in one line; addresses and long texts differ from run to run."""
    text = " ".join((str(error) or type(error).__name__).split())
    text = text.partition("raised by all available plugins: ")[2] or text
    text = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "the file", text)
    return ("pydicom: " + "".join(c if c.isprintable() else "?" for c in text))[:_LONGEST]


def _check_stream(dataset: "Dataset", header: Header) -> None:
    """The limits were checked on the DICOM header's size; a coded picture inside states its own."""
    stream = _frame(dataset)
    # What is smaller than the header says does no harm, and is found once decoded.
    most = header.width * header.height
    try:
        if stream.startswith(_JPEG) and (size := _jpeg_ls_size(stream)):
            checked(Header("JPEG", *size), Limits(max_pixels=most))
        elif stream.startswith((_JPEG, *_JPEG_2000)):
            structure.read(stream, Limits(max_pixels=most))
    except BadImage as bad:
        if not bad.pending:
            raise
        detail = f"its header says {header.width} x {header.height} pixels, its coded picture {bad.detail}"
        raise BadImage("corrupt", detail.partition(", the limit")[0]) from bad


def _frame(dataset: "Dataset") -> bytes:
    from pydicom.encaps import get_frame

    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def _jpeg_ls_size(stream: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG-LS stream states; None if it is a JPEG of another kind (T.87, C.2)."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        if len(stream) < position + 4:
            raise BadImage("truncated", "its JPEG data end within a header segment")
        start, marker, length = struct.unpack_from(">BBH", stream, position)
        if start != 0xFF or marker in _JPEG_FRAMES or length < 2:
            return None  # whoever reads JPEG says what is wrong with it, if anything
        if marker == _JPEG_LS_FRAME:
            return _jpeg_ls_frame(stream, position + 4)
        position += 1 if marker == 0xFF else 2 + length
    return None


def _jpeg_ls_frame(stream: bytes, position: int) -> tuple[int, int]:
    height, width = struct.unpack_from(">HH", stream.ljust(position + 5, b"\0"), position + 1)
    if not (height and width):
        raise BadImage("undecodable", "JPEG-LS that states its size outside its frame header")
    # Within coded data 0xFF is followed by a bit of 0.
    if stream.find(b"\xff\xd9", position) < 0:
        raise BadImage("truncated", "its JPEG-LS data stop without an end marker")
    return width, height
