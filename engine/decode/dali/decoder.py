"""The decoders with DALI: of a recipe, and of random crops."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from engine.decode.dali.graph import CENTRE, CROP
from engine.decode.dali.pool import DaliPool
from engine.decode.dali.views import CentreView, CropView
from engine.decode.protocol import DecodedBatch, TrainingBatch
from engine.decode.random_crops import RandomCrops
from engine.decode.source import ImageSource
from engine.recipes import Recipe


class DaliDecoder(DaliPool):
    """Decoder of a recipe.

    Args:
        recipe: to render.
        device: `cpu`, or `cuda:N` to decode with nvJPEG; the pixels stay on it.
        threads: of DALI, and for reading files.
        batch_size: rows of a batch, at most.
    """

    def __init__(self, recipe: Recipe, *, device: str, threads: int, batch_size: int) -> None:
        super().__init__(CENTRE, recipe, device=device, threads=threads, batch_size=batch_size)

    def stream(self, source: ImageSource, batches: Iterable[Sequence[int]]) -> Iterator[DecodedBatch]:
        """See `engine.decode.protocol.Decoder.stream`."""
        view = CentreView(self._recipe)
        return self.rendered(source, ((rows, lambda row: view) for rows in batches))


class DaliTrainingDecoder(DaliPool):
    """Decoder of random crops.

    Args:
        recipe: its side, interpolation, depth and rotation.
        crops: drawn for every row and epoch.
        device: `cpu`, or `cuda:N` to decode with nvJPEG; the pixels stay on it.
        threads: of DALI, and for reading files.
        batch_size: rows of a batch, at most.
    """

    def __init__(
        self, recipe: Recipe, crops: RandomCrops, *, device: str, threads: int, batch_size: int
    ) -> None:
        super().__init__(CROP, recipe, device=device, threads=threads, batch_size=batch_size)
        self._crops = crops

    def stream(self, source: ImageSource, batches: Iterable[TrainingBatch]) -> Iterator[DecodedBatch]:
        """See `engine.decode.protocol.TrainingDecoder.stream`."""
        return self.rendered(source, ((batch.rows, self._views(batch.epoch)) for batch in batches))

    def _views(self, epoch: int) -> Callable[[int], CropView]:
        return lambda row: CropView(self._recipe, partial(self._crops.crop, row, epoch))
