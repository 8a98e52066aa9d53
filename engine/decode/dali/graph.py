"""The pipelines of NVIDIA DALI, one for the CPU and, with nvJPEG, for CUDA. Only this module imports DALI."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import nvidia.dali
import torch
from torch.utils.dlpack import from_dlpack

from engine import faults, runtime
from engine.errors import EmbankError, MachineFault
from engine.recipes import Recipe

# DALI's annotations lack most of what is used here.
backend: Any = nvidia.dali.backend
fn: Any = nvidia.dali.fn
types: Any = nvidia.dali.types
Pipeline: Any = nvidia.dali.pipeline.Pipeline

_SMALLER = "lower the batch (`embank embed --batch-size N`) and run it again; committed chunks are kept"
#: Batches scheduled in DALI at a time: the current one and the next.
DEPTH = 2
_INTERPOLATION = {"bicubic": types.INTERP_CUBIC, "bilinear": types.INTERP_LINEAR}
#: An image's values of a tail's inputs.
Target = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Tail:
    """The end of a pipeline, from decoded images to pixels [side, side, 3].

    Attributes:
        inputs: names of its inputs, of which every image has a value.
        nodes: (decoded images, input nodes, recipe) -> node of the pixels.
    """

    inputs: tuple[str, ...]
    nodes: Callable[[Any, Sequence[Any], Recipe], Any]


def _resize_and_slice(pixels: Any, inputs: Sequence[Any], recipe: Recipe) -> Any:
    size, start = inputs
    return _slice(_resize(pixels, size, recipe), start, [recipe.side, recipe.side])


def _slice_and_resize(pixels: Any, inputs: Sequence[Any], recipe: Recipe) -> Any:
    start, shape, mirror = inputs
    # Sliced first, and not by the resize's region of interest, whose filter would reach beyond the crop.
    pixels = _resize(_slice(pixels, start, shape), [recipe.side, recipe.side], recipe)
    return fn.flip(pixels, horizontal=mirror, vertical=0)


def _resize(pixels: Any, size: Any, recipe: Recipe) -> Any:
    interpolation = _INTERPOLATION[recipe.interpolation]
    return fn.resize(pixels, size=size, interp_type=interpolation, antialias=True, dtype=types.UINT8)


def _slice(pixels: Any, start: Any, shape: Any) -> Any:
    return fn.slice(pixels, start=start, shape=shape, axes=[0, 1])


#: A recipe's resize to `size` (height and width, float32) and its crop from `start` (top and left, int32).
CENTRE = Tail(("size", "start"), _resize_and_slice)
#: A crop from `start` of `shape` (int32), resized to the recipe's side and mirrored if `mirror` is 1 (int32).
CROP = Tail(("start", "shape", "mirror"), _slice_and_resize)


class Graph:
    """The DALI pipeline, built on first use and rebuilt after each `drop`."""

    def __init__(self, tail: Tail, recipe: Recipe, device: str, threads: int, batch_size: int) -> None:
        self._tail, self._recipe = tail, recipe
        self._device, self._threads, self._batch_size = device, threads, batch_size
        self._pipeline: Any = None
        self._clock = _Clock()

    @property
    def seconds(self) -> float:
        """Duration of the batch last taken."""
        return self._clock.seconds

    def feed(self, images: Sequence[tuple[bytes, Target]]) -> None:
        """Schedule a batch of files without waiting; an empty one is ignored."""
        if not images:
            return
        if self._pipeline is None:
            self._pipeline = self._built()
        self._pipeline.feed_input("encoded", [np.frombuffer(data, np.uint8) for data, _ in images])
        for i, name in enumerate(self._tail.inputs):
            self._pipeline.feed_input(name, np.stack([target[i] for _, target in images]))
        self._pipeline.schedule_run()
        self._clock.fed(len(images))

    def take(self) -> torch.Tensor:
        """Wait for the oldest batch and return its pixels, uint8 [n, side, side, 3] on the device.

        On CUDA the memory belongs to DALI and is ordered on torch's current stream: it must be copied on that
        stream before the next batch is taken.

        Raises:
            RuntimeError: DALI failed on one of the images; `drop` must follow.
        """
        assert self._pipeline is not None
        with self._clock.taking():
            if not self._device.startswith("cuda"):
                return from_dlpack(self._pipeline.outputs()[0].as_tensor())
            # The legacy default stream has handle 1, which torch reports as 0.
            stream = runtime.current_stream_handle(self._device) or 1
            return from_dlpack(self._pipeline.outputs(cuda_stream=stream)[0].as_tensor())

    def drop(self) -> None:
        """Discard the pipeline and the batches in it."""
        self._pipeline = None
        self._clock = _Clock()

    def _built(self) -> Any:
        """Return a new pipeline; a failure to build one is a machine fault, never the fault of an image."""
        try:
            return self._build()
        except Exception as error:  # DALI raises errors of many classes
            raise_machine_fault(error)
            raise MachineFault(
                f"DALI builds no pipeline ({type(error).__name__}: {str(error).partition(chr(10))[0]})",
                "It must work on this machine",
                "run `embank doctor`, or do without DALI (`embank embed --decoder turbo`)",
            ) from error

    def _build(self) -> Any:
        cuda = self._device.startswith("cuda")
        pipeline = Pipeline(
            self._batch_size,
            self._threads,
            torch.device(self._device).index or 0 if cuda else None,
            prefetch_queue_depth=DEPTH,
            exec_pipelined=False,  # otherwise the first run needs two batches at once
            exec_dynamic=True,
        )
        # hw_decoder_load: the hardware decoder takes a share of each batch by position, which would make
        # pixels depend on neighbours. affine: pinned threads would compete with the threads that read.
        options = {"hw_decoder_load": 0.0, "affine": False, "jpeg_fancy_upsampling": True} if cuda else {}
        with pipeline:
            encoded = fn.external_source(name="encoded")
            inputs = [fn.external_source(name=name) for name in self._tail.inputs]
            pixels = fn.decoders.image(
                encoded,
                device="mixed" if cuda else "cpu",
                output_type=types.RGB,
                adjust_orientation=False,
                **options,
            )
            pipeline.set_outputs(self._tail.nodes(pixels, inputs, self._recipe))
        pipeline.build()
        return pipeline


class _Clock:
    """Estimate of how long DALI works on a batch.

    Work on a batch starts when it has been fed and the batch before it is finished. Its end is observed only
    if `take` has to wait for it; otherwise the duration is estimated by the rate of the last batch waited
    for.
    """

    #: Seconds of waiting below which the batch counts as finished earlier.
    _WAIT = 1e-3

    def __init__(self) -> None:
        self.seconds = 0.0
        self._fed: deque[tuple[int, float]] = deque()
        self._end, self._an_image = 0.0, float("inf")

    def fed(self, images: int) -> None:
        """Record that a batch was scheduled."""
        self._fed.append((images, time.perf_counter()))

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """Measure the body, which waits for the oldest batch."""
        start = time.perf_counter()
        yield
        end = time.perf_counter()
        images, fed = self._fed.popleft()
        self.seconds = end - max(fed, self._end)
        if end - start > self._WAIT:
            self._an_image = self.seconds / images
        self.seconds = min(self.seconds, images * self._an_image)
        self._end = end


def raise_machine_fault(error: Exception) -> None:
    """Raise a memory or device fault if the error means one; otherwise return, as an image is at fault."""
    if isinstance(error, EmbankError):
        raise error
    # DALI's error classes carry no information: CUDA's errors come in whatever class its C++ code throws.
    message_error = error if isinstance(error, MemoryError) else RuntimeError(str(error))
    if fault := faults.translate(message_error, _SMALLER):
        raise fault from error


@contextlib.contextmanager
def machine_faults() -> Iterator[None]:
    """Raise the errors of the body that `raise_machine_fault` knows as such faults, others unchanged."""
    try:
        yield
    except Exception as error:
        raise_machine_fault(error)
        raise


def release_memory() -> None:
    """Return the unused memory of DALI's pools to the device."""
    with contextlib.suppress(RuntimeError):  # a lost device has already been reported
        backend.ReleaseUnusedMemory()
