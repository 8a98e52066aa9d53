"""Decoding with random crops, row by row in threads."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Self

import numpy as np

from engine.decode.formats.header import Header
from engine.decode.protocol import DecodedBatch, TrainingBatch
from engine.decode.random_crops import DrawCrop, RandomCrops
from engine.decode.source import ImageSource
from engine.decode.threaded import RowPool, RowRender
from engine.recipes import Recipe

#: (file, header, recipe, crop) -> uint8 [side, side, 3], and whether the reference renderer was needed.
CropRender = Callable[[bytes, Header, Recipe, DrawCrop], tuple[np.ndarray, bool]]


class ThreadedTrainingDecoder:
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
        self.name = name
        self._render, self._recipe, self._crops = render, recipe, crops
        self._pool = RowPool(name, recipe, device=device, threads=threads)

    def stream(self, source: ImageSource, batches: Iterable[TrainingBatch]) -> Iterator[DecodedBatch]:
        """See `engine.decode.protocol.TrainingDecoder.stream`."""
        return self._pool.stream(source, ((batch.rows, self._renderer(batch.epoch)) for batch in batches))

    def _renderer(self, epoch: int) -> RowRender:
        def render(row: int, data: bytes, header: Header) -> tuple[np.ndarray, bool]:
            return self._render(data, header, self._recipe, partial(self._crops.crop, row, epoch))

        return render

    def close(self) -> None:
        """See `RowPool.close`."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
