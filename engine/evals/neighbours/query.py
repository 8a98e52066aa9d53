"""An image file as a query: embedded as the bank's images were, and known among them."""

import hashlib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadImage, Refused
from stores.bank.reader import FeatureSet

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest


def rows_of(features: FeatureSet, manifest: "Manifest", image: Path) -> list[int]:
    """Find rows made from this very file: by content, or by path where no digest was kept."""
    try:
        data = image.read_bytes()
    except OSError:
        return []  # embedding it will report why it cannot be read
    digest = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    same = (features.contents == digest).all(axis=1)
    unknown = ~features.contents.any(axis=1)
    for row in np.flatnonzero(unknown & features.ok).tolist():
        path = manifest.root / manifest.uris[row]
        same[row] = path.name == image.name and path.is_file() and path.samefile(str(image))
    return [int(row) for row in np.flatnonzero(same & features.ok)]


def embed_file(
    features: FeatureSet, image: Path, *, weights: Path | None = None, device: str = "auto"
) -> NDArray[Any]:
    """Embed one file with the model, recipe, decoder and precision that made the features.

    Reads that file and the weights, nothing else of the bank's images.

    Args:
        weights: the weights file, where it is not at its recorded place any more.
        device: as for `engine.embed.restore.restore`.

    Returns:
        [1, d] in the features' dtype.

    Raises:
        Refused: the weights are not there or not the same, or the file cannot be embedded.
    """
    from engine.embed.restore import restore
    from engine.runtime import HostCopy, fix_flags

    restored = restore(features.bank, features.name, weights=weights, device=device)
    fix_flags(restored.runtime)
    with closing(restored.decoder(batch_size=1)) as decoder:
        batch = next(decoder.stream(restored.other_file(image), [[0]]))
    if batch.failures:
        raise _unusable(image, batch.failures[0])
    vector = HostCopy(restored.encoder()(batch.pixels)).wait().float().numpy()
    embedding = vector.astype(features.key.dtype)
    if not np.isfinite(embedding).all():
        raise Refused(
            f"{image} has an embedding that is not finite",
            f"It must fit into {features.key.dtype}",
            "choose another image",
        )
    return embedding


def _unusable(image: Path, error: BadImage) -> Refused:
    return Refused(
        f"{image} cannot be embedded ({error.code}: {error.detail})",
        "The query is a whole image of an accepted format",
        "choose another file",
    )
