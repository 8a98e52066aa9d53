"""What a decoder is: image files in, uint8 pixels ready for a backbone out, one verdict a row."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from engine.decode.source import ImageSource
    from engine.errors import BadImage

#: Stable words for a row's failure reason.
FAILURE_CODES = (
    "missing", "unreadable", "not_a_file", "outside_root", "empty", "too_large", "unknown_format",
    "truncated", "corrupt", "multi_frame", "depth", "digest", "undecodable",
)


@dataclass(frozen=True)
class DecodedBatch:
    """Pixels of consecutive slots of one batch.

    Attributes:
        rows: manifest row of each slot.
        pixels: uint8 [len(rows), side, side, 3] RGB on the decoder's device; all zeros where the row failed, so that
            neighbours and batch composition do not depend on failures.
        failures: slot -> reason.
        fallbacks: number of rows that the fast route handed to the reference renderer.
        bytes_read: bytes of image files read.
        seconds: wall seconds from the first to the last work on this batch, waits for room not counted.
    """

    rows: Sequence[int]
    pixels: "torch.Tensor"
    failures: "Mapping[int, BadImage]" = field(default_factory=dict)
    fallbacks: int = 0
    bytes_read: int = 0
    seconds: float = 0.0


class Decoder(Protocol):
    """Renders a recipe. `name` is part of the FeatureKey: two decoders with one name give the same pixels."""

    name: str

    def stream(self, source: "ImageSource", batches: Iterable[Sequence[int]]) -> Iterator[DecodedBatch]:
        """Decode batches of rows in order; may read ahead, but never more than two batches."""
        ...

    def close(self) -> None: ...
