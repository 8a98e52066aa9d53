"""PBM, PGM and PPM (P1 to P6), read without Pillow, which would rescale deep samples."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.decode.bit_depth import scale_to_bytes
from engine.errors import BadImage
from engine.recipes import Recipe

#: White space or a comment to the end of its line.
_GAP = rb"(?:[\t\n\v\f\r ]|#[^\n\r]*[\n\r])"
_BITMAP = re.compile(rb"P[14]%b+(\d{1,10})%b+(\d{1,10})%b" % (_GAP, _GAP, _GAP))
_LEVELS = re.compile(rb"P[2356]%b+(\d{1,10})%b+(\d{1,10})%b+(\d{1,10})%b" % (_GAP, _GAP, _GAP, _GAP))
_UNFINISHED = re.compile(rb"P[1-6](?=[\s#])(?:%b+\d{1,10}){0,3}%b*(?:#[^\n\r]*)?" % (_GAP, _GAP))
_COMMENT = re.compile(rb"#[^\n\r]*")
_NUMBERS = re.compile(rb"[0-9\s]*")
_FURTHER = re.compile(rb"\s*P[1-6][\s#]")
_SPACE = bytes(range(9, 14)) + b" "


@dataclass(frozen=True)
class Layout:
    """The header of a file.

    Attributes:
        kind: 1 to 6, from the file's first bytes.
        width, height: in pixels.
        white: the largest possible sample, which is white (in bitmaps 1, which is black).
        start: offset of the samples.
    """

    kind: int
    width: int
    height: int
    white: int
    start: int

    @property
    def channels(self) -> int:
        """Samples per pixel."""
        return 3 if self.kind in (3, 6) else 1

    @property
    def size(self) -> int:
        """Size of binary samples in bytes."""
        if self.kind == 4:
            return -(-self.width // 8) * self.height
        return self.width * self.height * self.channels * (2 if self.white > 255 else 1)


def read_layout(data: bytes) -> Layout | None:
    """Read a header; None if the file has another format.

    Raises:
        BadImage: truncated, corrupt.
    """
    bitmap = data[1:2] in (b"1", b"4")
    match = (_BITMAP if bitmap else _LEVELS).match(data)
    if match is None:
        if _UNFINISHED.fullmatch(data):
            raise BadImage("truncated", "the file ends within its header")
        return None
    width, height, most = (int(number) for number in (*match.groups(), b"1")[:3])
    if not 0 < most < 65536:
        raise BadImage("corrupt", f"its header says that white is {most}, not 1 to 65535")
    return Layout(int(data[1:2]), width, height, most, match.end())


def check_samples(data: bytes, layout: Layout) -> None:
    """Refuse a file that ends early, or continues with another image.

    Raises:
        BadImage: truncated, multi_frame.
    """
    if layout.kind < 4:
        return  # samples in text are counted when they are read
    end = layout.start + layout.size
    if end > len(data):
        raise BadImage(
            "truncated", f"its samples stop after {len(data) - layout.start} of {layout.size} bytes"
        )
    if _FURTHER.match(data, end):
        raise BadImage("multi_frame", "a file of several PNM pictures")


def picture(data: bytes, recipe: Recipe) -> Image.Image:
    """Decode a file to 8-bit grey or RGB, with its largest possible sample as white.

    Raises:
        BadImage: truncated, corrupt, depth.
    """
    layout = read_layout(data)
    assert layout is not None
    samples = _samples(data, layout)
    if samples.max() > layout.white:
        raise BadImage("corrupt", f"a sample of {samples.max()}, where white is {layout.white}")
    if layout.white == 255:
        return Image.fromarray(samples.astype(np.uint8))
    if layout.white < 255:
        grey = scale_to_bytes(samples, 0, layout.white, clip=False)
        return Image.fromarray(255 - grey if layout.kind in (1, 4) else grey)
    if recipe.depth == "voi":
        raise BadImage("depth", "only DICOM files carry a window, this is PNM; use scale or window")
    low, high = recipe.window or (0.0, float(layout.white))
    return Image.fromarray(scale_to_bytes(samples, low, high, clip=recipe.depth == "window"))


def _samples(data: bytes, layout: Layout) -> npt.NDArray[np.generic]:
    """Read samples as stored, [height, width] or [height, width, 3]."""
    shape = (layout.height, layout.width) + ((3,) if layout.channels == 3 else ())
    if layout.kind < 4:
        return _text(data[layout.start :], layout).reshape(shape)
    body = np.frombuffer(data, np.uint8, layout.size, layout.start)
    if layout.kind == 4:
        return np.unpackbits(body.reshape(layout.height, -1), axis=1, count=layout.width)
    return (body if layout.white < 256 else body.view(">u2").astype(np.uint16)).reshape(shape)


def _text(body: bytes, layout: Layout) -> npt.NDArray[np.generic]:
    """Read samples written as decimal numbers; in a bitmap they need no space between them."""
    body = _COMMENT.sub(b"", body)
    count = layout.width * layout.height * layout.channels
    if layout.kind == 1:
        bits = np.frombuffer(body.translate(None, _SPACE), np.uint8)[:count] - ord("0")
        samples: npt.NDArray[np.generic] = bits
    else:
        # Anything after the samples is ignored; anything else among them is damage.
        readable = _NUMBERS.match(body)
        assert readable is not None
        samples = np.fromstring(readable[0].decode(), np.int64, sep=" ")[:count]
        if len(samples) < count and readable.end() < len(body):
            raise BadImage("corrupt", "something other than numbers among its samples")
    if len(samples) < count:
        raise BadImage("truncated", f"its samples stop after {len(samples)} of {count}")
    return samples
