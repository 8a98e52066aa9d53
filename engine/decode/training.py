"""Decoding with random crops, row by row in threads."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from engine.decode.formats.header import Header
from engine.decode.protocol import DecodedBatch, TrainingBatch
from engine.decode.random_crops import DrawCrop, RandomCrops
from engine.decode.source import ImageSource
from engine.decode.threaded import RowPool, RowRender
from engine.recipes import Recipe

#: (file, header, recipe, crop) -> uint8 [side, side, 3], and whether the reference renderer was needed.
CropRender = Callable[[bytes, Header, Recipe, DrawCrop], tuple[np.ndarray, bool]]


class ThreadedTrainingDecoder(RowPool):
    """Decoder of random crops in threads, with batches in order.

    Args:
        name: of the decoder.
        render: renders one crop; called from several threads at once.
        recipe: its side, interpolation, depth and rotation.
        crops: drawn for every row and epoch.
        device: of the pixels; uploads to CUDA go through pinned memory.
        threads: of the pool.
    """

    def __init__(
        self, name: str, render: CropRender, recipe: Recipe, crops: RandomCrops, *, device: str, threads: int
    ) -> None:
        super().__init__(name, recipe, device=device, threads=threads)
        self._render, self._crops = render, crops

    def stream(self, source: ImageSource, batches: Iterable[TrainingBatch]) -> Iterator[DecodedBatch]:
        """See `engine.decode.protocol.TrainingDecoder.stream`."""
        return self.rendered(source, ((batch.rows, self._renderer(batch.epoch)) for batch in batches))

    def _renderer(self, epoch: int) -> RowRender:
        def render(row: int, data: bytes, header: Header) -> tuple[np.ndarray, bool]:
            return self._render(data, header, self._recipe, partial(self._crops.crop, row, epoch))

        return render
