"""Scores of one image under occlusion: every place of the square, in batches made on the device.

Places are taken in blocks of neighbours. All images of a block differ from the one image inside one small
window only, which is what `engine.models.forward.windowed_forward` needs to skip most of the early layers.

On a device the host waits three times for an image, whatever the number of places: for whether its feature
is defined, for the last scores, and for those of the sample. Other scores are taken once their copies are
known to have arrived, so that progress and what is saved lag behind the device by some blocks.
"""

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from engine.errors import BadImage, Refused
from engine.evals.saliency.errors import SampleError
from engine.evals.saliency.fill import parse_fill
from engine.kernels.occlusion import Squares, occlude, relative_change
from engine.models import ModelSpec
from engine.models.backbones import architectures
from engine.models.forward import windowed_forward
from engine.models.forward.encoder import thread_workers
from engine.normalise import normalise
from engine.runtime import HostCopy, Runtime, device_faults, fetched, host_buffer, placed

#: Pixels that a block spans along each axis, and its least and most places: larger blocks need fewer calls of
#: the early layers, but the window that these compute for all of a block's places grows.
_SPAN, _LEAST, _MOST = {"cpu": 6, "cuda": 16}, 2, 16
#: Places at which the scores are compared with plain float32 forward passes.
SAMPLE = 16
#: Blocks that the time of the others is estimated from.
_TIMED = 8


_T = TypeVar("_T")


@dataclass(frozen=True)
class Scores:
    """What has been computed of an image so far.

    Attributes:
        values: float64 [P, P], by row and column of the square's place.
        done: bool [P, P].
    """

    values: NDArray[np.float64]
    done: NDArray[np.bool_]

    @classmethod
    def none(cls, squares: Squares) -> "Scores":
        """Return scores with no place done."""
        shape = (squares.per_axis, squares.per_axis)
        return cls(np.zeros(shape), np.zeros(shape, np.bool_))


@dataclass(frozen=True)
class Block:
    """Neighbouring places: ranges of row and column indices."""

    rows: range
    columns: range

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.rows.start, self.rows.stop), slice(self.columns.start, self.columns.stop)

    def cut(self, step: int) -> "list[Block]":
        """Return smaller blocks, of at most `step` places along each axis, row by row."""
        rows, columns = (
            [range(start, min(start + step, r.stop)) for start in range(r.start, r.stop, step)]
            for r in (self.rows, self.columns)
        )
        return [Block(down, across) for down in rows for across in columns]


class Occluder:
    """A backbone that scores occluded images.

    Args:
        spec: the model; its recipe says how to normalise.
        runtime: where and how precisely.
        squares: the square's size, stride and the image's side.
        fill: `0` (zero after normalisation), `mean` (the image's mean colour), or R,G,B bytes.
        per_image_norm: BatchNorm with each occluded image's own statistics.

    Raises:
        ModelError: the architecture cannot take images of this side.
        Refused: a colour with histogram normalisation.
    """

    def __init__(
        self,
        spec: ModelSpec,
        runtime: Runtime,
        squares: Squares,
        *,
        fill: str = "0",
        per_image_norm: bool = False,
    ) -> None:
        architectures.dimension(spec.architecture, squares.side)
        self.spec, self.runtime, self.squares = spec, runtime, squares
        self.fill, self.per_image_norm = parse_fill(fill), per_image_norm
        if isinstance(self.fill, tuple) and spec.recipe.normalise == "histogram":
            raise Refused(
                f"fill {fill} with histogram normalisation",
                "There a colour's value depends on the image it stands in",
                "use --fill 0 or --fill mean",
            )
        self._module = windowed_forward.load(spec)
        self.net = windowed_forward.WindowedForward(
            self._module, runtime, squares.side, per_image_norm=per_image_norm
        )
        self._exact: windowed_forward.WindowedForward | None = None
        self._workers = None if runtime.on_cuda else thread_workers(runtime.threads)

    def close(self) -> None:
        """Stop the threads."""
        if self._workers is not None:
            self._workers.shutdown(wait=True, cancel_futures=True)

    def score(
        self,
        pixels: NDArray[np.uint8],
        scores: Scores | None = None,
        on_block: Callable[[int, Scores], None] | None = None,
        *,
        check: bool = True,
    ) -> tuple[Scores, SampleError | None]:
        """Score every place of the square that is not done yet.

        Args:
            pixels: uint8 [side, side, 3].
            scores: to go on with; filled in place.
            on_block: called after each block with how many places it had, and the scores so far.
            check: whether to measure the scores' error on a sample of places.

        Returns:
            (scores; what a sample says of their error, None without `check`).

        Raises:
            BadImage: codes `zero_feature`, `not_finite`: no score is defined.
        """
        image = self._normalised(pixels)
        base = self._alone(lambda: self.net.base(image))
        _refuse_undefined(base.feature)
        scores = scores or Scores.none(self.squares)
        colour = self._colour(image)
        todo = [block for block in self.blocks() if not scores.done[block.slices].all()]
        with device_faults():
            for block, values in self._all(base, image, colour, todo):
                scores.values[block.slices] = values
                scores.done[block.slices] = True
                if on_block:
                    on_block(values.size, scores)
        if not np.isfinite(scores.values).all():
            bad = int((~np.isfinite(scores.values)).sum())
            raise BadImage("not_finite", f"{bad} of {scores.values.size} occluded features are not finite")
        return scores, self._alone(lambda: self._check(image, colour, scores)) if check else None

    def seconds_a_place(self, pixels: NDArray[np.uint8], scores: Scores) -> float:
        """Score a few blocks, spread over the image, and time them.

        Args:
            pixels: uint8 [side, side, 3].
            scores: of the image; filled in place, so that no block is computed for its time alone.

        Returns:
            Seconds; NaN where too few blocks are left to tell.

        Raises:
            BadImage: as `score`.
        """
        todo = [block for block in self.blocks() if not scores.done[block.slices].all()]
        first = self.runtime.threads  # each thread's first block is slower
        if len(todo) < 2 * (first + _TIMED):
            return float("nan")
        sample = [
            todo[position] for position in np.linspace(0, len(todo) - 1, first + _TIMED).round().astype(int)
        ]
        image = self._normalised(pixels)
        base = self._alone(lambda: self.net.base(image))
        _refuse_undefined(base.feature)
        places, seconds = 0, 0.0
        for part in (sample[:first], sample[first:]):
            start, places = time.perf_counter(), 0
            for block, values in self._all(base, image, self._colour(image), part):
                scores.values[block.slices], scores.done[block.slices] = values, True
                places += values.size
            seconds = time.perf_counter() - start
        return seconds / places

    def every_place(self, pixels: NDArray[np.uint8], parts: Sequence[Block]) -> list[NDArray[np.float64]]:
        """Score all places inside some rectangles, at stride 1 whatever the stride of the map.

        Args:
            pixels: uint8 [side, side, 3].
            parts: rectangles of first pixels of the square.

        Returns:
            float64 [rows, columns] of each.
        """
        dense = copy.copy(self)
        dense.squares = replace(self.squares, stride=1)
        image = self._normalised(pixels)
        base, colour = self._alone(lambda: self.net.base(image)), self._colour(image)
        rectangles = [np.empty((len(part.rows), len(part.columns))) for part in parts]
        owners: dict[Block, list[int]] = {}  # rectangles may overlap
        for number, part in enumerate(parts):
            for block in part.cut(dense._step()):
                owners.setdefault(block, []).append(number)
        for block, scores in dense._all(base, image, colour, list(owners)):
            for number in owners[block]:
                part = parts[number]
                down, across = block.rows.start - part.rows.start, block.columns.start - part.columns.start
                into = rectangles[number][down : down + scores.shape[0], across : across + scores.shape[1]]
                into[:] = scores
        return rectangles

    def blocks(self) -> list[Block]:
        """Cut the places into blocks."""
        count = range(self.squares.per_axis)
        return Block(count, count).cut(self._step())

    def _step(self) -> int:
        """Return how many places a block spans along each axis."""
        if self.net.shares:
            span = _SPAN["cuda" if self.runtime.on_cuda else "cpu"]
            return min(max(span // self.squares.stride, _LEAST), _MOST)
        return _MOST if self.runtime.on_cuda else _LEAST

    def _all(
        self, base: windowed_forward.Base, image: torch.Tensor, colour: torch.Tensor, todo: list[Block]
    ) -> Iterator[tuple[Block, NDArray[np.float64]]]:
        if self._workers is None:
            yield from self._in_stream(base, image, colour, todo)
            return
        waiting: dict[Future[torch.Tensor], Block] = {}
        blocks = iter(todo)
        try:
            while True:
                for block in blocks:
                    task = self._workers.submit(self._block, base, image, colour, block)
                    waiting[task] = block
                    if len(waiting) > self.runtime.threads:
                        break
                if not waiting:
                    return
                for task in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(task), task.result().numpy()
        finally:
            for task in waiting:
                task.cancel()

    def _in_stream(
        self, base: windowed_forward.Base, image: torch.Tensor, colour: torch.Tensor, todo: list[Block]
    ) -> Iterator[tuple[Block, NDArray[np.float64]]]:
        """Compute blocks on a device, and wait for the last one's scores alone.

        The device limits how far the host runs ahead: its queue of kernels holds those of a few blocks.
        """
        sizes = [len(block.rows) * len(block.columns) for block in todo]
        buffer = host_buffer((sum(sizes),), torch.float64, self.runtime.device)
        waiting: deque[tuple[Block, HostCopy]] = deque()
        for block, into in zip(todo, buffer.split(sizes), strict=True):
            scores = self._block(base, image, colour, block)
            waiting.append((block, HostCopy(scores, into.view(scores.shape))))
            while waiting and waiting[0][1].arrived:
                block, copied = waiting.popleft()
                yield block, copied.host.numpy()
        if waiting:
            waiting[-1][1].wait()  # and so for all before it
        for block, copied in waiting:
            yield block, copied.host.numpy()

    def _block(
        self, base: windowed_forward.Base, image: torch.Tensor, colour: torch.Tensor, block: Block
    ) -> torch.Tensor:
        """Compute the scores of a block, float64 [rows, columns]."""
        squares = self.squares
        with torch.inference_mode():
            top, left = squares.start(block.rows.start), squares.start(block.columns.start)
            bottom = squares.start(block.rows[-1]) + squares.size
            right = squares.start(block.columns[-1]) + squares.size
            inside = image[:, :, top:bottom, left:right]
            rows, columns = (
                range(0, len(r) * squares.stride, squares.stride) for r in (block.rows, block.columns)
            )
            patches = occlude(inside, rows, columns, squares.size, colour)
            change = relative_change(base.features(top, left, patches), base.feature)
            return change.reshape(len(block.rows), len(block.columns))

    def _alone(self, work: Callable[[], _T]) -> _T:
        """Run on one of the single-threaded workers, whose arithmetic all blocks share."""
        return work() if self._workers is None else self._workers.submit(work).result()

    def _normalised(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        batch = placed(np.array(pixels, order="C"), self.runtime.device)[None]
        return normalise(batch, self.spec.recipe)

    def _colour(self, image: torch.Tensor) -> torch.Tensor:
        """Return the colour that fills the square: float32 [3], normalised."""
        if self.fill == "0":
            return image.new_zeros(3)
        if self.fill == "mean":
            return image.double().mean(dim=(0, 2, 3)).float()
        pixel = placed(np.array(self.fill, np.uint8), str(image.device))
        return normalise(pixel[None, None, None], self.spec.recipe)[0, :, 0, 0]

    def _check(self, image: torch.Tensor, colour: torch.Tensor, scores: Scores) -> SampleError:
        """Compare scores with plain forward passes in float32, one whole image after the other."""
        if self._exact is None:
            exact = Runtime(self.runtime.device, "fp32", self.runtime.threads)
            self._exact = windowed_forward.WindowedForward(
                self._module, exact, self.squares.side, per_image_norm=self.per_image_norm, whole=True
            )
        base = self._exact.base(image)
        count = self.squares.per_axis
        places = np.unique(np.linspace(0, count * count - 1, SAMPLE).round().astype(int))
        alone = []
        for place in places.tolist():
            row, column = divmod(place, count)
            block = Block(range(row, row + 1), range(column, column + 1))
            alone.append(self._block(base, image, colour, block).reshape(()))
        errors = np.abs(fetched(torch.stack(alone))[0] - scores.values.ravel()[places])
        return SampleError(
            len(places),
            float(errors.max()),
            float(np.mean(errors)),
            float(scores.values.mean()),
            float(scores.values.std()),
        )


def _refuse_undefined(feature: torch.Tensor) -> None:
    (flags,) = fetched(torch.stack([torch.isfinite(feature).all(), feature.any()]))
    if not flags[0]:
        raise BadImage("not_finite", "the image's feature has numbers that are not finite")
    if not flags[1]:
        raise BadImage("zero_feature", "the image's feature is zero, so no relative change is defined")
