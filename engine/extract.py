"""The main job: images in, a bank of embeddings out.

Models whose recipes render alike share one decode pass. Work is planned in whole chunks, which this process
does itself (`engine.chunks`) or hands to an executor's workers (`engine.scale`): on the CPU the bank is the
same, bit for bit.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine import provenance
from engine.chunks import (
    EmbedOptions,
    Resident,
    Tally,
    Task,
    Work,
    embed_chunk,
    feature_key,
    image_source,
)
from engine.decode import decoder_name
from engine.models import ModelSpec, resolve
from engine.pipeline import PROGRESS_EVERY_S, Progress
from engine.recipes import Recipe
from engine.runtime import Runtime
from engine.scale import Executor
from stores.layout import FeatureLayout
from stores.manifest import Manifest
from stores.places import Place
from stores.read import Bank
from stores.records import RunRecord
from stores.write import FeatureWriter, open_or_create, refuse_other_labels

__all__ = ["EmbedOptions", "EmbedReport", "Progress", "embed", "feature_key", "image_source"]


@dataclass(frozen=True)
class EmbedReport:
    """What one model's pass did.

    Attributes:
        rows, ok, failed: of the whole feature set, earlier runs included.
        embedded: rows embedded by this run; 0 when the bank already held all of them.
        seconds: wall seconds of this run's pass (shared by the models of one pass).
        stages: clock of each stage, `decode`, `encode`, `commit`.
        failures: code -> number of rows.
        workers: processes that computed; 0 is this one alone.
        notes: what was done otherwise than asked, a sentence each.
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
    workers: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def embed(
    manifest: Manifest,
    models: Sequence[str | ModelSpec],
    bank: Place | str,
    *,
    runtime: Runtime | None = None,
    options: EmbedOptions | None = None,
    executor: Executor | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[EmbedReport]:
    """Embed every image of a manifest with every model and commit the result to a bank.

    What the bank already holds under the same FeatureKey is not computed again: calling this after a crash
    resumes, calling it on a finished bank only checks and seals.

    Args:
        manifest: the images.
        models: slugs or resolved specifications.
        bank: directory of the bank, or its URL; made if absent. An executor's workers must see it, the images
            and the weights at the same paths.
        runtime: of whoever computes; with an executor, that of each worker (`executor.ask`).
        executor: hands the chunks to worker processes; None computes here.

    Returns:
        One report a model, in the order given.

    Raises:
        Refused: a request that cannot be carried out; nothing was changed.
        MachineFault: disk full, device or workers lost; committed chunks are kept.
    """
    runtime = runtime or Runtime.resolve()
    options = options or EmbedOptions()
    specs = [resolve(m) if isinstance(m, str) else m for m in models]
    store = open_or_create(bank, manifest, chunk_rows=options.chunk_rows)
    refuse_other_labels(store, manifest)
    reports: dict[int, EmbedReport] = {}
    for group in _by_rendering(specs):
        job = _Pass(store, manifest, [specs[i] for i in group], runtime, options, executor)
        reports.update(zip(group, job.run(on_progress), strict=True))
    return [reports[i] for i in range(len(specs))]


def _by_rendering(specs: Sequence[ModelSpec]) -> list[list[int]]:
    groups: dict[Recipe, list[int]] = {}
    for i, spec in enumerate(specs):
        groups.setdefault(spec.recipe.rendering, []).append(i)
    return list(groups.values())


class _Pass:
    """One decode pass over the images, feeding one or more models."""

    def __init__(
        self,
        bank: Bank,
        manifest: Manifest,
        specs: Sequence[ModelSpec],
        runtime: Runtime,
        options: EmbedOptions,
        executor: Executor | None,
    ) -> None:
        self.bank, self.manifest, self.executor = bank, manifest, executor
        asked = (options.decoder, runtime.device, options.dct)
        self.decoder = executor.ask(decoder_name, *asked) if executor else decoder_name(*asked)
        keys = [feature_key(s, self.decoder, runtime, manifest.image_digest, options.dtype) for s in specs]
        layouts = [
            FeatureLayout(bank.path.resolve(), key, spec.dim, bank.grid)
            for key, spec in zip(keys, specs, strict=True)
        ]
        self.work = Work(manifest.root, tuple(specs), tuple(layouts), runtime, options)

    def run(self, on_progress: Callable[[Progress], None] | None) -> list[EmbedReport]:
        writers: list[FeatureWriter] = []
        try:
            for spec, layout in zip(self.work.specs, self.work.layouts, strict=True):
                writers.append(FeatureWriter(self.bank, layout.key, spec.dim).__enter__())
            todo = [set(w.todo) for w in writers]
            tasks = [
                Task(chunk, tuple(i for i, missing in enumerate(todo) if chunk in missing))
                for chunk in sorted(set().union(*todo))
            ]
            tally, described, seconds = Tally(), dict[int, dict[str, Any]](), 0.0
            if tasks:
                with self._ready() as compute:
                    start = time.perf_counter()  # importing torch is no part of a pass
                    described = compute(tasks, tally, _Watch(self.work, tasks, tally, on_progress))
                    seconds = time.perf_counter() - start
            return [
                self._finish(writer, i, todo[i], tally, seconds, described.get(i, {}))
                for i, writer in enumerate(writers)
            ]
        finally:
            for writer in writers:
                writer.__exit__(None, None, None)

    @contextlib.contextmanager
    def _ready(self) -> Iterator["_Compute"]:
        """What does chunks: the executor's workers, or this process, which is the reference for them."""
        if self.executor:
            yield self._hand_out
            return
        with contextlib.closing(Resident(self.work, self.manifest)) as resident:

            def compute(tasks: Sequence[Task], tally: Tally, watch: "_Watch") -> dict[int, dict[str, Any]]:
                resident.run(tasks, tally, watch.look)
                return resident.describe()

            yield compute

    def _hand_out(self, tasks: Sequence[Task], tally: Tally, watch: "_Watch") -> dict[int, dict[str, Any]]:
        """Have the executor's workers do the chunks; features never pass through here."""
        assert self.executor
        described: dict[int, dict[str, Any]] = {}
        jobs = [(self.work, task) for task in tasks]
        for _, (done, how) in self.executor.run(embed_chunk, jobs):
            tally.add(done)
            described |= how
            watch.look()
        return described

    def _finish(
        self,
        writer: FeatureWriter,
        i: int,
        todo: set[int],
        tally: Tally,
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
            model=self.work.specs[i].slug,
            rows=self.bank.rows,
            ok=seal.ok,
            failed=seal.failed,
            embedded=embedded,
            seconds=round(seconds, 3),
            img_per_s=round(embedded / seconds, 2) if embedded else 0.0,
            stages={
                name: clock.to_dict()
                for name, clock in zip(("decode", "encode", "commit"), tally.stages, strict=True)
            },
            failures=codes,
            decoder=self.decoder,
            precision=self.work.runtime.numerics,
            device=self.work.runtime.device,
            workers=self.executor.workers if self.executor else 0,
            notes=self._notes(tally),
        )
        if embedded:
            self._record(writer, i, report, described, tally)
        return report

    def _notes(self, tally: Tally) -> tuple[str, ...]:
        wanted = self.work.options.batch_for(self.work.runtime, self.bank.chunk_rows)
        smaller = {size: rows for size, rows in tally.batch_sizes.items() if size < wanted}
        effect = "their last bits may differ" if self.work.runtime.on_cuda else "no value differs"
        return tuple(
            f"Memory did not suffice for batches of {wanted}: {rows:,} rows were encoded in batches of {size}"
            f"; {effect} from what batches of {wanted} give"
            for size, rows in sorted(smaller.items())
        )

    def _record(
        self, writer: FeatureWriter, i: int, report: EmbedReport, described: dict[str, Any], tally: Tally
    ) -> None:
        spec, runtime, options = self.work.specs[i], self.work.runtime, self.work.options
        batch_size = options.batch_for(runtime, self.bank.chunk_rows)
        writer.write_provenance(provenance.of_features(spec, self.manifest, options, runtime, self.decoder))
        RunRecord.now(
            kind="embed",
            asked={"model": spec.slug, "batch_size": batch_size, **provenance.of_options(options)},
            used={
                "feature": writer.key.name,
                "key": writer.key.to_dict(),
                "manifest_digest": self.manifest.digest,
                "encoder": described,
                "batch_sizes": {str(size): rows for size, rows in sorted(tally.batch_sizes.items())},
                "device": runtime.device,
                "workers": report.workers,
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


#: Does chunks, counts them in the tally, and says how the encoders compute.
_Compute = Callable[[Sequence[Task], Tally, "_Watch"], dict[int, dict[str, Any]]]


class _Watch:
    """Turns a tally into calls of the progress callback, not too many."""

    def __init__(
        self,
        work: Work,
        tasks: Sequence[Task],
        tally: Tally,
        callback: Callable[[Progress], None] | None,
    ) -> None:
        self._models = tuple(spec.slug for spec in work.specs)
        self._total = sum(stop - start for start, stop in (work.bounds(task.chunk) for task in tasks))
        self._tally, self._callback = tally, callback
        self._started, self._last = time.perf_counter(), 0.0

    def look(self) -> None:
        now = time.perf_counter()
        if not self._callback or (now - self._last < PROGRESS_EVERY_S and self._tally.rows < self._total):
            return
        self._last = now
        rows, failed, seconds = self._tally.rows, self._tally.failed, now - self._started
        self._callback(Progress(self._models, rows, self._total, failed, seconds, *self._tally.stages))
