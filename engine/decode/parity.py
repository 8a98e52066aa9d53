"""Difference of a decoder's pixels from Pillow's: the pixel part of a bank's parity certificate."""

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np

from engine.decode import pillow
from engine.decode.formats.header import Header
from engine.decode.formats.sniff import sniff
from engine.decode.protocol import Decoder
from engine.decode.source import ImageSource
from engine.errors import BadImage
from engine.recipes import Recipe

#: (file, header, recipe) -> uint8 [side, side, 3].
Render = Callable[[bytes, Header, Recipe], np.ndarray]
#: Mean difference of an image that is tolerated, in levels of 255.
TOLERANCE = 0.5


class PixelParity(TypedDict):
    """Result of `pixel_parity`; differences are in levels of 255, and None if no row was rendered by both.

    Attributes:
        decoder: its name.
        n: rows that both rendered.
        failed: rows that both refused for the same reason.
        disagreed: rows that only one refused, or both for different reasons.
        mean, max: of the differences over the n rows.
        worst_image_mean: largest mean difference of an image.
        passed: no row disagreed, and the mean of every image is at most `TOLERANCE`.
    """

    decoder: str
    n: int
    failed: int
    disagreed: int
    mean: float | None
    max: int | None
    worst_image_mean: float | None
    passed: bool


def pixel_parity(
    source: ImageSource,
    rows: Sequence[int],
    recipe: Recipe,
    decoder: Decoder,
    *,
    batch_size: int = 16,
    render: Render = pillow.render,
) -> PixelParity:
    """Compare a decoder with the reference renderer on a sample of rows.

    Args:
        source: the images.
        rows: positions of the rows to compare; a few hundred are enough.
        recipe: rendered by both.
        decoder: built for this recipe and at least this batch size.
        batch_size: rows decoded together.
        render: the reference renderer.
    """
    batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    means: list[float] = []
    largest = failed = disagreed = 0
    for batch in decoder.stream(source, batches):
        pixels = batch.pixels.cpu().numpy()
        for slot, row in enumerate(batch.rows):
            expected = _expected(source, row, recipe, render)
            failure = batch.failures.get(slot)
            if isinstance(expected, BadImage) or failure is not None:
                same_failure = (
                    isinstance(expected, BadImage) and failure is not None and expected.code == failure.code
                )
                failed, disagreed = failed + same_failure, disagreed + (not same_failure)
                continue
            difference = np.abs(pixels[slot].astype(np.int16) - expected)
            means.append(float(difference.mean()))
            largest = max(largest, int(difference.max()))
    worst = max(means, default=0.0)
    return {
        "decoder": decoder.name,
        "n": len(means),
        "failed": failed,
        "disagreed": disagreed,
        "mean": float(np.mean(means)) if means else None,
        "max": largest if means else None,
        "worst_image_mean": worst if means else None,
        "passed": not disagreed and worst <= TOLERANCE,
    }


def _expected(source: ImageSource, row: int, recipe: Recipe, render: Render) -> np.ndarray | BadImage:
    try:
        data = source.read(row)
        return render(data, sniff(data, recipe, source.limits), recipe)
    except BadImage as failure:
        return failure
