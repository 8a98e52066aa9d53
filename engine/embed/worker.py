"""Embedding chunks in one process: decode once, encode with every model that lacks the chunk, commit.

Batches are cut at fixed rows inside a chunk, so what the backbone sees, and therefore every bit it returns,
is a function of the manifest and the settings alone: never of kills, resumes, bad neighbours, or of which
process took which chunk.
"""

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import models
from engine.decode import make_decoder
from engine.decode.contents import Contents, Table
from engine.decode.protocol import DecodedBatch, Decoder
from engine.decode.source import ImageSource, Limits
from engine.errors import BankError, OutOfMemory, Refused
from engine.models import ModelSpec
from engine.pipeline import PROGRESS_EVERY_S, Clocks, Progress, Stages, new_clocks
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
from stores.bank.amend import amend_chunk
from stores.bank.commit import Committer
from stores.bank.contents import contents_of_bank
from stores.bank.keys import ChunkResult, Failure, FeatureKey
from stores.bank.layout import FeatureLayout, images_key
from stores.bank.reader import Bank
from stores.limits import check_whole
from stores.manifest.manifest import Manifest

if TYPE_CHECKING:
    import torch


#: Images a forward pass, and rows a chunk, at most; the bank has the latter limit too.
MAX_BATCH, MAX_CHUNK_ROWS = 65_536, 1 << 20


@dataclass(frozen=True)
class EmbedOptions:
    """How to embed; every field but the first three leaves the features unchanged.

    Attributes:
        decoder: `auto`, `dali`, `turbo` or `reference`.
        dct: let the JPEG decoder scale (turbo only): faster on large files, within 0.5/255 on average.
        dtype: of the stored embeddings, `float16` or `float32`.
        batch_size: images a forward pass; None takes 256 on CUDA and 32 on the CPU.
        chunk_rows: rows a chunk of a new bank; None lets the bank choose.
        limits: largest image accepted.
        allow_outside: whether links may lead out of the manifest's root.
    """

    decoder: str = "auto"
    dct: bool = False
    dtype: str = "float16"
    batch_size: int | None = None
    chunk_rows: int | None = None
    limits: Limits = field(default_factory=Limits)
    allow_outside: bool = False

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            check_whole("batch_size", self.batch_size, 1, MAX_BATCH)
        if self.chunk_rows is not None:
            check_whole(
                "chunk_rows", self.chunk_rows, 1, MAX_CHUNK_ROWS, "leave `embank embed --chunk-rows` out"
            )

    def batch_for(self, runtime: Runtime, chunk_rows: int) -> int:
        """Images a forward pass. Batches do not cross chunks, so a larger one would be padding on CUDA."""
        return min(self.batch_size or (256 if runtime.on_cuda else 32), chunk_rows)


def image_source(manifest: Manifest, options: EmbedOptions, contents: Contents | None = None) -> ImageSource:
    """The manifest's files as the decoders read them, compared with `contents`."""
    return ImageSource(
        root=manifest.root,
        uris=manifest.uris,
        sha256=manifest.sha256s,
        limits=options.limits,
        allow_outside=options.allow_outside,
        contents=contents,
    )


def feature_key(spec: ModelSpec, decoder: str, runtime: Runtime, images: str, dtype: str) -> FeatureKey:
    """The key under which a model's features are stored: everything their values depend on."""
    return FeatureKey(
        model=spec.slug,
        weights=spec.weights_sha256,
        architecture=spec.architecture,
        recipe=spec.recipe.key_digest,
        precision=runtime.numerics,
        decoder=decoder,
        layer=spec.layer,
        images=images,
        dtype=dtype,
    )


def refuse_other_key(made: FeatureKey, wanted: FeatureKey) -> None:
    """Refuse to make other features than those wanted. Raises Refused."""
    if made != wanted:
        raise Refused(
            f"This machine would make {made.name} (decoder {made.decoder}, precision {made.precision}), "
            f"not {wanted.name}",
            "All processes of a run make the same features",
            "name both (`embank embed --decoder NAME --precision NAME`), and install the same packages on "
            "all machines",
        )


def decoder_of(recipe: Recipe, runtime: Runtime, options: EmbedOptions, batch_size: int) -> Decoder:
    """The decoder that the options mean on this machine."""
    return make_decoder(
        options.decoder,
        recipe,
        device=runtime.device,
        threads=runtime.threads,
        batch_size=batch_size,
        dct=options.dct,
    )


@dataclass(frozen=True)
class Work:
    """All that a process must know to embed chunks of a bank: small, and pickled with each task.

    Attributes:
        root: folder that the manifest's relative paths start from.
        specs, layouts: of the models of one decode pass, which render alike, and of their features.
    """

    root: Path
    specs: tuple[ModelSpec, ...]
    layouts: tuple[FeatureLayout, ...]
    runtime: Runtime
    options: EmbedOptions

    @property
    def rendering(self) -> Recipe:
        return self.specs[0].recipe.rendering

    def bounds(self, chunk: int) -> tuple[int, int]:
        return self.layouts[0].grid.bounds(chunk)

    def size(self, task: "Task") -> int:
        """Rows of a task."""
        start, stop = self.bounds(task.chunk)
        return len(task.rows) or stop - start


@dataclass(frozen=True)
class Task:
    """Something to do in one chunk.

    Attributes:
        models: positions of those that need it.
        rows: to be tried again, in a chunk that is committed; empty if the whole chunk is lacking.
    """

    chunk: int
    models: tuple[int, ...]
    rows: tuple[int, ...] = ()


#: Takes what became of a task for one model: its position, the chunk, the task.
Commit = Callable[[int, ChunkResult, Task], None]


@dataclass(frozen=True)
class _Step:
    """One encoded batch on its way to the bank."""

    task: Task
    batch: DecodedBatch
    copies: dict[int, HostCopy]
    span: Span


@dataclass
class Tally:
    """Count what has been done so far.

    Attributes:
        rows, failed: images done, and how many of them have no embedding.
        stages: clocks of the three stages.
        batch_sizes: images encoded in batches of each size.
        first_frames: images that are the first of several frames in their file (GIF).
    """

    rows: int = 0
    failed: int = 0
    first_frames: int = 0
    stages: Clocks = field(default_factory=new_clocks)
    batch_sizes: Counter[int] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Add another process's tally; clocks add up over processes."""
        self.rows += other.rows
        self.failed += other.failed
        self.first_frames += other.first_frames
        self.batch_sizes.update(other.batch_sizes)
        for mine, theirs in zip(self.stages, other.stages, strict=True):
            mine.images += theirs.images
            mine.busy_s += theirs.busy_s
            mine.starved_s += theirs.starved_s
            mine.blocked_s += theirs.blocked_s


class Watch:
    """Turns a tally into calls of the progress callback, not too many.

    Args:
        whole: images that count, those included that are done already; None is those of the tasks.
    """

    def __init__(
        self,
        work: Work,
        tasks: Sequence[Task],
        tally: Tally,
        callback: Callable[[Progress], None] | None,
        whole: int | None = None,
    ) -> None:
        self._models = tuple(spec.slug for spec in work.specs)
        self._total = sum(map(work.size, tasks))
        self._before = 0 if whole is None else max(whole - self._total, 0)
        self._tally, self._callback = tally, callback
        self._started, self._last = time.perf_counter(), 0.0

    def look(self) -> None:
        now = time.perf_counter()
        if not self._callback or (now - self._last < PROGRESS_EVERY_S and self._tally.rows < self._total):
            return
        self._last = now
        before, failed, seconds = self._before, self._tally.failed, now - self._started
        done, total = before + self._tally.rows, before + self._total
        self._callback(Progress(self._models, done, total, failed, seconds, *self._tally.stages, before))


#: What makes embedding need less memory.
_SMALLER = "lower the batch (`embank embed --batch-size N`) and run it again; committed chunks are kept"


class Resident:
    """The decoder and the encoders of one piece of work, made ready once and kept for many chunks.

    Args:
        encoders: those that are ready already.
        commit: what to do with chunks; None commits them to the bank.

    Raises:
        Refused, BankError: this machine makes other features than the layouts are of.
    """

    def __init__(
        self,
        work: Work,
        manifest: Manifest,
        encoders: Mapping[ModelSpec, Any] | None = None,
        commit: Commit | None = None,
    ) -> None:
        self._flags = fix_flags(work.runtime)
        self.work, self._commit = work, commit or _committing(work)
        self.batch_size = work.options.batch_for(work.runtime, work.layouts[0].grid.chunk_rows)
        self._halved = False
        self.decoder = decoder_of(work.rendering, work.runtime, work.options, self.batch_size)
        ready = encoders or {}
        self._encoders: dict[int, Any] = {i: ready[s] for i, s in enumerate(work.specs) if s in ready}
        self._check(manifest)
        layout = work.layouts[0]
        expected = contents_of_bank(Bank.open(layout.root), layout.image_set, pass_damaged=True)
        self._contents = Contents(expected)
        self._source = image_source(manifest, work.options, self._contents)

    def _check(self, manifest: Manifest) -> None:
        runtime, dtype = self.work.runtime, self.work.options.dtype
        for spec, layout in zip(self.work.specs, self.work.layouts, strict=True):
            images = images_key(manifest.image_digest, layout.image_set)
            made = feature_key(spec, self.decoder.name, runtime, images, dtype)
            refuse_other_key(made, layout.key)

    def encoder(self, i: int) -> Any:
        """Encoder of the i-th model, loaded at its first use."""
        if i not in self._encoders:
            with device_faults():
                self._encoders[i] = models.load(self.work.specs[i], self.work.runtime)
        return self._encoders[i]

    def describe(self) -> dict[int, dict[str, Any]]:
        """How each encoder that was used computes; the flags of the process and its peak of device memory."""
        here = {"flags": self._flags, "peak_device_bytes": peak_device_bytes(self.work.runtime.device)}
        return {i: {**encoder.describe(), **here} for i, encoder in self._encoders.items()}

    def run(self, tasks: Sequence[Task], tally: Tally, on_batch: Callable[[], None] = lambda: None) -> None:
        """Decode, encode and commit chunks, the three overlapped.

        Where a batch does not fit into memory, its size is halved, once in the life of this object, and the
        chunks that are not committed are done again from their first row. On the CPU that changes no bit; on
        CUDA it may, so the tally says how many rows were encoded with which size.

        Args:
            tasks: in order of chunks.
            tally: counts up while the run is on.
            on_batch: called after each batch, from the committing thread.

        Raises:
            OutOfMemory: half a batch does not fit either.
            MachineFault: disk full, device lost; committed chunks are kept.
        """
        with device_faults():
            encoders = {i: self.encoder(i) for task in tasks for i in task.models}
        left = self._attempt(tasks, encoders, tally, on_batch)
        if left:
            self._halve()
            self._attempt(left, encoders, tally, on_batch)

    def _attempt(
        self, tasks: Sequence[Task], encoders: dict[int, Any], tally: Tally, on_batch: Callable[[], None]
    ) -> list[Task]:
        """Do chunks; return those for which the memory did not suffice, if less may be tried at a time."""
        counts = {task: Tally() for task in tasks}
        done: set[Task] = set()
        left: list[Task] = []
        try:
            self._overlapped(tasks, encoders, tally, counts, done, on_batch)
        except OutOfMemory:
            if self._halved or self.batch_size == 1:
                raise
            left = [task for task in tasks if task not in done]
        for task in tasks:
            count = counts[task]
            if task in left:  # what was done of it is done again
                tally.rows -= count.rows
                tally.failed -= count.failed
            else:
                tally.batch_sizes[self.batch_size] += count.rows
        return left

    def _halve(self) -> None:
        """Take half a batch at a time from now on, and give back what the failed one held."""
        self._halved = True
        self.batch_size //= 2
        self.decoder.close()
        self.decoder = decoder_of(self.work.rendering, self.work.runtime, self.work.options, self.batch_size)
        gc.collect()  # the failed pass and its error hold each other
        release_cached(self.work.runtime.device)

    def _overlapped(
        self,
        tasks: Sequence[Task],
        encoders: dict[int, Any],
        tally: Tally,
        counts: dict[Task, Tally],
        done: set[Task],
        on_batch: Callable[[], None],
    ) -> None:
        """One pass over `tasks`; `counts` takes what of the tally is of which, `done` those handed over."""
        stages: Stages[tuple[Task, DecodedBatch, DeviceEvent], _Step] = Stages(tally.stages)
        plan = [(task, rows) for task in tasks for rows in self._batches(task)]
        collector = _Collector(self.work, tally, self._contents.read, self._commit)

        def decode() -> Iterator[tuple[Task, DecodedBatch, DeviceEvent]]:
            with side_stream(self.work.runtime.device):
                stream = self.decoder.stream(self._source, [rows for _, rows in plan])
                for task, _ in plan:
                    batch = next(stream)
                    stages.first.busy_s += batch.seconds
                    stages.first.images += len(batch.rows)
                    yield task, batch, DeviceEvent(self.work.runtime.device)

        def encode(item: tuple[Task, DecodedBatch, DeviceEvent]) -> _Step:
            task, batch, ready = item
            ready.make_current_stream_wait(batch.pixels)
            span = Span(self.work.runtime.device)
            pixels = self._fixed_shape(batch.pixels)
            copies = {i: HostCopy(encoders[i](pixels)[: len(batch.rows)]) for i in task.models}
            span.stop()
            stages.second.images += len(batch.rows)
            return _Step(task, batch, copies, span)

        def commit(step: _Step) -> None:
            rows, failed = tally.rows, tally.failed
            try:
                collector.add(step)
            finally:
                counts[step.task].rows += tally.rows - rows
                counts[step.task].failed += tally.failed - failed
            if counts[step.task].rows == self.work.size(step.task):
                done.add(step.task)
            on_batch()

        with device_faults(_SMALLER):  # whichever of the three stages met it
            stages.run(decode, encode, commit)

    def _batches(self, task: Task) -> Iterator[Sequence[int]]:
        rows = task.rows or range(*self.work.bounds(task.chunk))
        for first in range(0, len(rows), self.batch_size):
            yield rows[first : first + self.batch_size]

    def _fixed_shape(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """Pad a chunk's last batch where the device's arithmetic may depend on the batch size."""
        missing = self.batch_size - pixels.shape[0]
        if missing == 0 or not (self.work.runtime.on_cuda or self.work.runtime.compile):
            return pixels
        import torch

        return torch.cat([pixels, pixels.new_zeros((missing, *pixels.shape[1:]))])

    def close(self) -> None:
        self.decoder.close()


class _Collector:
    """Gathers encoded batches into chunks and commits each when its last row has come."""

    def __init__(self, work: Work, tally: Tally, contents: Table, commit: Commit) -> None:
        self._work, self._tally, self._contents, self._hand_over = work, tally, contents, commit
        self._open: dict[int, np.ndarray] = {}
        self._failures: list[Failure] = []
        self._filled = 0

    def add(self, step: _Step) -> None:
        _, encoding, committing = self._tally.stages
        arrays = {i: copy.wait().numpy() for i, copy in step.copies.items()}
        encoding.busy_s += step.span.seconds
        clock = time.perf_counter()
        start, stop = self._work.bounds(step.task.chunk)
        for i, array in arrays.items():
            if i not in self._open:
                self._open[i] = np.zeros((stop - start, array.shape[1]), np.float32)
            self._open[i][np.asarray(step.batch.rows) - start] = array
        self._failures += [
            Failure(step.batch.rows[slot], bad.code, bad.detail, bad.pending)
            for slot, bad in step.batch.failures.items()
        ]
        self._filled += len(step.batch.rows)
        self._tally.rows += len(step.batch.rows)
        self._tally.failed += len(step.batch.failures)
        self._tally.first_frames += step.batch.first_frames
        committing.images += len(step.batch.rows)
        if self._filled == (len(step.task.rows) or stop - start):
            self._commit(step.task, start, stop)
        committing.busy_s += time.perf_counter() - clock

    def _commit(self, task: Task, start: int, stop: int) -> None:
        ok = np.ones(stop - start, bool)
        ok[[f.row - start for f in self._failures]] = False
        content, failures = self._contents[start:stop].copy(), tuple(self._failures)
        for i, embedding in self._open.items():
            self._hand_over(i, ChunkResult(task.chunk, embedding, ok, failures, content), task)
        self._open, self._failures, self._filled = {}, [], 0


def _committing(work: Work) -> Commit:
    """Commit to the bank: whole chunks exclusively, rows tried again in place of those without embedding."""
    committers = [Committer(layout) for layout in work.layouts]

    def commit(model: int, result: ChunkResult, task: Task) -> None:
        if task.rows:
            amend_chunk(work.layouts[model], result, task.rows)
        else:
            committers[model].commit(result)

    return commit


_turn = threading.Lock()
_resident: Resident | None = None


def embed_chunk(work: Work, task: Task) -> tuple[Tally, dict[int, dict[str, Any]]]:
    """Embed one chunk in a worker process, which keeps decoder and encoders for the next ones.

    One chunk at a time, whatever the number of threads that the worker was given: the stages have their own.

    Returns:
        What was done, and how the encoders compute (`Resident.describe`).
    """
    global _resident
    with _turn:
        if _resident is None or _resident.work != work:
            if _resident is not None:  # one model resident a worker
                _resident.close()
                _resident = None
            _resident = Resident(work, _manifest(work))
        tally = Tally()
        try:
            _resident.run([task], tally)
        except BaseException:
            _resident = None  # a decoder that was interrupted is not used again
            raise
        return tally, _resident.describe()


def _manifest(work: Work) -> Manifest:
    bank, layout = Bank.open(work.layouts[0].root), work.layouts[0]
    if not bank.holds(layout):
        raise BankError(
            f"{bank.path} holds images {bank.image_digest[:12]} here, not those of {layout.name}",
            "All processes of a run see the same bank at the same path",
            "mount the same file system on all machines",
        )
    return replace(bank.manifest(), root=work.root)
