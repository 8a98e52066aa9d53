"""Image statistics as features: read once from the bank's own image files, then kept in the bank."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadImage, Refused
from engine.evals.common.features import Features, Source
from engine.evals.controls.columns import standardised, with_array
from engine.kernels.image_statistics import LENGTH, image_statistics
from stores.bank import array_cache, documents
from stores.bank.array_cache import ArrayFile
from stores.json_types import JsonObject

#: Version of the statistics, part of their key.
VERSION = 1
#: Images of a task of the pool.
_BLOCK = 64

#: Called with (what, done, to do).
Progress = Callable[[str, int, int], None]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ImageStatistics:
    """Statistics of a bank's images.

    Attributes:
        values: float64 [N, 36] (`engine.kernels.image_statistics`), NaN where an image cannot be read.
        file: what the bank is to keep; None where it has them.
    """

    values: Floats
    file: ArrayFile | None

    def features(self, features: Features) -> Features:
        """Return them as features, standardised over the images that have them."""
        known = np.asarray(np.isfinite(self.values).all(axis=1), np.bool_)
        ok = known & features.ok
        if not ok.any():
            raise Refused(
                "None of the images could be read", "Image statistics need images", "see `embank bank show`"
            )
        return with_array(
            features, "image statistics", standardised(self.values, ok).astype(np.float32), known
        )


def statistics_of(features: Features, threads: int, progress: Progress | None = None) -> ImageStatistics:
    """Return the statistics of a feature's images: those that the bank keeps, or new ones.

    Images are decoded with the depth rule and rotation of the feature's recipe, in their own size, and turned
    grey by Pillow's weights (ITU-R 601-2).

    Args:
        threads: that decode.
        progress: called as images are read.

    Raises:
        Refused: the features are arrays, the images are not where they should be, or one has changed.
        BankError: the provenance or the manifest is damaged. MachineFault: the storage fails.
    """
    if features.source is None:
        raise Refused(
            "Arrays have no images",
            "Image statistics are computed from the bank's image files",
            "embed the images with `embank embed` and take Features.from_bank(BANK, MODEL)",
        )
    bank, key = features.source.bank, _key(features.source)
    path = f"statistics/{hashlib.sha256(documents.canonical(key)).hexdigest()[:24]}.arrays"
    try:
        stored = array_cache.read(bank.path, path, key)
    except documents.BrokenDocument:
        stored = None  # made again
    if stored is not None and stored["statistics"].shape == (bank.rows, LENGTH):
        return ImageStatistics(stored["statistics"], None)
    values = _computed(features.source, threads, progress)
    return ImageStatistics(values, ArrayFile(path, key, {"statistics": values}))


def _key(source: Source) -> JsonObject:
    """Return what the statistics depend on: the images, and how a file becomes levels from 0 to 255."""
    from engine.embed.provenance import recipe_of

    recipe = recipe_of(source.bank, source.features.name)
    return {
        "image_statistics": VERSION,
        "images": source.features.key.images,
        "depth": recipe.depth,
        "window": list(recipe.window) if recipe.window else None,
        "deep": list(recipe.deep),
        "exif": recipe.exif,
    }


def _computed(source: Source, threads: int, progress: Progress | None) -> Floats:
    # Decoders are imported where images are read, which happens once for a bank.
    from engine.decode import isolated_process, pillow
    from engine.decode.formats.sniff import sniff
    from engine.embed.provenance import recipe_of
    from engine.embed.restore import images_of

    bank, name = source.bank, source.features.name
    recipe, images = recipe_of(bank, name), images_of(bank, name)
    values = np.full((bank.rows, LENGTH), np.nan)

    def read(rows: range) -> None:
        for row in rows:
            try:
                data = images.read(row)
                picture = pillow.picture(data, sniff(data, recipe, images.limits), recipe)
            except BadImage:
                continue  # it stays NaN
            values[row] = image_statistics(np.asarray(picture.convert("L")))

    blocks = [range(start, min(start + _BLOCK, bank.rows)) for start in range(0, bank.rows, _BLOCK)]
    pool = ThreadPoolExecutor(threads, thread_name_prefix="embank-statistics")
    try:
        for block, _ in zip(blocks, _results(pool, read, blocks), strict=True):
            if progress is not None:
                progress("images read for their statistics", block.stop, bank.rows)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        isolated_process.children.close()
    return values


def _results(pool: ThreadPoolExecutor, read: Callable[[range], None], blocks: list[range]) -> Iterator[None]:
    return pool.map(read, blocks)
