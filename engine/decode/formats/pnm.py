"""PBM, PGM and PPM (P1 to P6), read here: Pillow stretches deep samples, a window needs them as stored."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.decode.bit_depth import levels
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
    """What a header says.

    Attributes:
        kind: 1 to 6, as in the file's first bytes.
        width, height: pixels.
        most: the largest sample, which is white (for bitmaps 1, which is black).
        start: offset of the samples.
    """

    kind: int
    width: int
    height: int
    most: int
    start: int

    @property
    def channels(self) -> int:
        return 3 if self.kind in (3, 6) else 1

    @property
    def size(self) -> int:
        """Bytes of the samples, if they are not text."""
        if self.kind == 4:
            return -(-self.width // 8) * self.height
        return self.width * self.height * self.channels * (2 if self.most > 255 else 1)


def read_layout(data: bytes) -> Layout | None:
    """Read a header; None if the file is something else.

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
    """Refuse a file that ends early, or goes on with a further picture.

    Raises:
        BadImage: truncated, multi_frame.
    """
    if layout.kind < 4:
        return  # text has to be read to be counted
    end = layout.start + layout.size
    if end > len(data):
        raise BadImage(
            "truncated", f"its samples stop after {len(data) - layout.start} of {layout.size} bytes"
        )
    if _FURTHER.match(data, end):
        raise BadImage("multi_frame", "a file of several PNM pictures")


def picture(data: bytes, recipe: Recipe) -> Image.Image:
    """Give the picture as 8-bit grey or RGB; a file's largest sample is white.

    Raises:
        BadImage: truncated, corrupt, depth.
    """
    layout = read_layout(data)
    assert layout is not None
    samples = _samples(data, layout)
    if samples.max() > layout.most:
        raise BadImage("corrupt", f"a sample of {samples.max()}, where white is {layout.most}")
    if layout.most == 255:
        return Image.fromarray(samples.astype(np.uint8))
    if layout.most < 255:
        grey = levels(samples, 0, layout.most, clip=False)
        return Image.fromarray(255 - grey if layout.kind in (1, 4) else grey)
    if recipe.depth == "voi":
        raise BadImage("depth", "only DICOM files carry a window, this is PNM; use scale or window")
    low, high = recipe.window or (0.0, float(layout.most))
    return Image.fromarray(levels(samples, low, high, clip=recipe.depth == "window"))


def _samples(data: bytes, layout: Layout) -> npt.NDArray[np.generic]:
    """Samples as stored, [height, width] or [height, width, 3]."""
    shape = (layout.height, layout.width) + ((3,) if layout.channels == 3 else ())
    if layout.kind < 4:
        return _text(data[layout.start :], layout).reshape(shape)
    body = np.frombuffer(data, np.uint8, layout.size, layout.start)
    if layout.kind == 4:
        return np.unpackbits(body.reshape(layout.height, -1), axis=1, count=layout.width)
    return (body if layout.most < 256 else body.view(">u2").astype(np.uint16)).reshape(shape)


def _text(body: bytes, layout: Layout) -> npt.NDArray[np.generic]:
    """Samples written as decimal numbers; a bitmap's need no space between them."""
    body = _COMMENT.sub(b"", body)
    wanted = layout.width * layout.height * layout.channels
    if layout.kind == 1:
        bits = np.frombuffer(body.translate(None, _SPACE), np.uint8)[:wanted] - ord("0")
        samples: npt.NDArray[np.generic] = bits
    else:
        # What follows the samples is nobody's; what stands among them is damage.
        readable = _NUMBERS.match(body)
        assert readable is not None
        samples = np.fromstring(readable[0].decode(), np.int64, sep=" ")[:wanted]
        if len(samples) < wanted and readable.end() < len(body):
            raise BadImage("corrupt", "something other than numbers among its samples")
    if len(samples) < wanted:
        raise BadImage("truncated", f"its samples stop after {len(samples)} of {wanted}")
    return samples
