"""The decoder with NVIDIA DALI: one graph for the CPU and, with nvJPEG, for CUDA.

Files are read and checked ahead, in threads; DALI receives bytes and target sizes. Kinds of images that it
does not support go to the reference renderer. An image on which DALI fails breaks its pipeline: the pipeline
is then rebuilt, and the images of the batch are tried one by one. Only this module imports DALI.
"""

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import nvidia.dali
import torch
from torch.utils.dlpack import from_dlpack

from engine import faults, runtime
from engine.decode import isolated_process, pillow
from engine.decode.formats.header import Header
from engine.decode.formats.sniff import sniff
from engine.decode.geometry import Geometry, plan
from engine.decode.protocol import READ_AHEAD, DecodedBatch
from engine.decode.source import ImageSource
from engine.errors import BadImage, EmbankError, MachineFault
from engine.recipes import Recipe

# DALI's annotations lack most of what is used here.
backend: Any = nvidia.dali.backend
fn: Any = nvidia.dali.fn
types: Any = nvidia.dali.types
Pipeline: Any = nvidia.dali.pipeline.Pipeline

_SMALLER = "lower the batch (`embank embed --batch-size N`) and run it again; committed chunks are kept"
#: Batches scheduled in DALI at a time: the current one and the next.
_DEPTH = 2
_INTERPOLATION = {"bicubic": types.INTERP_CUBIC, "bilinear": types.INTERP_LINEAR}


class DaliDecoder:
    """Decoder of batches with DALI.

    Args:
        recipe: to render.
        device: `cpu`, or `cuda:N` to decode with nvJPEG; the pixels stay on it.
        threads: of DALI, and for reading files.
        batch_size: rows of a batch, at most.
    """

    def __init__(self, recipe: Recipe, *, device: str, threads: int, batch_size: int) -> None:
        self.name = "dali-mixed" if device.startswith("cuda") else "dali"
        self._recipe, self._device, self._threads = recipe, device, threads
        self._graph = _Graph(recipe, device, threads, batch_size)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="embank-read")

    def stream(self, source: ImageSource, batches: Iterable[Sequence[int]]) -> Iterator[DecodedBatch]:
        """See `engine.decode.protocol.Decoder.stream`."""
        pending: deque[_Batch] = deque()
        try:
            for rows in batches:
                reads = [self._pool.submit(self._read, source, row, slot) for slot, row in enumerate(rows)]
                pending.append(_Batch(rows, reads))
                if len(pending) > READ_AHEAD:
                    yield self._next(pending)
            while pending:
                yield self._next(pending)
        finally:
            for future in (future for batch in pending for future in batch.reads):
                future.cancel()
            if any(batch.scheduled for batch in pending):
                self._graph.drop()  # it still holds the abandoned batches

    def close(self) -> None:
        """Release DALI's memory and threads, and end idle child processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._graph.drop()
        if self._device.startswith("cuda"):  # torch cannot use memory in DALI's pools
            with contextlib.suppress(RuntimeError):  # a lost device has already been reported
                backend.ReleaseUnusedMemory()
        isolated_process.children.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self, source: ImageSource, row: int, slot: int) -> "_Row":
        """Read and check one row's file; render it here if DALI does not support its kind."""
        size, start = 0, time.perf_counter()
        try:
            data = source.read(row)
            size = len(data)
            header = sniff(data, self._recipe, source.limits)
            to = plan(header.height, header.width, self._recipe)
            result = _Row(slot, size, _Encoded(data, header, to))
            if not header.plain or to.extreme or (self._recipe.exif and header.exif):
                result = self._by_reference(result)
        except BadImage as failure:
            result = _Row(slot, size, failure=failure.with_traceback(None))
        return replace(result, seconds=time.perf_counter() - start)

    def _by_reference(self, row: "_Row") -> "_Row":
        """Render a row by the reference renderer, or record why that fails."""
        assert row.encoded is not None
        try:
            pixels = pillow.render(row.encoded.data, row.encoded.header, self._recipe)
        except BadImage as failure:
            return replace(row, encoded=None, failure=failure.with_traceback(None))
        return replace(row, encoded=None, pixels=pixels, first_frame=row.encoded.header.frames > 1)

    def _next(self, pending: "deque[_Batch]") -> DecodedBatch:
        """Schedule batches that have been read in DALI, and return the first batch."""
        head = pending[0]
        head.wait_read()
        for batch in list(pending)[:_DEPTH]:
            if not batch.scheduled and all(future.done() for future in batch.reads):
                batch.wait_read()
                with _machine_faults():  # the first batch builds the pipeline, which uses the device
                    self._graph.feed(batch.for_dali)
                batch.scheduled = True
            if not batch.scheduled:
                break
        try:
            rendered = self._graph.take() if head.for_dali else None
            done = self._assemble(head, rendered)
        except Exception as error:  # DALI raises errors of many classes
            _raise_machine_fault(error)
            for batch in pending:
                batch.scheduled = False
            self._graph.drop()
            done = self._one_by_one(head)
        pending.popleft()
        return done

    def _one_by_one(self, batch: "_Batch") -> DecodedBatch:
        """Decode a batch that DALI failed on, row by row. Sound rows still get DALI's pixels."""
        results = []
        device_pixels = {}
        for row in batch.read:
            result = row
            if row.encoded is not None:
                try:
                    self._graph.feed([row.encoded])
                    device_pixels[row.slot] = self._graph.take()[0].clone()
                except Exception as error:  # DALI raises errors of many classes
                    _raise_machine_fault(error)
                    self._graph.drop()
                    result = self._by_reference(row)
            results.append(result)
        batch.read = results
        rendered = torch.stack(list(device_pixels.values())) if device_pixels else None
        return self._assemble(batch, rendered)

    def _assemble(self, batch: "_Batch", rendered: torch.Tensor | None) -> DecodedBatch:
        reading = sum(row.seconds for row in batch.read) / self._threads
        decoding = self._graph.seconds if rendered is not None else 0.0
        return _assemble(batch, rendered, self._recipe.side, self._device, reading + decoding)


@dataclass(frozen=True)
class _Encoded:
    """A file to be decoded by DALI, and its target geometry."""

    data: bytes
    header: Header
    to: Geometry


@dataclass(frozen=True)
class _Row:
    """A row that was read: a file for DALI, or rendered pixels, or a failure."""

    slot: int
    bytes_read: int
    encoded: _Encoded | None = None
    pixels: np.ndarray | None = None
    failure: BadImage | None = None
    seconds: float = 0.0
    first_frame: bool = False


@dataclass
class _Batch:
    """A batch in flight; `scheduled` once DALI has it."""

    rows: Sequence[int]
    reads: list[Future[_Row]]
    scheduled: bool = False
    read: list[_Row] = field(default_factory=list)

    def wait_read(self) -> None:
        """Wait until all rows have been read."""
        if not self.read:
            self.read = [future.result() for future in self.reads]

    @property
    def for_dali(self) -> list[_Encoded]:
        """Files for DALI, in the order of slots."""
        return [row.encoded for row in self.read if row.encoded is not None]


class _Graph:
    """The DALI pipeline, built on first use and rebuilt after each `drop`."""

    def __init__(self, recipe: Recipe, device: str, threads: int, batch_size: int) -> None:
        self._recipe, self._device, self._threads, self._batch_size = recipe, device, threads, batch_size
        self._pipeline: Any = None
        self._clock = _Clock()

    @property
    def seconds(self) -> float:
        """Duration of the batch last taken."""
        return self._clock.seconds

    def feed(self, images: list[_Encoded]) -> None:
        """Schedule a batch without waiting; an empty one is ignored."""
        if not images:
            return
        if self._pipeline is None:
            self._pipeline = self._built()
        size = np.array([[i.to.height, i.to.width] for i in images], np.float32)
        start = np.array([[i.to.top, i.to.left] for i in images], np.int32)
        self._pipeline.feed_input("encoded", [np.frombuffer(i.data, np.uint8) for i in images])
        self._pipeline.feed_input("size", size)
        self._pipeline.feed_input("start", start)
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
            _raise_machine_fault(error)
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
            prefetch_queue_depth=_DEPTH,
            exec_pipelined=False,  # otherwise the first run needs two batches at once
            exec_dynamic=True,
        )
        # hw_decoder_load: the hardware decoder takes a share of each batch by position, which would make
        # pixels depend on neighbours. affine: pinned threads would compete with the threads that read.
        options = {"hw_decoder_load": 0.0, "affine": False, "jpeg_fancy_upsampling": True} if cuda else {}
        side = self._recipe.side
        with pipeline:
            encoded = fn.external_source(name="encoded")
            size, start = fn.external_source(name="size"), fn.external_source(name="start")
            pixels = fn.decoders.image(
                encoded,
                device="mixed" if cuda else "cpu",
                output_type=types.RGB,
                adjust_orientation=False,
                **options,
            )
            pixels = fn.resize(
                pixels,
                size=size,
                interp_type=_INTERPOLATION[self._recipe.interpolation],
                antialias=True,
                dtype=types.UINT8,
            )
            pipeline.set_outputs(fn.slice(pixels, start=start, shape=[side, side], axes=[0, 1]))
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


def _raise_machine_fault(error: Exception) -> None:
    """Raise a memory or device fault if the error means one; otherwise return, as an image is at fault."""
    if isinstance(error, EmbankError):
        raise error
    # DALI's error classes carry no information: CUDA's errors come in whatever class its C++ code throws.
    message_error = error if isinstance(error, MemoryError) else RuntimeError(str(error))
    if fault := faults.translate(message_error, _SMALLER):
        raise fault from error


@contextlib.contextmanager
def _machine_faults() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        _raise_machine_fault(error)
        raise


def _assemble(
    batch: _Batch, rendered: torch.Tensor | None, side: int, device: str, seconds: float
) -> DecodedBatch:
    """Combine the pixels of DALI and of the reference renderer, and zeros for failures."""
    shape = (len(batch.rows), side, side, 3)
    by_dali = [row.slot for row in batch.read if row.encoded is not None]
    by_reference = [row for row in batch.read if row.pixels is not None]
    if rendered is not None and len(by_dali) == len(batch.rows):
        pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        pixels.copy_(rendered)
    else:
        pixels = torch.zeros(shape, dtype=torch.uint8, device=device)
        if rendered is not None:
            pixels[torch.tensor(by_dali, device=device)] = rendered
    for row in by_reference:
        host = runtime.host_buffer((side, side, 3), torch.uint8, device)
        np.copyto(host.numpy(), row.pixels)  # type: ignore[arg-type]
        pixels[row.slot].copy_(host, non_blocking=True)
    return DecodedBatch(
        batch.rows,
        pixels,
        {row.slot: row.failure for row in batch.read if row.failure is not None},
        len(by_reference),
        sum(row.bytes_read for row in batch.read),
        seconds,
        sum(row.first_frame for row in batch.read),
    )
