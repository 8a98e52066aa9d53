"""Axial slices of MetaImage volumes (`.mha`), without reading or unpacking the slices behind them."""

import os
import re
from typing import Any, Self

import numpy as np

from stores.manifest.uri_policy import shown
from stores.members.encode import png, tiff
from stores.members.parts import MemberError, Packed, check_size, no_member, read_at

_SLICE = re.compile(r"slice/(?P<number>[0-9]{1,6})(?P<share>\.[0-9]{1,6})?")
_MAX_HEADER, _MAX_SIDE = 1 << 16, 1 << 31
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_FLOAT": "f4",
}  # fmt: skip
_LAST = b"ElementDataFile"


class Volume:
    """The header of a volume whose data follow in the same file.

    Slices are counted along the third and slowest dimension, as they lie in the file: axial ones in CT as it
    is usually written. The file's orientation is not applied. `slice/17` is the eighteenth, `slice/0.5` the
    one at floor(0.5 * depth).

    Source: the MetaImage format, https://docs.itk.org/en/latest/learn/metaio.html.
    """

    def __init__(self, file: int) -> None:
        size = os.fstat(file).st_size
        fields, start = _header(os.pread(file, _MAX_HEADER, 0))
        try:
            self._shape, self._dtype = _described(fields)
            start = max(int(fields.get("HeaderSize", "0")), 0) or start
        except (KeyError, ValueError) as error:
            raise MemberError("corrupt", "its MetaImage header lacks a field, or has a wrong one") from error
        if not 1 <= min(self._shape) <= max(self._shape) <= _MAX_SIDE:
            raise MemberError("corrupt", "its MetaImage header states sizes that no volume has")
        if start > size:
            raise MemberError("truncated", "its MetaImage header states more bytes than the file has")
        whole = self._shape[0] * self._slice_bytes
        self._start = start
        packed = fields.get("CompressedData", "False").lower() == "true"
        self._packed = Packed(start, size - start, whole, bits=15, kept=0) if packed else None

    def describe(self) -> Any:
        """Shape and type as JSON types."""
        return [self._shape, self._dtype.str]

    @classmethod
    def described(cls, found: Any) -> Self:
        """What `describe` gave: says which slices there are and how large, but reads none."""
        self = cls.__new__(cls)
        self._shape, self._dtype = tuple(found[0]), np.dtype(found[1])
        return self

    @property
    def _slice_bytes(self) -> int:
        return self._shape[1] * self._shape[2] * self._dtype.itemsize

    def _index(self, member: str) -> int:
        asked = _SLICE.fullmatch(member)
        if asked is None:
            raise no_member()
        index = int(asked["number"])
        if asked["share"]:
            # In whole numbers: floor(share * depth) of a decimal share is then what it looks like.
            digits = asked["share"][1:]
            index = self._shape[0] * int(asked["number"] + digits) // 10 ** len(digits)
        if index >= self._shape[0]:
            raise no_member()
        return index

    def size(self, member: str) -> int:
        """See `Container.size`."""
        self._index(member)
        return self._slice_bytes

    def read(self, file: int, member: str, max_bytes: int) -> bytes:
        """The slice as PNG (8 and 16 bits without sign) or TIFF. See `Container.read`."""
        offset = self._index(member) * self._slice_bytes
        check_size(self._slice_bytes, max_bytes)
        data = (
            self._packed.read(file, offset, self._slice_bytes)
            if self._packed
            else read_at(file, self._start + offset, self._slice_bytes)
        )
        samples = np.frombuffer(data, self._dtype).reshape(self._shape[1:])
        if samples.dtype == np.int8:  # image files have no such type
            samples = samples.astype(np.int16)
        return png(samples) if self._dtype.kind == "u" and self._dtype.itemsize <= 2 else tiff(samples)


def _header(head: bytes) -> tuple[dict[str, str], int]:
    """Fields, and the offset of the data."""
    at = head.find(_LAST)
    end = head.find(b"\n", at)
    if at < 0 or end < 0:
        raise MemberError("corrupt", "not a MetaImage volume, or a damaged one")
    lines = head[:end].decode("latin-1").splitlines()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
    if fields[_LAST.decode()] != "LOCAL":
        raise MemberError("undecodable", "a MetaImage header whose data lie in another file")
    return fields, end + 1


def _described(fields: dict[str, str]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape (depth, height, width), and type of the samples."""
    shape = tuple(int(size) for size in reversed(fields["DimSize"].split()))
    if len(shape) != 3 or int(fields["NDims"]) != 3 or int(fields.get("ElementNumberOfChannels", "1")) != 1:
        raise MemberError("undecodable", "a MetaImage that is no volume of one channel")
    if fields.get("BinaryData", "True").lower() != "true":
        raise MemberError("undecodable", "a MetaImage whose samples are text")
    msb = fields.get("ElementByteOrderMSB", fields.get("BinaryDataByteOrderMSB", "False"))
    if fields["ElementType"] not in _TYPES:
        raise MemberError("undecodable", f"a MetaImage of {shown(fields['ElementType'], 40)}")
    return shape, np.dtype((">" if msb.lower() == "true" else "<") + _TYPES[fields["ElementType"]])
