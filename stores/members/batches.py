"""CIFAR-10 batches (`data_batch_1`): pickles, read by an unpickler that builds only numbers and text."""

import io
import os
import pickle
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stores.members.encode import png
from stores.members.parts import MemberError, check_size, no_member, read_at

#: Twice a batch of the data set.
_MAX_BYTES = 64 << 20
#: Far more classes than any such data set has.
_MAX_LABEL = 1 << 16
_SIDE = 32
_ROW_BYTES = 3 * _SIDE * _SIDE


class CifarBatch:
    """One batch.

    Attributes:
        samples: uint8 [n, 3072]: 32 x 32 pixels of red, then of green, then of blue, row by row. None of a
            batch that was described by another process.
        labels: int of each image.
        filenames: of each image; empty if the batch has none.

    Source: the layout on https://www.cs.toronto.edu/~kriz/cifar.html; torchvision reads the same files.
    """

    def __init__(self, file: int) -> None:
        size = os.fstat(file).st_size
        check_size(size, _MAX_BYTES)
        batch = _unpickled(read_at(file, 0, size))
        try:
            self.samples: npt.NDArray[np.uint8] | None = _samples(batch[b"data"])
            self.labels = [int(label) for label in _listed(batch[b"labels"])]
            self.filenames = [_text(name) for name in _listed(batch.get(b"filenames", []))]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise MemberError("corrupt", "not a batch of CIFAR-10") from error
        if not all(0 <= label < _MAX_LABEL for label in self.labels):
            raise MemberError("corrupt", "a batch of CIFAR-10 with labels that are no classes")
        if len(self.labels) != len(self.samples) or len(self.filenames) not in (0, len(self.samples)):
            raise MemberError("corrupt", "a batch of CIFAR-10 whose parts differ in length")

    def describe(self) -> Any:
        """Labels and file names as JSON types."""
        return [self.labels, self.filenames]

    @classmethod
    def described(cls, found: Any) -> Self:
        """What `describe` gave: says which images there are, but reads none."""
        self = cls.__new__(cls)
        self.samples, (self.labels, self.filenames) = None, found
        return self

    def _row(self, member: str) -> int:
        row = int(member) if member.isascii() and member.isdigit() and len(member) < 8 else -1
        if not 0 <= row < len(self.labels):
            raise no_member()
        return row

    def size(self, member: str) -> int:
        """See `Container.size`."""
        self._row(member)
        return _ROW_BYTES

    def read(self, file: int, member: str, max_bytes: int) -> bytes:
        """The image as PNG. See `Container.read`."""
        row = self._row(member)
        check_size(_ROW_BYTES, max_bytes)
        assert self.samples is not None
        return png(self.samples[row].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0))


def _text(name: bytes | str) -> str:
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    if not isinstance(text, str):
        raise TypeError("not text")
    return text


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _unpickled(data: bytes) -> dict[bytes, Any]:
    try:
        found = _Unpickler(data).load()
        if not isinstance(found, dict):
            raise MemberError("corrupt", "not a batch of CIFAR-10")
        # Written by Python 2, its text is bytes; by Python 3, text.
        return {key.encode() if isinstance(key, str) else key: value for key, value in found.items()}
    except (MemberError, MemoryError):
        raise
    except Exception as error:  # damaged pickles raise nearly anything
        raise MemberError("corrupt", "not a batch of CIFAR-10, or a damaged one") from error


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler in Python: the one in C takes memory by numbers that the file states."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        # Made anew for each file: a pickle may set attributes of what it is given.
        self._known = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        """Stand-ins for what NumPy writes; none of the named things itself."""
        found = self._known.get((module, name))
        if found is None:
            raise MemberError("undecodable", "a pickle that names other things than arrays, and may run code")
        return found


def _stand_ins() -> dict[tuple[str, str], Any]:
    class Array:
        """Keeps what NumPy would build an array of."""

        state: tuple[Any, ...] = ()

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            self.state = state

    class Dtype:
        def __init__(self, code: bytes | str, *_: object) -> None:
            self.code = _text(code)

        def __setstate__(self, state: object) -> None:
            """Byte order and alignment: nothing to a byte."""

    def rebuilt(*_: object) -> Array:
        return Array()

    def encoded(text: str, _: str) -> bytes:
        return text.encode("latin-1")

    known: dict[tuple[str, str], type | Callable[..., Any]] = {
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): Dtype,
        ("_codecs", "encode"): encoded,
    }
    # NumPy 2 moved it.
    for core in ("core", "_core"):
        known["numpy." + core + ".multiarray", "_reconstruct"] = rebuilt
    return known


def _samples(array: Any) -> npt.NDArray[np.uint8]:
    """The state of a NumPy array: version, shape, type, whether Fortran's order, bytes."""
    _, shape, dtype, fortran, raw = array.state
    if dtype.code != "u1" or fortran or len(shape) != 2 or shape[1] != _ROW_BYTES:
        raise ValueError("not images")
    return np.frombuffer(raw, np.uint8).reshape(shape)
