"""Comparison of image files, while they are read, with those that a bank's rows were made from."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.errors import ChangedImage

Table = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Contents:
    """SHA-256 digests of image files. Different rows may be recorded from several threads at once.

    Attributes:
        expected: uint8 [rows, 32]; zeros where any content is accepted.
        read: uint8 [rows, 32], filled as files are read; zeros where no file was read.
    """

    expected: Table
    read: Table = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "read", np.zeros_like(self.expected))

    def record(self, row: int, digest: bytes, uri: str) -> None:
        """Record a file's digest; raise ChangedImage if the row was made from another file."""
        self.read[row] = np.frombuffer(digest, np.uint8)
        before = self.expected[row].tobytes()
        if before != digest and any(before):
            raise changed_images([uri], f"SHA-256 {digest.hex()[:12]} now, {before.hex()[:12]} then")


def changed_images(uris: list[str], detail: str) -> ChangedImage:
    """Return the error for images that differ from those a bank was made from; names the first three."""
    shown = ", ".join(map(repr, uris[:3])) + (f" and {len(uris) - 3} more" if len(uris) > 3 else "")
    verb = "is not the image" if len(uris) == 1 else "are not the images"
    return ChangedImage(
        f"{shown} {verb} that the bank was made from ({detail})",
        "A row's number comes from the image that was embedded, whatever has its name now",
        "put the image back; or `embank embed --accept-changed` makes features of the images as they are "
        "now, beside the old ones",
    )
