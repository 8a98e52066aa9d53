"""The main job: images in, a bank of embeddings out.

Models whose recipes render alike share one decode pass. Work is planned in whole chunks; inside a chunk
the batches are cut at fixed rows, so what the backbone sees, and therefore every bit it returns, is a
function of the manifest and the settings alone, never of kills, resumes or bad neighbours.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import provenance
from engine.decode import make_decoder
from engine.decode.protocol import DecodedBatch, Decoder
from engine.decode.source import ImageSource, Limits
from engine.errors import BankError
from engine.models import ModelSpec, load, resolve
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
    side_stream,
)
from stores.manifest import Manifest
from stores.read import Bank
from stores.records import RunRecord
from stores.schema import ChunkResult, Failure, FeatureKey
from stores.write import FeatureWriter, open_or_create

if TYPE_CHECKING:
    import torch

#: Seconds between two calls of the progress callback.
PROGRESS_EVERY_S = 0.25


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

    def batch_for(self, runtime: Runtime, chunk_rows: int) -> int:
        """Images a forward pass. Batches do not cross chunks, so a larger one would be padding on CUDA."""
        return min(self.batch_size or (256 if runtime.on_cuda else 32), chunk_rows)


@dataclass(frozen=True)
class Progress:
    """A look at a running pass: rows done of rows to do, failures so far, and the three stages' clocks."""

    models: tuple[str, ...]
    done: int
    total: int
    failed: int
    seconds: float
    decode: StageClock
    encode: StageClock
    commit: StageClock

    @property
    def img_per_s(self) -> float:
        return self.done / self.seconds if self.seconds > 0 else float("nan")

    @property
    def seconds_left(self) -> float:
        return (self.total - self.done) / self.img_per_s if self.done else float("nan")


@dataclass(frozen=True)
class EmbedReport:
    """What one model's pass did.

    Attributes:
        rows, ok, failed: of the whole feature set, earlier runs included.
        embedded: rows embedded by this run; 0 when the bank already held all of them.
        seconds: wall seconds of this run's pass (shared by the models of one pass).
        stages: clock of each stage, `decode`, `encode`, `commit`.
        failures: code -> number of rows.
    """

    bank: str
    key: str
    model: str
    rows: int
    ok: int
    failed: int
    embedded: int
    seconds: float
    img_per_s: float
    stages: dict[str, Any]
    failures: dict[str, int]
    decoder: str
    precision: str
    device: str

    def to_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def embed(
    manifest: Manifest,
    models: Sequence[str | ModelSpec],
    bank: Path | str,
    *,
    runtime: Runtime | None = None,
    options: EmbedOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[EmbedReport]:
    """Embed every image of a manifest with every model and commit the result to a bank.

    What the bank already holds under the same FeatureKey is not computed again: calling this after a crash
    resumes, calling it on a finished bank only checks and seals.

    Args:
        manifest: the images.
        models: slugs or resolved specifications.
        bank: directory of the bank; made if absent.

    Returns:
        One report a model, in the order given.

    Raises:
        Refused: a request that cannot be carried out; nothing was changed.
        MachineFault: disk full, device lost; committed chunks are kept.
    """
    runtime = runtime or Runtime.resolve()
    options = options or EmbedOptions()
    specs = [resolve(m) if isinstance(m, str) else m for m in models]
    store = open_or_create(Path(bank), manifest, chunk_rows=options.chunk_rows)
    _check_labels(store, manifest)
    flags = fix_flags(runtime)
    reports: dict[int, EmbedReport] = {}
    for group in _by_rendering(specs):
        decoder = make_decoder(
            options.decoder,
            specs[group[0]].recipe.rendering,
            device=runtime.device,
            threads=runtime.threads,
            batch_size=options.batch_for(runtime, store.chunk_rows),
            dct=options.dct,
        )
        try:
            job = _Pass(store, manifest, [specs[i] for i in group], decoder, runtime, options, flags)
            reports.update(zip(group, job.run(on_progress), strict=True))
        finally:
            decoder.close()
    return [reports[i] for i in range(len(specs))]


def _check_labels(bank: Bank, manifest: Manifest) -> None:
    """Refuse a manifest of the same images with other labels: the bank would go on evaluating its own."""
    if bank.manifest_digest != manifest.digest:
        raise BankError(
            f"{bank.path} was made with other labels, splits or groups "
            f"(manifest digest {bank.manifest_digest[:12]}; this one is {manifest.digest[:12]})",
            "A bank evaluates the labels it was made with",
            f"embed {bank.path / 'manifest.parquet'} instead, or choose another bank",
        )


def feature_key(spec: ModelSpec, decoder: str, runtime: Runtime, images: str, dtype: str) -> FeatureKey:
    """The key under which a model's features are stored: everything their values depend on."""
    return FeatureKey(
        model=spec.slug,
        weights=spec.weights_sha256,
        architecture=spec.architecture,
        recipe=spec.recipe.digest,
        precision=runtime.numerics,
        decoder=decoder,
        layer=spec.layer,
        images=images,
        dtype=dtype,
    )


def image_source(manifest: Manifest, options: EmbedOptions) -> ImageSource:
    """The manifest's files as the decoders read them."""
    return ImageSource(
        root=manifest.root,
        uris=manifest.uris,
        sha256=manifest.sha256s,
        limits=options.limits,
        allow_outside=options.allow_outside,
    )


def _by_rendering(specs: Sequence[ModelSpec]) -> list[list[int]]:
    groups: dict[Recipe, list[int]] = {}
    for i, spec in enumerate(specs):
        groups.setdefault(spec.recipe.rendering, []).append(i)
    return list(groups.values())


@dataclass(frozen=True)
class _Step:
    """One encoded batch on its way to the bank."""

    chunk: int
    batch: DecodedBatch
    copies: dict[int, HostCopy]
    span: Span


class _Pass:
    """One decode pass over the images, feeding one or more models."""

    def __init__(
        self,
        bank: Bank,
        manifest: Manifest,
        specs: Sequence[ModelSpec],
        decoder: Decoder,
        runtime: Runtime,
        options: EmbedOptions,
        flags: dict[str, Any],
    ) -> None:
        self.bank, self.specs, self.decoder = bank, specs, decoder
        self.runtime, self.options, self.flags = runtime, options, flags
        self.manifest, self.source = manifest, image_source(manifest, options)
        self.batch_size = options.batch_for(runtime, bank.chunk_rows)
        self.keys = [
            feature_key(s, decoder.name, runtime, manifest.image_digest, options.dtype) for s in specs
        ]

    def run(self, on_progress: Callable[[Progress], None] | None) -> list[EmbedReport]:
        writers: list[FeatureWriter] = []
        start = time.perf_counter()
        try:
            for spec, key in zip(self.specs, self.keys, strict=True):
                writers.append(FeatureWriter(self.bank, key, spec.dim).__enter__())
            todo = [set(w.todo) for w in writers]
            stages: Stages[tuple[int, DecodedBatch, DeviceEvent], _Step] = Stages()
            described: dict[int, dict[str, Any]] = {}
            if any(todo):
                described = self._stream(writers, todo, stages, on_progress, start)
            seconds = time.perf_counter() - start
            return [
                self._finish(writers[i], i, todo[i], stages, seconds, described.get(i, {}))
                for i in range(len(writers))
            ]
        finally:
            for writer in writers:
                writer.__exit__(None, None, None)

    def _batches(self, chunks: Sequence[int], writer: FeatureWriter) -> Iterator[tuple[int, range]]:
        for chunk in chunks:
            start, stop = writer.bounds(chunk)
            for first in range(start, stop, self.batch_size):
                yield chunk, range(first, min(first + self.batch_size, stop))

    def _stream(
        self,
        writers: Sequence[FeatureWriter],
        todo: Sequence[set[int]],
        stages: "Stages[tuple[int, DecodedBatch, DeviceEvent], _Step]",
        on_progress: Callable[[Progress], None] | None,
        started: float,
    ) -> dict[int, dict[str, Any]]:
        encoders = {i: load(self.specs[i], self.runtime) for i in range(len(writers)) if todo[i]}
        plan = list(self._batches(sorted(set().union(*todo)), writers[0]))
        collector = _Collector(writers, todo, stages)
        total = sum(len(rows) for _, rows in plan)

        def decode() -> Iterator[tuple[int, DecodedBatch, DeviceEvent]]:
            with side_stream(self.runtime.device):
                stream = self.decoder.stream(self.source, [rows for _, rows in plan])
                for chunk, _ in plan:
                    batch = next(stream)
                    stages.first.busy_s += batch.seconds
                    stages.first.images += len(batch.rows)
                    yield chunk, batch, DeviceEvent(self.runtime.device)

        def encode(item: tuple[int, DecodedBatch, DeviceEvent]) -> _Step:
            chunk, batch, ready = item
            ready.make_current_stream_wait(batch.pixels)
            with device_faults():
                span = Span(self.runtime.device)
                pixels = self._fixed_shape(batch.pixels)
                copies = {
                    i: HostCopy(encoder(pixels)[: len(batch.rows)])
                    for i, encoder in encoders.items()
                    if chunk in todo[i]
                }
                span.stop()
            stages.second.images += len(batch.rows)
            return _Step(chunk, batch, copies, span)

        def commit(step: _Step) -> None:
            collector.add(step)
            if on_progress:
                collector.report(on_progress, tuple(s.slug for s in self.specs), total, started)

        stages.run(decode, encode, commit)
        return {i: encoder.describe() for i, encoder in encoders.items()}

    def _fixed_shape(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """Pad a chunk's last batch where the device's arithmetic may depend on the batch size."""
        missing = self.batch_size - pixels.shape[0]
        if missing == 0 or not (self.runtime.on_cuda or self.runtime.compile):
            return pixels
        import torch

        return torch.cat([pixels, pixels.new_zeros((missing, *pixels.shape[1:]))])

    def _finish(
        self,
        writer: FeatureWriter,
        i: int,
        todo: set[int],
        stages: "Stages[Any, Any]",
        seconds: float,
        described: dict[str, Any],
    ) -> EmbedReport:
        seal = writer.seal()
        embedded = sum(stop - start for start, stop in map(writer.bounds, todo))
        codes: dict[str, int] = {}
        for failure in self.bank.features(writer.key.name).failures():
            codes[failure.code] = codes.get(failure.code, 0) + 1
        report = EmbedReport(
            bank=str(self.bank.path),
            key=writer.key.digest,
            model=self.specs[i].slug,
            rows=self.bank.rows,
            ok=seal.ok,
            failed=seal.failed,
            embedded=embedded,
            seconds=round(seconds, 3),
            img_per_s=round(embedded / seconds, 2) if embedded else 0.0,
            stages={
                "decode": stages.first.to_dict(),
                "encode": stages.second.to_dict(),
                "commit": stages.third.to_dict(),
            },
            failures=codes,
            decoder=self.decoder.name,
            precision=self.runtime.numerics,
            device=self.runtime.device,
        )
        if embedded:
            self._record(writer, i, report, described)
        return report

    def _record(self, writer: FeatureWriter, i: int, report: EmbedReport, described: dict[str, Any]) -> None:
        spec = self.specs[i]
        writer.write_provenance(
            provenance.of_features(spec, self.manifest, self.options, self.runtime, self.decoder.name)
        )
        RunRecord.now(
            kind="embed",
            asked={"model": spec.slug, "batch_size": self.batch_size, **provenance.of_options(self.options)},
            used={
                "feature": writer.key.name,
                "key": writer.key.to_dict(),
                "manifest_digest": self.manifest.digest,
                "encoder": described,
                "flags": self.flags,
                "device": self.runtime.device,
                "peak_device_bytes": peak_device_bytes(self.runtime.device),
            },
            metrics={
                "rows": report.rows,
                "ok": report.ok,
                "failed": report.failed,
                "failures": report.failures,
            },
            seconds={"total": report.seconds, "stages": report.stages},
            versions=provenance.versions(),
        ).write(self.bank.path)


class _Collector:
    """Gathers encoded batches into chunks and commits each when its last row has come."""

    def __init__(
        self, writers: Sequence[FeatureWriter], todo: Sequence[set[int]], stages: "Stages[Any, Any]"
    ) -> None:
        self.writers, self.todo, self.stages = writers, todo, stages
        self.done = self.failed = 0
        self._open: dict[int, np.ndarray] = {}
        self._failures: list[Failure] = []
        self._filled = 0
        self._last_report = 0.0

    def add(self, step: _Step) -> None:
        arrays = {i: copy.wait().numpy() for i, copy in step.copies.items()}
        self.stages.second.busy_s += step.span.seconds
        clock = time.perf_counter()
        start, stop = self.writers[0].bounds(step.chunk)
        for i, array in arrays.items():
            if i not in self._open:
                self._open[i] = np.empty((stop - start, array.shape[1]), np.float32)
            self._open[i][self._filled : self._filled + len(array)] = array
        self._failures += [
            Failure(step.batch.rows[slot], bad.code, bad.detail) for slot, bad in step.batch.failures.items()
        ]
        self._filled += len(step.batch.rows)
        self.done += len(step.batch.rows)
        self.failed += len(step.batch.failures)
        self.stages.third.images += len(step.batch.rows)
        if self._filled == stop - start:
            self._commit(step.chunk, start, stop)
        self.stages.third.busy_s += time.perf_counter() - clock

    def _commit(self, chunk: int, start: int, stop: int) -> None:
        ok = np.ones(stop - start, bool)
        ok[[f.row - start for f in self._failures]] = False
        for i, embedding in self._open.items():
            self.writers[i].commit(ChunkResult(chunk, embedding, ok, tuple(self._failures)))
        self._open, self._failures, self._filled = {}, [], 0

    def report(
        self, callback: Callable[[Progress], None], models: tuple[str, ...], total: int, started: float
    ) -> None:
        now = time.perf_counter()
        if now - self._last_report < PROGRESS_EVERY_S and self.done < total:
            return
        self._last_report = now
        stages = self.stages
        callback(
            Progress(
                models,
                self.done,
                total,
                self.failed,
                now - started,
                stages.first,
                stages.second,
                stages.third,
            )
        )
