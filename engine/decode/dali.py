"""NVIDIA DALI: one graph for the CPU and, with nvJPEG, for CUDA. The only module that imports it.

Files are read and checked ahead, in threads; DALI gets bytes and the sizes to make of them. What it does
not take goes to the reference renderer. One image that it fails on poisons its pipeline: the pipeline is
then built anew, and the images of that batch are tried one by one.
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

# DALI's own annotations lack most of what is used here.
backend: Any = nvidia.dali.backend
fn: Any = nvidia.dali.fn
types: Any = nvidia.dali.types
Pipeline: Any = nvidia.dali.pipeline.Pipeline

_SMALLER = "lower the batch (`embank embed --batch-size N`) and run it again; committed chunks are kept"
#: Batches inside DALI at a time: the one waited for and the next.
_DEPTH = 2
_INTERPOLATION = {"bicubic": types.INTERP_CUBIC, "bilinear": types.INTERP_LINEAR}


class DaliDecoder:
    """Decodes batches with DALI.

    Args:
        recipe: what to render.
        device: `cpu`, or `cuda:N` for nvJPEG there; the pixels stay on it.
        threads: of DALI, and of reading.
        batch_size: the most rows of a batch.
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
                self._graph.drop()  # it holds batches that nobody wants any more

    def close(self) -> None:
        """Give DALI's memory and threads back, and end idle child processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._graph.drop()
        if self._device.startswith("cuda"):  # its pools would keep the memory from torch
            with contextlib.suppress(RuntimeError):  # of a device that is lost; whoever met that has said so
                backend.ReleaseUnusedMemory()
        isolated_process.children.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self, source: ImageSource, row: int, slot: int) -> "_Row":
        size, start = 0, time.perf_counter()
        try:
            data = source.read(row)
            size = len(data)
            header = sniff(data, self._recipe, source.limits)
            to = plan(header.height, header.width, self._recipe)
            found = _Row(slot, size, _Encoded(data, header, to))
            if not header.plain or to.extreme or (self._recipe.exif and header.exif):
                found = self._by_reference(found)
        except BadImage as failure:
            found = _Row(slot, size, failure=failure.with_traceback(None))
        return replace(found, seconds=time.perf_counter() - start)

    def _by_reference(self, row: "_Row") -> "_Row":
        """The arbiter's verdict: pixels, or the reason why there are none."""
        assert row.encoded is not None
        try:
            pixels = pillow.render(row.encoded.data, row.encoded.header, self._recipe)
        except BadImage as failure:
            return replace(row, encoded=None, failure=failure.with_traceback(None))
        return replace(row, encoded=None, pixels=pixels, first_frame=row.encoded.header.frames > 1)

    def _next(self, pending: "deque[_Batch]") -> DecodedBatch:
        """Hand DALI what has been read, and take the first batch from it."""
        head = pending[0]
        head.wait_read()
        for batch in list(pending)[:_DEPTH]:
            if not batch.scheduled and all(future.done() for future in batch.reads):
                batch.wait_read()
                with _machine_faults():  # the first one builds the pipeline, and touches the device
                    self._graph.feed(batch.for_dali)
                batch.scheduled = True
            if not batch.scheduled:
                break
        try:
            rendered = self._graph.take() if head.for_dali else None
            done = self._assemble(head, rendered)
        except Exception as error:  # DALI's errors are of all classes
            _raise_machine_fault(error)
            for batch in pending:
                batch.scheduled = False
            self._graph.drop()
            done = self._one_by_one(head)
        pending.popleft()
        return done

    def _one_by_one(self, batch: "_Batch") -> DecodedBatch:
        """A batch that DALI failed on, row by row. Good rows still get DALI's pixels."""
        verdicts = []
        device_pixels = {}
        for row in batch.read:
            verdict = row
            if row.encoded is not None:
                try:
                    self._graph.feed([row.encoded])
                    device_pixels[row.slot] = self._graph.take()[0].clone()
                except Exception as error:  # DALI's errors are of all classes
                    _raise_machine_fault(error)
                    self._graph.drop()
                    verdict = self._by_reference(row)
            verdicts.append(verdict)
        batch.read = verdicts
        rendered = torch.stack(list(device_pixels.values())) if device_pixels else None
        return self._assemble(batch, rendered)

    def _assemble(self, batch: "_Batch", rendered: torch.Tensor | None) -> DecodedBatch:
        reading = sum(row.seconds for row in batch.read) / self._threads
        decoding = self._graph.seconds if rendered is not None else 0.0
        return _assemble(batch, rendered, self._recipe.side, self._device, reading + decoding)


@dataclass(frozen=True)
class _Encoded:
    """A file that DALI shall decode."""

    data: bytes
    header: Header
    to: Geometry


@dataclass(frozen=True)
class _Row:
    """A row that was read: something for DALI, or finished pixels, or a failure."""

    slot: int
    bytes_read: int
    encoded: _Encoded | None = None
    pixels: np.ndarray | None = None
    failure: BadImage | None = None
    seconds: float = 0.0
    first_frame: bool = False


@dataclass
class _Batch:
    """A batch on its way; `scheduled` once DALI has it."""

    rows: Sequence[int]
    reads: list[Future[_Row]]
    scheduled: bool = False
    read: list[_Row] = field(default_factory=list)

    def wait_read(self) -> None:
        if not self.read:
            self.read = [future.result() for future in self.reads]

    @property
    def for_dali(self) -> list[_Encoded]:
        return [row.encoded for row in self.read if row.encoded is not None]


class _Graph:
    """The DALI pipeline, built on first use and again after each `drop`."""

    def __init__(self, recipe: Recipe, device: str, threads: int, batch_size: int) -> None:
        self._recipe, self._device, self._threads, self._batch_size = recipe, device, threads, batch_size
        self._pipeline: Any = None
        self._clock = _Clock()

    @property
    def seconds(self) -> float:
        """What the batch last taken cost."""
        return self._clock.seconds

    def feed(self, images: list[_Encoded]) -> None:
        """Start on a batch; does not wait. An empty one is passed over."""
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
        """Wait for the oldest batch: uint8 [n, side, side, 3] on the device.

        On CUDA the memory is DALI's, and ordered on torch's current stream: copy it there before letting go.

        Raises:
            RuntimeError: DALI failed on one of the images; `drop` is due.
        """
        assert self._pipeline is not None
        with self._clock.taking():
            if not self._device.startswith("cuda"):
                return from_dlpack(self._pipeline.outputs()[0].as_tensor())
            # 1 is the handle of the legacy default stream, which torch calls 0.
            stream = runtime.current_stream_handle(self._device) or 1
            return from_dlpack(self._pipeline.outputs(cuda_stream=stream)[0].as_tensor())

    def drop(self) -> None:
        """Let go of the pipeline and whatever is in it."""
        self._pipeline = None
        self._clock = _Clock()

    def _built(self) -> Any:
        """A new pipeline. That there is none is no image's fault, whatever DALI says of it."""
        try:
            return self._build()
        except Exception as error:  # DALI's errors are of all classes
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
            exec_pipelined=False,  # else the first run asks for two batches at once
            exec_dynamic=True,
        )
        # hw_decoder_load: the hardware decoder takes a share of a batch by position, so that pixels would
        # depend on neighbours. affine: pinning threads to cores would fight with the threads that read.
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
    """How long DALI works on a batch. It starts on one when it has it and is done with the one before; when
    it ends shows only if somebody waits for it. Else the rate of the last batch waited for stands in.
    """

    #: A shorter wait says that the batch had been ready.
    _WAIT = 1e-3

    def __init__(self) -> None:
        self.seconds = 0.0
        self._fed: deque[tuple[int, float]] = deque()
        self._end, self._an_image = 0.0, float("inf")

    def fed(self, images: int) -> None:
        self._fed.append((images, time.perf_counter()))

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
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
    """Raise what means the machine, not an image: a fault of memory or device."""
    if isinstance(error, EmbankError):
        raise error
    # DALI's classes say nothing: it gives CUDA's errors as what its own C++ happened to throw.
    said = error if isinstance(error, MemoryError) else RuntimeError(str(error))
    if fault := faults.translate(said, _SMALLER):
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
    """Put DALI's pixels, the reference renderer's, and zeros for failures in their slots."""
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
