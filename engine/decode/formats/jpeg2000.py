"""JPEG 2000: what a file's boxes and its code stream say, and the samples as the code stream stores them.

Pillow shows samples of other than 8 or 16 bits shifted up to the next of these, and signed ones raised by
half their range. For one channel, and for colour of up to 8 bits, nothing is lost thereby: the shift is
undone here, and what it left free is looked at. For deeper colour Pillow keeps 8 bits only; OpenJPEG's own
wrapper keeps all.

Sources: ISO/IEC 15444-1, A.5.1 (SIZ) and I.5 (boxes).
"""

import importlib.util
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.errors import BadImage

Samples = npt.NDArray[np.int32]
#: Gives Pillow's picture of a file, decoded and checked; `reference` knows how.
Load = Callable[[bytes], Image.Image]

_START = b"\xff\x4f\xff\x51"
_MOST_BITS = 16
#: Enumerated colour spaces (I.5.3.3) that Pillow makes RGB of, as it knows how: in 8 bits.
_CMYK, _GREY, _SYCC = 12, 17, 18
_SPACES = {16: "sRGB", _GREY: "grey", _SYCC: "sYCC", _CMYK: "CMYK"}
#: Boxes of a header before one gives up: real ones have a dozen.
_MOST_BOXES = 10_000
#: Colour channels by the number of channels, where nothing tells which is which.
_COLOURS = {1: 1, 2: 1, 3: 3, 4: 3}


@dataclass(frozen=True)
class Component:
    """What SIZ says of one component: bits a sample, whether signed, and pixels a sample covers each way."""

    bits: int
    signed: bool
    across: int
    down: int


@dataclass(frozen=True)
class Palette:
    """A palette (I.5.3.4): entries [n, columns], and the column of each channel (I.5.3.5).

    Attributes:
        bits: the depths of its columns, as the box says: 7 for 8 bits unsigned.
        columns: of each channel; empty if the mapping is of another kind.
    """

    entries: npt.NDArray[np.uint8]
    bits: tuple[int, ...]
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Picture:
    """Facts of one JPEG 2000 file.

    Attributes:
        start, end: of the code stream in the file.
        width, height: pixels.
        components: of the code stream.
        space: number of the enumerated colour space; None without one.
        palette: what component values stand for, if not for themselves.
        channels: (channel, type, association) of each entry of a channel definition; empty without one.
    """

    start: int
    end: int
    width: int
    height: int
    components: tuple[Component, ...]
    space: int | None = None
    palette: Palette | None = None
    channels: tuple[tuple[int, int, int], ...] = ()

    @property
    def bits(self) -> int:
        """Of the colours; a palette's are bytes."""
        return 8 if self.palette else max(self.components[i].bits for i in self._shown)

    @property
    def _shown(self) -> tuple[int, ...]:
        """The components of the colours; all of them where that is unclear."""
        return (() if self.palette else self.colours) or tuple(range(len(self.components)))

    @property
    def signed(self) -> bool:
        return not self.palette and any(self.components[i].signed for i in self._shown)

    @property
    def colours(self) -> tuple[int, ...]:
        """The channels that are colours, in order; without opacity and what is unspecified."""
        count = len(self.palette.columns) if self.palette else len(self.components)
        if not self.channels:
            return tuple(range(_COLOURS.get(count, 0)))
        known = {association: channel for channel, kind, association in self.channels if kind == 0}
        if sorted(known) != list(range(1, len(known) + 1)) or max(known.values(), default=count) >= count:
            return ()
        return tuple(known[i] for i in sorted(known))

    @property
    def needs_openjpeg(self) -> bool:
        """Whether Pillow would drop bits of it."""
        return len(self.components) > 1 and self._most_bits > 8 and not self.unsupported

    @property
    def by_pillow(self) -> bool:
        """Whether Pillow's own picture of the file is the samples: bytes, in channels that it knows."""
        bytes_only = all(c.bits == 8 and not c.signed for c in self.components)
        return bytes_only and self.palette is None and self.colours == tuple(range(len(self.colours)))

    @property
    def _most_bits(self) -> int:
        return max(component.bits for component in self.components)

    @property
    def unsupported(self) -> str:
        """Why it cannot be decoded, by name; empty if it can."""
        return next((why for why in self._obstacles() if why), "")

    def _obstacles(self) -> Iterator[str]:
        count, colours = len(self.components), len(self.colours)
        if count not in _COLOURS:
            yield f"JPEG 2000 of {count} components"
        if self._most_bits > _MOST_BITS:
            yield f"JPEG 2000 of {self._most_bits} bits a sample; the most is {_MOST_BITS}"
        if self.space is not None and self.space not in _SPACES:
            yield f"JPEG 2000 of colour space {self.space}"
        if self.palette:
            yield _palette_obstacle(self)
        if colours not in (1, 3) and not (colours == 4 and self.space == _CMYK):
            yield f"JPEG 2000 of {colours} colours by its channel definition"
        if not self.palette and self._is_uneven:
            yield "JPEG 2000 of components of unequal depth"
        if not self.by_pillow:
            yield from self._only_by_pillow()

    @property
    def _is_uneven(self) -> bool:
        """Whether components differ in depth, the alpha of up to 8 bits apart, which nobody sees."""
        kinds = [(c.bits, c.signed) for c in self.components]
        return len({kinds[i] for i in self._shown}) > 1 or (self._most_bits > 8 and len(set(kinds)) > 1)

    def _only_by_pillow(self) -> Iterator[str]:
        """What only Pillow knows to convert, and only in bytes."""
        if any((c.across, c.down) != (1, 1) for c in self.components):
            yield "JPEG 2000 of components that are subsampled, in other than 8 bits of colour"
        if self.space in (_CMYK, _SYCC):
            yield f"JPEG 2000 in {_SPACES[self.space]} of {self.bits} bits"
        if self.space == _GREY and len(self.colours) > 1:
            yield "JPEG 2000 that calls several colours grey"


def _palette_obstacle(picture: Picture) -> str:
    assert picture.palette is not None
    if len(picture.components) != 1 or picture.components[0].signed:
        return "JPEG 2000 with a palette for other than one unsigned component"
    if set(picture.palette.bits) != {7}:
        return "JPEG 2000 with a palette of other than 8 bits"
    return "" if picture.palette.columns else "JPEG 2000 with a palette that is mapped in part"


# ---- structure


def read(data: bytes) -> Picture:
    """Describe a file, JP2 or bare code stream; nothing is decoded.

    Raises:
        BadImage: truncated, corrupt.
        struct.error, IndexError: the file ends within a header.
    """
    if data.startswith(_START):
        return _code_stream(data, 0, len(data), {})
    header: dict[bytes, tuple[int, int]] = {}
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"jp2h":
            for inner, at, stop in _boxes(data, start, end):
                if inner != b"colr" or _enumerated(data, at) is not None:  # profiles tell nothing here
                    header.setdefault(inner, (at, stop))
        elif kind == b"jp2c":
            return _code_stream(data, start, end, header)
    raise BadImage("truncated", "JPEG 2000 without a code stream")


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box; the last may reach beyond `end`, if that is cut."""
    for _ in range(_MOST_BOXES):
        if at + 8 > end:
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1:
            length, start = struct.unpack_from(">Q", data, start)[0], start + 8
        elif length == 0:
            length = end - at
        if at + length < start:
            raise BadImage("corrupt", "its JPEG 2000 boxes are damaged")
        yield kind, start, min(at + length, end)
        at += length


def _enumerated(data: bytes, at: int) -> int | None:
    return struct.unpack_from(">I", data, at + 3)[0] if data[at] == 1 else None


def _code_stream(data: bytes, at: int, end: int, header: dict[bytes, tuple[int, int]]) -> Picture:
    if data[at : at + 4] != _START:
        raise BadImage("corrupt" if at + 4 <= len(data) else "truncated", "JPEG 2000 without a code stream")
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    count = struct.unpack_from(">H", data, at + 40)[0]
    fields = [struct.unpack_from("BBB", data, at + 42 + 3 * i) for i in range(count)]
    if not fields or any(0 in steps for _, *steps in fields):
        raise BadImage("corrupt", "its JPEG 2000 header is invalid")
    components = tuple(Component((d & 0x7F) + 1, bool(d & 0x80), x, y) for d, x, y in fields)
    return Picture(
        at,
        end,
        right - left,
        bottom - top,
        components,
        _enumerated(data, header[b"colr"][0]) if b"colr" in header else None,
        _palette(data, header),
        _channels(data, *header[b"cdef"]) if b"cdef" in header else (),
    )


def _palette(data: bytes, header: dict[bytes, tuple[int, int]]) -> Palette | None:
    if b"pclr" not in header:
        return None
    at, end = header[b"pclr"]
    entries, columns = struct.unpack_from(">HB", data, at)
    bits = tuple(data[at + 3 : at + 3 + columns])
    at += 3 + columns
    if set(bits) == {7} and at + entries * columns > end:
        raise BadImage("corrupt", "its JPEG 2000 palette is cut short")
    table = np.zeros((0, columns), np.uint8)
    if set(bits) == {7}:
        table = np.frombuffer(data, np.uint8, entries * columns, at).reshape(entries, columns)
    at, end = header.get(b"cmap", (0, 0))
    mapped = [struct.unpack_from(">HBB", data, i) for i in range(at, end, 4)]
    usual = mapped and all(c == 0 and kind == 1 and column < columns for c, kind, column in mapped)
    return Palette(table, bits, tuple(column for _, _, column in mapped) if usual and len(table) else ())


def _channels(data: bytes, at: int, end: int) -> tuple[tuple[int, int, int], ...]:
    count = min(struct.unpack_from(">H", data, at)[0], (end - at - 2) // 6)
    return tuple(struct.unpack_from(">HHH", data, at + 2 + 6 * i) for i in range(count))


def refuse_without_package(picture: Picture) -> None:
    """Raise BadImage needs_package, pending, if what reads a picture in full is not installed."""
    if picture.needs_openjpeg and importlib.util.find_spec("openjpeg") is None:
        reason = f"JPEG 2000 of {picture.bits} bits in colour"
        raise BadImage("needs_package", f"{reason}: pip install 'pylibjpeg-openjpeg'", pending=True)


# ---- samples


def samples(data: bytes, picture: Picture, load: Load) -> Samples:
    """The colours as stored in the code stream, or as its palette says.

    Args:
        data: the file.
        picture: what `read` says of it.
        load: Pillow's picture of a code stream.

    Returns:
        int32 [height, width] or [height, width, 3].

    Raises:
        BadImage: as `load`; undecodable, needs_package, corrupt.
    """
    if picture.unsupported:
        raise BadImage("undecodable", picture.unsupported)
    stream = data[picture.start : picture.end]
    refuse_without_package(picture)
    stored = _by_openjpeg(stream, picture) if picture.needs_openjpeg else _by_pillow(load(stream), picture)
    if picture.palette is not None:
        index = np.minimum(stored[:, :, 0], len(picture.palette.entries) - 1)
        stored = picture.palette.entries[:, picture.palette.columns][index].astype(np.int32)
    colours = stored[:, :, list(picture.colours)]
    return colours[:, :, 0] if colours.shape[2] == 1 else colours


def _by_pillow(image: Image.Image, picture: Picture) -> Samples:
    """Undo what Pillow does to the samples: [height, width, components]."""
    shown = np.asarray(image).astype(np.int32)
    shown = shown[:, :, None] if shown.ndim == 2 else shown
    room = 16 if image.mode.startswith("I;16") else 8
    if shown.shape[2] != len(picture.components):
        raise BadImage("undecodable", f"JPEG 2000 that Pillow shows in mode {image.mode}")
    for i, component in enumerate(picture.components):
        free = room - component.bits
        channel = shown[:, :, i]
        if free < 0 or (channel & ((1 << free) - 1)).any():
            raise BadImage("undecodable", f"JPEG 2000 of {component.bits} bits that Pillow shows otherwise")
        shown[:, :, i] = (channel >> free) - (1 << component.bits - 1 if component.signed else 0)
    return shown


def _by_openjpeg(stream: bytes, picture: Picture) -> Samples:
    from openjpeg.utils import decode

    try:
        found = decode(stream)
    except Exception as error:  # damaged files raise nearly anything
        raise BadImage("corrupt", f"OpenJPEG: {str(error)[:150] or type(error).__name__}") from error
    shape = (picture.height, picture.width, len(picture.components))
    if found.shape != shape or found.dtype.kind != ("i" if picture.signed else "u"):
        raise BadImage("corrupt", f"its header and its data, of shape {found.shape}, contradict each other")
    return found.astype(np.int32)
