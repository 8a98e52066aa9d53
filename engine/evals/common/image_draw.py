"""The images to take: those named, or a draw; a smaller draw is the beginning of a larger one."""

import hashlib
from typing import Protocol

import numpy as np

from engine.errors import Refused
from engine.kernels.episodes import Stream
from stores.manifest.manifest import Manifest


class Draw(Protocol):
    """The options that decide which images are taken; equal ones take the same images in any evaluation."""

    @property
    def ids(self) -> tuple[str, ...]: ...
    @property
    def images(self) -> int | None: ...
    @property
    def wanted(self) -> int: ...
    @property
    def seed(self) -> int: ...


def choose(manifest: Manifest, options: Draw) -> list[int]:
    """Choose rows of a manifest.

    Raises:
        Refused: an unknown id, or more images than there are.
    """
    names = manifest.image_ids
    if options.ids:
        place = {image_id: row for row, image_id in enumerate(names)}
        unknown = [image_id for image_id in options.ids if image_id not in place]
        if unknown:
            raise Refused(
                f"image ids {', '.join(map(repr, unknown[:3]))}",
                f"There are {len(names)} images, e.g. {', '.join(map(repr, names[:3]))}",
                "give ids of the manifest, or a number with --images",
            )
        return list(dict.fromkeys(place[image_id] for image_id in options.ids))
    if options.images is not None and options.images > len(names):
        raise Refused(f"{options.images} images", f"There are {len(names)}", "lower --images")
    numbers = stream("draw", options.seed, manifest.image_digest).uniform(len(names))
    return [int(row) for row in np.argsort(numbers, kind="stable")[: options.wanted]]


def stream(purpose: str, seed: int, images: str) -> Stream:
    """Return random numbers that depend on their purpose, a seed and the digest of the images."""
    return Stream(
        hashlib.sha256(f"embank saliency 1 {purpose} {seed} {images}".encode("ascii")).digest()[:16]
    )
