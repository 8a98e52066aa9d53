"""Parquet files written with numpy alone: importing pyarrow takes longer than many an evaluation.

The format's plainest part (parquet.apache.org/docs/file-format): one row group, no compression, no nulls,
PLAIN values, and a dictionary for texts that repeat. Metadata are in Thrift's compact protocol.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

_MAGIC = b"PAR1"
#: Rows of a page, whose size in bytes has 31 bits.
_PAGE = 1 << 16
_BOOLEAN, _INT32, _INT64, _FLOAT, _DOUBLE, _BYTE_ARRAY = 0, 1, 2, 4, 5, 6
_PLAIN, _RLE, _DICTIONARY = 0, 3, 8
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_REQUIRED, _UTF8 = 0, 0
#: Thrift's types of values.
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12
#: numpy type as it is stored -> Parquet's type.
_TYPES = {"<i4": _INT32, "<i8": _INT64, "<f4": _FLOAT, "<f8": _DOUBLE}
#: Kind and bytes of a numpy number -> numpy type as it is stored.
_STORED = {
    **dict.fromkeys(("i1", "i2", "i4", "u1", "u2"), "<i4"),
    **dict.fromkeys(("i8", "u4"), "<i8"),
    **dict.fromkeys(("f2", "f4"), "<f4"),
    "f8": "<f8",
}


@dataclass(frozen=True, eq=False, repr=False)
class Coded:
    """A column of texts of which few differ.

    Attributes:
        codes: whole numbers [n], each an index into `names`.
        names: what the codes stand for.
    """

    codes: npt.NDArray[np.integer]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True, eq=False, repr=False)
class Texts:
    """Texts one after another as a Parquet page has them: four bytes of length, then UTF-8.

    Attributes:
        data: uint8, all of them.
        starts: int64 [n + 1], where each begins; the last is where the data end.
    """

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        """Encode texts; characters that are not Unicode are written as backslash escapes."""
        encoded = [text.encode("utf-8", "backslashreplace") for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths + 4)])
        data = np.empty(int(starts[-1]), np.uint8)
        is_text = np.ones(len(data), np.bool_)
        prefixes = starts[:-1, None] + np.arange(4)
        is_text[prefixes] = False
        data[prefixes] = lengths.astype("<u4").view(np.uint8).reshape(-1, 4)
        data[is_text] = np.frombuffer(b"".join(encoded), np.uint8)
        return cls(data, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> str:
        place = range(len(self))[index]  # raises IndexError; counts from the end below 0
        return self.data[self.starts[place] + 4 : self.starts[place + 1]].tobytes().decode("utf-8")

    def find(self, text: str) -> int | None:
        """Return the position of a text's first occurrence, or None."""
        wanted = text.encode("utf-8", "backslashreplace")
        wanted, data = len(wanted).to_bytes(4, "little") + wanted, self.data.tobytes()
        start = data.find(wanted)
        while start >= 0:
            place = int(np.searchsorted(self.starts, start))
            if (
                place < len(self)
                and self.starts[place] == start
                and self.starts[place + 1] == start + len(wanted)
            ):
                return place
            start = data.find(wanted, start + 1)
        return None

    def take(self, rows: npt.NDArray[np.integer]) -> "Texts":
        """Copy the texts of some rows, in the order given."""
        lengths = np.diff(self.starts)
        taken = lengths[rows]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(taken)])
        if len(lengths) and (lengths == lengths[0]).all():
            return Texts(self.data.reshape(len(self), -1)[rows].reshape(-1), starts)
        data, first = self.data.tobytes(), self.starts[:-1][rows]
        pieces = [data[a:b] for a, b in zip(first.tolist(), (first + taken).tolist(), strict=True)]
        return Texts(np.frombuffer(b"".join(pieces), np.uint8), starts)

    def part(self, start: int, stop: int) -> bytes:
        """Return the bytes of texts `start` to `stop`."""
        stop = min(stop, len(self))
        return self.data[self.starts[start] : self.starts[stop]].tobytes()


#: Numbers or bools [n]; texts, those that repeat as `Coded`.
Column: TypeAlias = "npt.NDArray[np.generic] | Coded | Texts | Sequence[str]"


def encode(columns: Mapping[str, Column]) -> bytes:
    """Return the bytes of a Parquet file.

    Args:
        columns: name -> column, all of one length. Whole numbers become int32 or int64, floating-point ones
            float or double; NaN stays NaN.

    Raises:
        ValueError: columns of different lengths, or of numbers that Parquet has no type for.
    """
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"columns of {sorted(lengths)} rows")
    rows = lengths.pop() if lengths else 0
    pieces, offset = [_MAGIC], len(_MAGIC)
    schema: list[bytes] = [_struct((4, _BINARY, b"schema"), (5, _I32, len(columns)))]
    chunks: list[bytes] = []
    for name, column in columns.items():
        kind, pages = _pages(column)
        text = ((6, _I32, _UTF8),) if kind == _BYTE_ARRAY else ()
        schema.append(_struct((1, _I32, kind), (3, _I32, _REQUIRED), (4, _BINARY, name.encode()), *text))
        chunks.append(_chunk(name, kind, pages, rows, offset))
        pieces += [part for page in pages for part in page]
        offset += sum(len(part) for page in pages for part in page)
    group = _struct((1, _LIST, (_STRUCT, chunks)), (2, _I64, offset - len(_MAGIC)), (3, _I64, rows))
    footer = _struct(
        (1, _I32, 1),
        (2, _LIST, (_STRUCT, schema)),
        (3, _I64, rows),
        (4, _LIST, (_STRUCT, [group])),
        (6, _BINARY, b"embank"),
    )
    return b"".join([*pieces, footer, len(footer).to_bytes(4, "little"), _MAGIC])


#: A page: its header and its values.
_Page: TypeAlias = tuple[bytes, bytes]


def _chunk(name: str, kind: int, pages: Sequence[_Page], rows: int, offset: int) -> bytes:
    """Encode the metadata of one column, whose pages start at an offset, with the dictionary first."""
    has_dictionary = len(pages) > 0 and _is_dictionary(pages[0])
    size = sum(len(part) for page in pages for part in page)
    first = offset + (sum(map(len, pages[0])) if has_dictionary else 0)
    encodings = [_varint(_zigzag(code)) for code in ((_PLAIN, _DICTIONARY) if has_dictionary else (_PLAIN,))]
    metadata = _struct(
        (1, _I32, kind),
        (2, _LIST, (_I32, encodings)),
        (3, _LIST, (_BINARY, [_binary(name.encode())])),
        (4, _I32, 0),
        (5, _I64, rows),
        (6, _I64, size),
        (7, _I64, size),
        (9, _I64, first),
        *(((11, _I64, offset),) if has_dictionary else ()),
    )
    return _struct((2, _I64, offset), (3, _STRUCT, metadata))


def _is_dictionary(page: _Page) -> bool:
    return page[0].startswith(_DICTIONARY_START)


def _pages(column: Column) -> tuple[int, list[_Page]]:
    """Encode a column's Parquet type and its pages; there is at least one, since readers expect one."""
    starts = range(0, max(1, len(column)), _PAGE)
    if isinstance(column, Coded):
        width = max(1, (len(column.names) - 1).bit_length())
        names = Texts.of(column.names)
        pages = [_page(names.data.tobytes(), len(names), dictionary=True)]
        for start in starts:
            codes = column.codes[start : start + _PAGE]
            pages.append(_page(_packed(codes, width), len(codes), _DICTIONARY))
        return _BYTE_ARRAY, pages
    if isinstance(column, np.ndarray):
        kind, values = _numbers(column)
        blocks = [values[start : start + _PAGE] for start in starts]
        if kind == _BOOLEAN:
            bits = [np.packbits(block.astype(np.bool_), bitorder="little") for block in blocks]
            return kind, [_page(b.tobytes(), len(block)) for b, block in zip(bits, blocks, strict=True)]
        return kind, [_page(block.tobytes(), len(block)) for block in blocks]
    texts = column if isinstance(column, Texts) else Texts.of(column)
    return _BYTE_ARRAY, [
        _page(texts.part(start, start + _PAGE), min(_PAGE, len(texts) - start)) for start in starts
    ]


def _numbers(column: npt.NDArray[np.generic]) -> tuple[int, npt.NDArray[np.generic]]:
    if column.dtype.kind == "b":
        return _BOOLEAN, column
    stored = _STORED.get(f"{column.dtype.kind}{column.dtype.itemsize}")
    if stored is None or column.ndim != 1:
        raise ValueError(f"a column of {column.dtype}, shape {column.shape}")
    return _TYPES[stored], column.astype(stored, copy=False)


def _packed(codes: npt.NDArray[np.integer], width: int) -> bytes:
    """Encode indices as one bit-packed run of the RLE hybrid, after its bit width."""
    groups = -(-len(codes) // 8)
    padded = np.zeros(8 * groups, np.uint32)
    padded[: len(codes)] = codes
    bits = (padded[:, None] >> np.arange(width, dtype=np.uint32)) & 1
    run = np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()
    return bytes([width]) + _varint(groups << 1 | 1) + run


def _page(values: bytes, count: int, encoding: int = _PLAIN, *, dictionary: bool = False) -> _Page:
    if dictionary:
        kind, header = _DICTIONARY_PAGE, (7, _STRUCT, _struct((1, _I32, count), (2, _I32, _PLAIN)))
    else:
        levels = ((3, _I32, _RLE), (4, _I32, _RLE))
        kind, header = _DATA_PAGE, (5, _STRUCT, _struct((1, _I32, count), (2, _I32, encoding), *levels))
    size = len(values)
    return _struct((1, _I32, kind), (2, _I32, size), (3, _I32, size), header), values


# Thrift's compact protocol

_Value: TypeAlias = "int | bytes | tuple[int, list[bytes]]"


def _struct(*fields: tuple[int, int, _Value]) -> bytes:
    """Encode a struct of (number, type, value), numbers ascending; structs within it are encoded already."""
    out, last = bytearray(), 0
    for number, kind, value in fields:
        out.append((number - last) << 4 | kind)
        last = number
        if isinstance(value, int):
            out += _varint(_zigzag(value))
        elif isinstance(value, bytes):
            out += value if kind == _STRUCT else _binary(value)
        else:
            inner, members = value
            out += bytes([len(members) << 4 | inner]) if len(members) < 15 else bytes([0xF0 | inner])
            out += _varint(len(members)) if len(members) >= 15 else b""
            out += b"".join(members)
    return bytes(out) + b"\0"


def _binary(value: bytes) -> bytes:
    return _varint(len(value)) + value


def _zigzag(value: int) -> int:
    return value << 1 ^ value >> 63


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


_DICTIONARY_START = _struct((1, _I32, _DICTIONARY_PAGE))[:-1]
