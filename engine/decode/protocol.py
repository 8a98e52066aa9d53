"""The contract of decoders: from image files to uint8 pixels for backbones, with one result per row."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    import torch

    from engine.decode.source import ImageSource
    from engine.errors import BadImage

#: Stable codes of failed rows -> meaning.
FAILURE_REASONS: Mapping[str, str] = {
    "missing": "no file there, or a dangling link",
    "unreadable": "no permission, a loop of links, or a name the file system refuses",
    "not_a_file": "a directory, FIFO, socket or device",
    "outside_root": "the file lies outside the manifest's root",
    "empty": "0 bytes",
    "too_large": "more bytes or pixels than the limits allow, or data that would unpack to far more",
    "unknown_format": "no picture of a known format",
    "truncated": "the file ends before its image does",
    "corrupt": "a checksum, a header or the coded data is wrong",
    "no_pixels": "a DICOM file that holds something else than an image",
    "multi_frame": "more than one picture in the file (of a GIF, the first is taken)",
    "depth": "more than 8 bits a channel, and the recipe does not say, or cannot do, what is done with them",
    "digest": "the file is not the one whose SHA-256 the manifest names",
    "needs_package": "a package that is not installed reads it",
    "undecodable": "a sound file of a format or kind that no renderer here supports; the detail names it",
    "decoder_died": "the decoding library crashed on it, twice",
    "too_slow": "decoding it takes more processor time than its size justifies",
    "too_much_memory": "decoding it takes more memory than its size justifies",
}
FAILURE_CODES = tuple(FAILURE_REASONS)

#: Batches that a decoder may hold beyond the one in use by its consumer.
READ_AHEAD = 2


@dataclass(frozen=True)
class DecodedBatch:
    """A decoded batch.

    Attributes:
        rows: manifest row of each slot.
        pixels: uint8 [len(rows), side, side, 3], RGB, on the decoder's device; zeros where the row failed, so
            that neighbours and batch composition do not depend on failures.
        failures: slot -> reason.
        fallbacks: number of rows that were left to the reference renderer.
        bytes_read: bytes of image files read.
        first_frames: number of rows that show the first of several frames (GIF).
        seconds: of decoding work divided by the number of threads; waiting is not counted.
    """

    rows: Sequence[int]
    pixels: "torch.Tensor"
    failures: "Mapping[int, BadImage]" = field(default_factory=dict)
    fallbacks: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    first_frames: int = 0


class Closable(Protocol):
    """Holder of threads or device memory until it is closed, for instance at the end of a `with` block."""

    def close(self) -> None:
        """Release threads and device memory; may be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None:
        """Close."""
        ...


class Decoder(Closable, Protocol):
    """A renderer of a recipe. `name` is part of the FeatureKey: decoders of the same name give equal pixels.

    Every decoder first checks files with `engine.decode.formats.sniff`, and leaves rows that it does not
    support to the reference renderer. Therefore the same rows fail for the same reasons under all decoders.
    """

    name: str

    def stream(self, source: "ImageSource", batches: Iterable[Sequence[int]]) -> Iterator[DecodedBatch]:
        """Decode batches of rows in order, reading ahead by at most `READ_AHEAD` batches.

        Closing the iterator early abandons the batches in flight.

        Raises:
            MachineFault: the machine is at fault, not an image (an I/O error, too many open files).
        """
        ...


@dataclass(frozen=True)
class TrainingBatch:
    """Rows to decode with random crops, and the epoch, from 0, that their crops are drawn for."""

    rows: Sequence[int]
    epoch: int


class TrainingDecoder(Closable, Protocol):
    """A renderer of random crops (`engine.decode.random_crops`), with the recipe's side, depth and rotation.

    The recipe's own resize and crop do not apply. Rows fail as under `Decoder`, and a row's pixels depend on
    the epoch, not on its batch.
    """

    name: str

    def stream(self, source: "ImageSource", batches: Iterable[TrainingBatch]) -> Iterator[DecodedBatch]:
        """Decode batches in order, reading ahead by at most `READ_AHEAD` batches; see `Decoder.stream`."""
        ...
