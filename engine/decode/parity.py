"""How far a decoder's pixels are from Pillow's: the pixel half of a bank's parity certificate."""

from collections.abc import Callable, Sequence
from typing import Any

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
#: What a faithful decoder keeps to on average, in levels of 255.
TOLERANCE = 0.5


def pixel_parity(
    source: ImageSource,
    rows: Sequence[int],
    recipe: Recipe,
    decoder: Decoder,
    *,
    batch_size: int = 16,
    render: Render = pillow.render,
) -> dict[str, Any]:
    """Compare a decoder with the reference renderer on some rows.

    Args:
        source: the images.
        rows: which of them; a few hundred say enough.
        recipe: what is rendered, by both.
        decoder: made for this recipe and at least this batch size.
        batch_size: rows decoded together.
        render: gives the pixels that the decoder's are compared with.

    Returns:
        `decoder`, `n` (rows that both rendered), `failed` (rows that both refused), `disagreed` (rows that
        one rendered and the other refused, or that failed for different reasons), and over the n rows, in
        levels of 255: `mean`, `max`, `worst_image_mean`. The three are None if n is 0. `passed`: none
        disagreed, and every image's mean is at most `TOLERANCE`.
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
                same = (
                    isinstance(expected, BadImage) and failure is not None and expected.code == failure.code
                )
                failed, disagreed = failed + same, disagreed + (not same)
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
