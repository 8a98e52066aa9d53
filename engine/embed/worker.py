"""Embedding chunks in one process: decode once, encode with every model that lacks the chunk, commit.

Batches are cut at fixed rows inside a chunk, so what the backbone sees, and therefore every bit it returns,
is a function of the manifest and the settings alone: not of kills, resumes, failed images in the same batch,
or of which process took which chunk.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import models
from engine.decode import make_decoder
from engine.decode.contents import Contents, Table
from engine.decode.protocol import DecodedBatch, Decoder
from engine.embed.options import EmbedOptions, image_source
from engine.embed.plan import ChunkTask, Setup, feature_key, refuse_other_key
from engine.embed.progress import Reporter, Tally
from engine.errors import BankError, OutOfMemory
from engine.executors import Local
from engine.models import ModelSpec
from engine.pipeline import StageClock, Stages
from engine.recipes import Recipe
from engine.runtime import (
    DeviceEvent,
    HostCopy,
    Runtime,
    Span,
    device_faults,
    fix_flags,
    peak_device_bytes,
    release_cached,
    side_stream,
)
from engine.runtime.resident import release_resident
from stores.bank.amend import amend_chunk
from stores.bank.commit import Committer
from stores.bank.contents import contents_of_bank
from stores.bank.keys import ChunkResult, Failure
from stores.bank.layout import FeatureLayout, images_key
from stores.bank.reader import Bank
from stores.json_types import JsonObject
from stores.manifest.manifest import Manifest

if TYPE_CHECKING:
    import torch

    from engine.models import Encoder


def decoder_of(recipe: Recipe, runtime: Runtime, options: EmbedOptions, batch_size: int) -> Decoder:
    """Make the decoder that the options mean on this machine."""
    return make_decoder(
        options.decoder,
        recipe,
        device=runtime.device,
        threads=runtime.threads,
        batch_size=batch_size,
        dct=options.dct,
    )


@dataclass(frozen=True)
class Ready:
    """Bank, manifest and encoders that a process has loaded before it begins to embed.

    Attributes:
        bank, manifest: opened and read; None: read them when they are needed.
        encoders: those that are loaded.
    """

    bank: Bank | None = None
    manifest: Manifest | None = None
    encoders: Mapping[ModelSpec, "Encoder"] = field(default_factory=dict)


def make_ready(specs: Sequence[ModelSpec], setup: Setup, batch_size: int) -> Local[Ready]:
    """Make the decoder of models that render alike, and read, fit and load their weights.

    Args:
        batch_size: images a forward pass.

    Returns:
        The encoders, for this process.

    Raises:
        Refused: this machine would make other features, or has not what it takes.
        ModelError, WeightsError: as `engine.models.load`.
    """
    fix_flags(setup.runtime)
    decoder = decoder_of(specs[0].recipe.rendering, setup.runtime, setup.options, batch_size)
    name = decoder.name
    decoder.close()
    for spec in specs:
        refuse_other_key(setup.key(spec, name), setup.key(spec))
    return Local(Ready(encoders={spec: models.load(spec, setup.runtime) for spec in specs}))


@dataclass(frozen=True)
class Work:
    """An executor's job: the small description from which a process can embed chunks of a bank.

    Attributes:
        root: folder that the manifest's relative paths start from.
        specs, layouts: of the models of one decode pass, which render alike, and of their features.
        here: what the process that plans has ready.
    """

    root: Path
    specs: tuple[ModelSpec, ...]
    layouts: tuple[FeatureLayout, ...]
    runtime: Runtime
    options: EmbedOptions
    here: Local[Ready] = field(default_factory=Local, compare=False)

    @property
    def rendering(self) -> Recipe:
        """The preprocessing that the models share."""
        return self.specs[0].recipe.rendering

    def bounds(self, chunk: int) -> tuple[int, int]:
        """Return the first row of a chunk and the row after its last."""
        return self.layouts[0].grid.bounds(chunk)

    def size(self, task: ChunkTask) -> int:
        """Return the number of rows of a task."""
        start, stop = self.bounds(task.chunk)
        return len(task.rows) or stop - start

    def open(self) -> "Resident":
        """Make the decoder ready, and find the images. Raises as `Resident`."""
        return Resident(self)

    def inputs(self) -> tuple[Bank, Manifest]:
        """Return the bank and its images, read here unless this process has them already.

        Raises:
            BankError: the bank holds other images here than where the work was planned.
        """
        ready, layout = self.here.value or Ready(), self.layouts[0]
        bank = ready.bank or Bank.open(layout.root)
        if ready.manifest is not None:
            return bank, ready.manifest
        if not bank.holds(layout):
            raise BankError(
                f"{bank.path} holds images {bank.image_digest[:12]} here, not those of {layout.name}",
                "All processes of a run see the same bank at the same path",
                "mount the same file system on all machines",
            )
        return bank, replace(bank.manifest(), root=self.root)


#: Callback for the result of a task for one model: the model's position, the chunk, the task.
Commit = Callable[[int, ChunkResult, ChunkTask], None]


@dataclass(frozen=True)
class _Decoded:
    """A decoded batch on its way to the encoders."""

    task: ChunkTask
    batch: DecodedBatch
    ready: DeviceEvent


@dataclass(frozen=True)
class _Encoded:
    """An encoded batch on its way to the bank; `spans` are of each model's encoder, `span` is of all."""

    task: ChunkTask
    batch: DecodedBatch
    copies: dict[int, HostCopy]
    span: Span
    spans: dict[int, Span]


#: Advice on how embedding needs less memory.
_SMALLER = "lower the batch (`embank embed --batch-size N`) and run it again; committed chunks are kept"


class Resident:
    """The decoder and the encoders of one piece of work, made ready once and kept for many chunks.

    Args:
        commit: what to do with chunks; None commits them to the bank.

    Raises:
        Refused, BankError: this machine makes other features than the layouts are of.
    """

    def __init__(self, work: Work, commit: Commit | None = None) -> None:
        bank, manifest = work.inputs()
        self._flags = fix_flags(work.runtime)
        self.work, self._commit = work, commit or _committing(work)
        self.batch_size = work.options.batch_for(work.runtime, work.layouts[0].grid.chunk_rows)
        self._halved = False
        self.decoder = decoder_of(work.rendering, work.runtime, work.options, self.batch_size)
        loaded = (work.here.value or Ready()).encoders
        self._encoders = {i: loaded[spec] for i, spec in enumerate(work.specs) if spec in loaded}
        self._refuse_other_keys(manifest)
        self.contents = Contents(contents_of_bank(bank, work.layouts[0].image_set, pass_damaged=True))
        self.source = image_source(manifest, work.options, self.contents)

    def _refuse_other_keys(self, manifest: Manifest) -> None:
        runtime, dtype = self.work.runtime, self.work.options.dtype
        for spec, layout in zip(self.work.specs, self.work.layouts, strict=True):
            images = images_key(manifest.image_digest, layout.image_set)
            refuse_other_key(feature_key(spec, self.decoder.name, runtime, images, dtype), layout.key)

    def encoder(self, i: int) -> "Encoder":
        """Return the encoder of the i-th model, loaded at its first use."""
        if i not in self._encoders:
            with device_faults():
                self._encoders[i] = models.load(self.work.specs[i], self.work.runtime)
        return self._encoders[i]

    def describe(self) -> dict[int, JsonObject]:
        """Describe how each encoder that was used computes, and the peak of device memory."""
        peak = peak_device_bytes(self.work.runtime.device)
        return {
            i: {**encoder.describe(), "flags": {**self._flags}, "peak_device_bytes": peak}
            for i, encoder in self._encoders.items()
        }

    def run(self, tasks: Sequence[ChunkTask], report: Callable[[Tally], None], /) -> None:
        """Decode, encode and commit chunks, the three overlapped.

        Where a batch does not fit into memory, its size is halved, once in the life of this object, and the
        chunks that are not committed are done again from their first row. On the CPU that changes no bit; on
        CUDA it may, so the tally says how many rows were encoded with which size.

        Args:
            tasks: in order of chunks.
            report: gets what each batch adds to the tally, from the committing thread.

        Raises:
            OutOfMemory: half a batch does not fit either.
            MachineFault: disk full, device lost; committed chunks are kept.
        """
        with device_faults():
            encoders = {i: self.encoder(i) for task in tasks for i in task.models}
        reporter = Reporter(report)
        left = self._attempt(tasks, encoders, reporter)
        if left:
            self._halve()
            self._attempt(left, encoders, reporter)
        reporter.tally.encoders = self.describe()
        reporter.send()

    def _attempt(
        self, tasks: Sequence[ChunkTask], encoders: Mapping[int, "Encoder"], reporter: Reporter
    ) -> list[ChunkTask]:
        """Do chunks; return those that did not fit into memory, if smaller batches can be tried."""
        attempt = _Attempt(self, tasks, encoders, reporter)
        left: list[ChunkTask] = []
        try:
            with device_faults(_SMALLER):  # in whichever of the three stages it occurred
                attempt.run(self._commit)
        except OutOfMemory:
            if self._halved or self.batch_size == 1:
                raise
            left = [task for task in tasks if task not in attempt.done]
        for task in tasks:
            count = attempt.counts[task]
            if task in left:  # its finished part is computed again
                reporter.tally.rows -= count.rows
                reporter.tally.failed -= count.failed
            else:
                reporter.tally.batch_sizes[self.batch_size] += count.rows
        return left

    def _halve(self) -> None:
        """Halve the batch size from now on, and free the memory of the failed batch."""
        self._halved = True
        self.batch_size //= 2
        self.decoder.close()
        self.decoder = decoder_of(self.work.rendering, self.work.runtime, self.work.options, self.batch_size)
        gc.collect()  # the failed pass and its error refer to each other
        release_resident(self.work.runtime.device)
        release_cached(self.work.runtime.device)

    def batches(self, task: ChunkTask) -> Iterator[Sequence[int]]:
        """Cut the rows of a task into batches."""
        rows = task.rows or range(*self.work.bounds(task.chunk))
        for first in range(0, len(rows), self.batch_size):
            yield rows[first : first + self.batch_size]

    def fixed_shape(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """Pad a chunk's last batch where the device's arithmetic may depend on the batch size."""
        return pad_batch(pixels, self.batch_size, self.work.runtime)

    def close(self) -> None:
        """Release the decoder."""
        self.decoder.close()


def pad_batch(pixels: "torch.Tensor", size: int, runtime: Runtime) -> "torch.Tensor":
    """Pad a batch with black images to `size` where the arithmetic may depend on it: CUDA, compiled code.

    Args:
        pixels: uint8 [B, S, S, 3], B <= size.
    """
    missing = size - pixels.shape[0]
    if missing == 0 or not (runtime.on_cuda or runtime.compile):
        return pixels
    import torch

    return torch.cat([pixels, pixels.new_zeros((missing, *pixels.shape[1:]))])


class _Attempt:
    """One pass over chunks with batches of one size.

    Attributes:
        counts: what of the tally belongs to each task.
        done: the tasks that have been handed over.
    """

    def __init__(
        self,
        resident: Resident,
        tasks: Sequence[ChunkTask],
        encoders: Mapping[int, "Encoder"],
        reporter: Reporter,
    ) -> None:
        self._resident, self._tasks, self._encoders, self._reporter = resident, tasks, encoders, reporter
        self._device = resident.work.runtime.device
        self._stages: Stages[_Decoded, _Encoded] = Stages(reporter.tally.stages)
        self.counts = {task: Tally() for task in tasks}
        self.done: set[ChunkTask] = set()

    def run(self, commit: Commit) -> None:
        """Decode, encode and commit; returns when all is done."""
        resident = self._resident
        self._collector = _Collector(resident.work, self._reporter.tally, resident.contents.read, commit)
        self._stages.run(self._decode, self._encode, self._collect)

    def _decode(self) -> Iterator[_Decoded]:
        resident, clock = self._resident, self._stages.first
        plan = [(task, rows) for task in self._tasks for rows in resident.batches(task)]
        with side_stream(self._device):
            stream = resident.decoder.stream(resident.source, [rows for _, rows in plan])
            for task, _ in plan:
                batch = next(stream)
                clock.busy_s += batch.seconds
                clock.images += len(batch.rows)
                yield _Decoded(task, batch, DeviceEvent(self._device))

    def _encode(self, decoded: _Decoded) -> _Encoded:
        task, batch = decoded.task, decoded.batch
        decoded.ready.make_current_stream_wait(batch.pixels)
        span = Span(self._device)
        pixels = self._resident.fixed_shape(batch.pixels)
        copies, spans = {}, {}
        for i in task.models:
            spans[i] = Span(self._device)
            features = self._encoders[i](pixels)
            spans[i].stop()
            copies[i] = HostCopy(features[: len(batch.rows)])
        span.stop()
        self._stages.second.images += len(batch.rows)
        return _Encoded(task, batch, copies, span, spans)

    def _collect(self, encoded: _Encoded) -> None:
        tally, count = self._reporter.tally, self.counts[encoded.task]
        rows, failed = tally.rows, tally.failed
        try:
            self._collector.add(encoded)
        finally:
            count.rows += tally.rows - rows
            count.failed += tally.failed - failed
        if count.rows == self._resident.work.size(encoded.task):
            self.done.add(encoded.task)
        self._reporter.send()


class _Collector:
    """A collector of encoded batches that commits each chunk when its last row has arrived."""

    def __init__(self, work: Work, tally: Tally, contents: Table, commit: Commit) -> None:
        self._work, self._tally, self._contents, self._hand_over = work, tally, contents, commit
        self._open: dict[int, np.ndarray] = {}
        self._failures: list[Failure] = []
        self._filled = 0

    def add(self, encoded: _Encoded) -> None:
        _, encoding, committing = self._tally.stages
        arrays = {i: copy.wait().numpy() for i, copy in encoded.copies.items()}
        encoding.busy_s += encoded.span.seconds
        for i, span in encoded.spans.items():
            own = self._tally.encoding.setdefault(i, StageClock())
            own.images += len(encoded.batch.rows)
            own.busy_s += span.seconds_passed
        clock = time.perf_counter()
        start, stop = self._work.bounds(encoded.task.chunk)
        for i, array in arrays.items():
            if i not in self._open:
                self._open[i] = np.zeros((stop - start, array.shape[1]), np.float32)
            self._open[i][np.asarray(encoded.batch.rows) - start] = array
        self._failures += [
            Failure(encoded.batch.rows[slot], bad.code, bad.detail, bad.pending)
            for slot, bad in encoded.batch.failures.items()
        ]
        self._filled += len(encoded.batch.rows)
        self._tally.rows += len(encoded.batch.rows)
        self._tally.failed += len(encoded.batch.failures)
        self._tally.first_frames += encoded.batch.first_frames
        committing.images += len(encoded.batch.rows)
        if self._filled == (len(encoded.task.rows) or stop - start):
            self._commit(encoded.task, start, stop)
        committing.busy_s += time.perf_counter() - clock

    def _commit(self, task: ChunkTask, start: int, stop: int) -> None:
        ok = np.ones(stop - start, bool)
        ok[[f.row - start for f in self._failures]] = False
        content, failures = self._contents[start:stop].copy(), tuple(self._failures)
        for i, embedding in self._open.items():
            self._hand_over(i, ChunkResult(task.chunk, embedding, ok, failures, content), task)
        self._open, self._failures, self._filled = {}, [], 0


def _committing(work: Work) -> Commit:
    """Return a function that commits to the bank: whole chunks, or rows tried again in their chunks."""
    committers = [Committer(layout) for layout in work.layouts]

    def commit(model: int, result: ChunkResult, task: ChunkTask) -> None:
        if task.rows:
            amend_chunk(work.layouts[model], result, task.rows)
        else:
            committers[model].commit(result)

    return commit
