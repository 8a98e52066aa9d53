"""What a decoder is: image files in, uint8 pixels ready for a backbone out, one verdict a row."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    import torch

    from engine.decode.source import ImageSource
    from engine.errors import BadImage

#: Stable words for a row's failure reason -> what they mean.
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

#: Batches a decoder may hold beyond the one its consumer works on.
READ_AHEAD = 2


@dataclass(frozen=True)
class DecodedBatch:
    """Pixels of consecutive slots of one batch.

    Attributes:
        rows: manifest row of each slot.
        pixels: uint8 [len(rows), side, side, 3] RGB on the decoder's device; all zeros where the row failed,
            so that neighbours and batch composition do not depend on failures.
        failures: slot -> reason.
        fallbacks: number of rows that the fast route handed to the reference renderer.
        bytes_read: bytes of image files read.
        first_frames: number of rows that show the first of several frames (GIF).
        seconds: of decoding work, as if the decoder had had its threads to itself; waits are not counted.
    """

    rows: Sequence[int]
    pixels: "torch.Tensor"
    failures: "Mapping[int, BadImage]" = field(default_factory=dict)
    fallbacks: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    first_frames: int = 0


class Decoder(Protocol):
    """Renders a recipe. `name` is part of the FeatureKey: two decoders with one name give the same pixels.

    Every decoder checks files with `engine.decode.formats.sniff` before anything else sees them, and asks the
    reference renderer about rows that its own route cannot do, so the same rows fail, for the same reasons,
    under all of them.
    """

    name: str

    def stream(self, source: "ImageSource", batches: Iterable[Sequence[int]]) -> Iterator[DecodedBatch]:
        """Decode batches of rows in order; may read ahead, but never more than `READ_AHEAD` batches.

        Closing the iterator early abandons the batches in flight.

        Raises:
            MachineFault: the machine, not the image, is at fault (an I/O error, too many open files).
        """
        ...

    def close(self) -> None:
        """Release threads and device memory. Calling it twice does no harm."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None:
        """Close."""
        ...
