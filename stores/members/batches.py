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

#: Largest file that is read; twice the size of a batch of the data set.
_MAX_BYTES = 64 << 20
#: Labels are below this: far more classes than any such data set has.
_MAX_LABEL = 1 << 16
_SIDE = 32
_ROW_BYTES = 3 * _SIDE * _SIDE


class CifarBatch:
    """A batch of images with labels.

    Attributes:
        samples: uint8 [n, 3072]: 32 x 32 pixels of red, then of green, then of blue, row by row. None in an
            index made by `from_description`.
        labels: int [n].
        filenames: [n]; empty if the batch has none.

    Source: the layout on https://www.cs.toronto.edu/~kriz/cifar.html; torchvision reads the same files.
    """

    def __init__(self, file: int) -> None:
        size = os.fstat(file).st_size
        check_size(size, _MAX_BYTES)
        batch = _unpickled(read_at(file, 0, size))
        try:
            self.samples: npt.NDArray[np.uint8] | None = _samples(batch[b"data"])
            self.labels = [int(label) for label in _as_list(batch[b"labels"])]
            self.filenames = [_as_text(name) for name in _as_list(batch.get(b"filenames", []))]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise MemberError("corrupt", "not a batch of CIFAR-10") from error
        if not all(0 <= label < _MAX_LABEL for label in self.labels):
            raise MemberError("corrupt", "a batch of CIFAR-10 with labels that are no classes")
        if len(self.labels) != len(self.samples) or len(self.filenames) not in (0, len(self.samples)):
            raise MemberError("corrupt", "a batch of CIFAR-10 whose parts differ in length")

    def describe(self) -> Any:
        """Return labels and file names as JSON types."""
        return [self.labels, self.filenames]

    @classmethod
    def from_description(cls, description: Any) -> Self:
        """Make an index of what `describe` returned; it lists the images, but cannot read them."""
        self = cls.__new__(cls)
        self.samples, (self.labels, self.filenames) = None, description
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
        """Return an image as PNG. See `Container.read`."""
        row = self._row(member)
        check_size(_ROW_BYTES, max_bytes)
        assert self.samples is not None
        return png(self.samples[row].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0))


def _as_text(name: bytes | str) -> str:
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    if not isinstance(text, str):
        raise TypeError("not text")
    return text


def _as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _unpickled(data: bytes) -> dict[bytes, Any]:
    try:
        batch = _Unpickler(data).load()
        if not isinstance(batch, dict):
            raise MemberError("corrupt", "not a batch of CIFAR-10")
        # Keys are bytes if Python 2 wrote the pickle, and text if Python 3 did.
        return {key.encode() if isinstance(key, str) else key: value for key, value in batch.items()}
    except (MemberError, MemoryError):
        raise
    except Exception as error:  # damaged pickles raise nearly anything
        raise MemberError("corrupt", "not a batch of CIFAR-10, or a damaged one") from error


class _Unpickler(pickle._Unpickler):
    """An unpickler that builds stand-ins for arrays and nothing else.

    It derives from the unpickler written in Python: the one in C allocates as much memory as the file states.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        # New classes for each file, because a pickle may set attributes of the classes it gets.
        self._stand_ins = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for a global that NumPy's pickles name, never the global itself."""
        stand_in = self._stand_ins.get((module, name))
        if stand_in is None:
            raise MemberError("undecodable", "a pickle that names other things than arrays, and may run code")
        return stand_in


def _stand_ins() -> dict[tuple[str, str], Any]:
    class Array:
        """The state that NumPy would build an array from."""

        state: tuple[Any, ...] = ()

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            self.state = state

    class Dtype:
        def __init__(self, code: bytes | str, *_: object) -> None:
            self.code = _as_text(code)

        def __setstate__(self, state: object) -> None:
            """Ignore byte order and alignment, which single bytes do not have."""

    def reconstruct(*_: object) -> Array:
        return Array()

    def encode(text: str, _: str) -> bytes:
        return text.encode("latin-1")

    stand_ins: dict[tuple[str, str], type | Callable[..., Any]] = {
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): Dtype,
        ("_codecs", "encode"): encode,
    }
    # NumPy 2 moved `_reconstruct`.
    for core in ("core", "_core"):
        stand_ins["numpy." + core + ".multiarray", "_reconstruct"] = reconstruct
    return stand_ins


def _samples(array: Any) -> npt.NDArray[np.uint8]:
    """Return the samples of a stand-in whose state is (version, shape, dtype, Fortran order, bytes)."""
    _, shape, dtype, fortran, raw = array.state
    if dtype.code != "u1" or fortran or len(shape) != 2 or shape[1] != _ROW_BYTES:
        raise ValueError("not images")
    return np.frombuffer(raw, np.uint8).reshape(shape)
