"""Rendering of pairs of images in threads, and batches of pairs that have one size."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.decode import isolated_process, pillow
from engine.decode.formats.sniff import sniff
from engine.decode.source import ImageSource
from engine.errors import BadImage
from engine.evals.perceptual.options import STUDY_SIDE, PerceptualOptions
from engine.evals.perceptual.pairs import Pair, Pairs

#: Pairs that are rendered ahead, as a multiple of the threads.
_AHEAD = 3
_Render = Callable[[ImageSource, int], np.ndarray]


@dataclass(frozen=True)
class RenderedPair:
    """A rendered pair.

    Attributes:
        index: of the pair.
        a, b: uint8 [H, W, 3], RGB, of one size; empty if the pair failed.
        reason: why it failed; empty if it did not.
    """

    index: int
    a: np.ndarray
    b: np.ndarray
    reason: str = ""


def batches(
    pairs: Pairs, options: PerceptualOptions, threads: int, allow_outside: bool = False
) -> Iterator[list[RenderedPair]]:
    """Yield the pairs in order, in batches: sound ones of one size, or one that failed.

    Raises:
        MachineFault: the machine is at fault, not an image.
    """
    batch: list[RenderedPair] = []
    for pair in _rendered(pairs, options, threads, allow_outside):
        if batch and (pair.reason or pair.a.shape != batch[0].a.shape):
            yield batch
            batch = []
        batch.append(pair)
        if pair.reason or len(batch) >= _most(pair.a, options):
            yield batch
            batch = []
    if batch:
        yield batch


def _most(image: np.ndarray, options: PerceptualOptions) -> int:
    """Return the pairs of a batch of such images."""
    height, width = image.shape[:2]
    fitting: int = options.batch_size * STUDY_SIDE**2 // max(1, height * width)
    return max(1, min(options.batch_size, fitting))


def _rendered(
    pairs: Pairs, options: PerceptualOptions, threads: int, allow_outside: bool
) -> Iterator[RenderedPair]:
    """Yield the rendered pairs in order."""
    sources = tuple(_source(root, pairs, i, allow_outside) for i, root in enumerate(pairs.roots))
    render = _renderer(options)
    pending: deque[Future[RenderedPair]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="embank-pairs")
    try:
        for index, pair in enumerate(pairs.pairs):
            pending.append(pool.submit(_pair, render, sources, index, pair))
            if len(pending) > _AHEAD * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        isolated_process.children.close()


def _source(root: Path, pairs: Pairs, side: int, allow_outside: bool) -> ImageSource:
    uris = [(pair.a, pair.b)[side] or "" for pair in pairs.pairs]
    return ImageSource(root, uris, allow_outside=allow_outside)


def _renderer(options: PerceptualOptions) -> _Render:
    recipe = options.rendering

    def render(source: ImageSource, row: int) -> np.ndarray:
        data = source.read(row)
        header = sniff(data, recipe, source.limits)
        if options.side is not None:
            return pillow.render(data, header, recipe)
        return np.asarray(pillow.picture(data, header, recipe).convert("RGB"))

    return render


def _pair(render: _Render, sources: tuple[ImageSource, ...], index: int, pair: Pair) -> RenderedPair:
    nothing = np.empty((0, 0, 3), np.uint8)
    if pair.a is None or pair.b is None:
        return RenderedPair(
            index, nothing, nothing, f"no file of this name in {'A' if pair.a is None else 'B'}"
        )
    images = []
    for name, source in zip("AB", sources, strict=True):
        try:
            images.append(render(source, index))
        except BadImage as failure:
            return RenderedPair(index, nothing, nothing, f"{name}: {failure}")
    a, b = images
    if a.shape != b.shape:
        sizes = " and ".join(f"{image.shape[1]} x {image.shape[0]}" for image in images)
        return RenderedPair(index, nothing, nothing, f"size: {sizes}; leave --own-size out")
    return RenderedPair(index, a, b)
