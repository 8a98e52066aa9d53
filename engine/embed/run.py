"""The main job: images in, a bank of embeddings out.

Models whose recipes render alike share one decode pass. Work is planned in whole chunks (`engine.embed.plan`)
and done in a session of an executor (`engine.executors`): by this process or by worker processes, on the CPU
with the same bits (`engine.embed.worker`). Bank, image files, decoders and weights are checked first
(`engine.embed.inputs`, `engine.embed.preflight`): a refused run changes nothing.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from engine.decode import decoder_name
from engine.decode.contents import Contents
from engine.embed import amendments
from engine.embed.inputs import InputFiles, no_longer_pending
from engine.embed.options import EmbedOptions, InputChecks, image_source
from engine.embed.plan import ChunkTask, PassPlan, Plan, Setup, chunks_to_do, rows_to_retry
from engine.embed.preflight import preflight
from engine.embed.progress import Tally, Watch
from engine.embed.provenance import options_document, provenance_document
from engine.embed.report import EmbedReport, count_codes, deep_notes, pass_notes, stage_reports
from engine.embed.worker import Ready, Work
from engine.errors import Refused
from engine.executors import SERIAL, Executor, Local
from engine.models import ModelSpec, resolve
from engine.pipeline import PassProgress
from engine.runtime import Runtime
from engine.versions import versions
from stores.backends.location import Place, place
from stores.bank import names as feature_names
from stores.bank.amend import failures_of
from stores.bank.contents import contents_of_bank, refuse_conflict
from stores.bank.keys import Failure, FeatureKey
from stores.bank.layout import images_key
from stores.bank.markers import committed_chunks
from stores.bank.reader import Bank
from stores.bank.records import RunRecord
from stores.bank.seal import definition
from stores.bank.writer import (
    FeatureWriter,
    as_in_bank,
    bank_if_there,
    open_or_create,
    refuse_misfit,
    refuse_other_labels,
)
from stores.json_types import JsonObject
from stores.maintenance.remove import removable, remove
from stores.manifest.ids import with_ids_of
from stores.manifest.manifest import Manifest
from stores.manifest.restore import restore_manifest

__all__ = ["EmbedOptions", "EmbedReport", "InputChecks", "PassProgress", "embed"]

OnProgress = Callable[[PassProgress], None]


def embed(
    manifest: Manifest,
    models: Sequence[str | ModelSpec],
    bank: Place | str,
    *,
    runtime: Runtime | None = None,
    options: EmbedOptions | None = None,
    checks: InputChecks | None = None,
    executor: Executor = SERIAL,
    on_progress: OnProgress | None = None,
    names: Sequence[str | None] = (),
) -> list[EmbedReport]:
    """Embed every image of a manifest with every model and commit the result to a bank.

    What the bank already holds under the same FeatureKey is not computed again: calling this after a crash
    resumes, calling it on a finished bank only checks and seals. Rows that are not embedded yet are tried
    again, once what stood in their way is gone. Image files are compared with those that the bank's rows were
    made from: a random sample of what is embedded already, and every file that is read.

    Args:
        manifest: the images. Where a bank of the same files knows them by other ids, those stay.
        models: slugs or resolved specifications.
        bank: directory of the bank, or its URL; made if absent. An executor's workers must see it, the images
            and the weights at the same paths.
        runtime: of whichever processes compute (`executor.ask`).
        checks: how far the image files are trusted to be what they were.
        executor: who computes: this process, or worker processes.
        names: what to call the features of each model (`stores.bank.names`); None leaves their names.

    Returns:
        One report a model, in the order given.

    Raises:
        Refused: a request that cannot be carried out; nothing was changed.
        ChangedImage: a file is not the one that the bank was made from; committed chunks are kept.
        MachineFault: disk full, device or workers lost; committed chunks are kept.
    """
    runtime, options, checks = (
        runtime or Runtime.resolve(),
        options or EmbedOptions(),
        checks or InputChecks(),
    )
    requested = [resolve(model) if isinstance(model, str) else model for model in models]
    name_of = feature_names.assigned([spec.slug for spec in requested], names)
    path = place(bank)
    there, manifest, renamed = _look(path, manifest, options)
    inputs = InputFiles(manifest, options, checks, there, on_progress)
    setup = _setup(inputs, runtime, executor)
    plan = Plan(manifest, setup, _amended(requested, setup, there), name_of)
    feature_names.check(path, plan.names(*plan.passes))
    inputs.refuse_unusable(plan)
    ready = preflight(plan, path, there, executor)
    job = _Job(_opened(path, there, plan), plan, checks, executor, on_progress, ready)
    inputs.write_image_set(job.bank)
    reports: dict[int, EmbedReport] = {}
    for planned in plan.passes:
        reports |= zip(planned.positions, _Pass(job, planned).run(), strict=True)
    return [
        replace(report, notes=(*renamed, *report.notes, *deep_notes(report.title, wanted, used)))
        for (_, report), wanted, used in zip(sorted(reports.items()), requested, plan.specs, strict=True)
    ]


def _look(
    path: Place, manifest: Manifest, options: EmbedOptions
) -> tuple[Bank | None, Manifest, tuple[str, ...]]:
    """Open the bank that is there, and fit the manifest to it.

    Returns:
        The bank, or None; the manifest with its ids and its text; and a sentence if it has named the images.

    Raises:
        Refused: the bank is of other images or labels, or none can be made there.
    """
    bank = bank_if_there(path)
    manifest, renamed = with_ids_of(bank, manifest)
    manifest = as_in_bank(bank, manifest)
    refuse_misfit(path, bank, manifest, options.chunk_rows)
    if bank is not None:
        refuse_other_labels(bank, manifest)
    return bank, manifest, (renamed,) if renamed else ()


def _setup(inputs: InputFiles, runtime: Runtime, executor: Executor) -> Setup:
    """Return the settings of all features. Raises Refused: no such decoder, or too many files are missing."""
    options, image_set = inputs.options, inputs.image_set
    decoder = executor.ask(decoder_name, options.decoder, runtime.device, options.dct)
    return Setup(runtime, options, decoder, images_key(inputs.manifest.image_digest, image_set), image_set)


def _amended(specs: Sequence[ModelSpec], setup: Setup, bank: Bank | None) -> tuple[ModelSpec, ...]:
    """Return the models with the rules for deep images that their features have.

    Raises Refused: other rules than the feature's.
    """
    return tuple(amendments.amended(spec, bank, setup.key(spec).name) for spec in specs)


def _opened(path: Place, bank: Bank | None, plan: Plan) -> Bank:
    """Open the bank, or make it; restore a manifest that it has lost."""
    manifest = plan.manifest
    if bank is not None:
        return restore_manifest(bank, manifest)
    bank = open_or_create(path, manifest, chunk_rows=plan.setup.options.chunk_rows)
    refuse_other_labels(bank, manifest)  # another process may have made it meanwhile
    return bank


@dataclass(frozen=True)
class _Job:
    """Settings that all passes of a run share."""

    bank: Bank
    plan: Plan
    checks: InputChecks
    executor: Executor
    on_progress: OnProgress | None
    ready: Local[Ready]


@dataclass(frozen=True)
class _Outcome:
    """Outcome of a pass, in whichever processes; `rows`: rows done for each model."""

    tally: Tally
    seconds: float
    rows: tuple[int, ...]


@dataclass(frozen=True)
class _Pass:
    """One decode pass over the images, feeding the models of one rendering."""

    job: _Job
    planned: PassPlan

    def run(self) -> list[EmbedReport]:
        """Compute what is missing, and seal. Raises as `embed`."""
        root = self.job.bank.path
        begun = {key.name for key in self.planned.keys if definition(root, key.name) is not None}
        try:
            return self._run()
        except Refused:
            for name in {key.name for key in self.planned.keys} - begun:
                _withdraw(root, name)
            raise

    def _run(self) -> list[EmbedReport]:
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(writer) for writer in self._writers()]
            feature_names.give(self.job.bank.path, self.job.plan.names(self.planned))
            amending = [amendments.begin(*pair) for pair in zip(writers, self.planned.specs, strict=True)]
            for spec, writer in zip(self.planned.specs, writers, strict=True):
                if not writer.has_provenance():  # first: a repair of a stopped run needs it
                    self._write_provenance(writer, spec)
            outcome = self._compute(self._work(writers), self._tasks(writers, amending))
            reports = [self._finish(writer, i, outcome) for i, writer in enumerate(writers)]
            for writer in writers:
                amendments.end(writer)
            return reports

    def _writers(self) -> Iterator[FeatureWriter]:
        """Begin each feature, one after another. Raises Refused: another process is writing one."""
        for spec, key in zip(self.planned.specs, self.planned.keys, strict=True):
            yield FeatureWriter(self.job.bank, key, spec.dim, self.job.plan.setup.image_set)

    def _work(self, writers: Sequence[FeatureWriter]) -> Work:
        job, setup = self.job, self.job.plan.setup
        root = job.bank.path.resolve()
        layouts = tuple(replace(writer.layout, root=root) for writer in writers)
        loaded = job.ready.value or Ready()
        here = Local(replace(loaded, bank=job.bank, manifest=job.plan.manifest))
        return Work(job.plan.manifest.root, self.planned.specs, layouts, setup.runtime, setup.options, here)

    def _tasks(self, writers: Sequence[FeatureWriter], amending: Sequence[bool]) -> list[ChunkTask]:
        """Collect missing chunks, rows to retry that were pending and may succeed now, and others on request.

        Args:
            amending: of each model, whether it has rules for deep images that not all rows were tried with.
        """
        missing = [set(writer.todo) for writer in writers]
        failures = [failures_of(writer.layout) for writer in writers]
        pending = {row.row for chunks in failures for rows in chunks.values() for row in rows if row.pending}
        unblocked = self._unblocked(sorted(pending))

        def is_worth_it(model: int, failure: Failure) -> bool:
            if failure.pending:
                return failure.row in unblocked
            return self.job.checks.retry_failed or (amending[model] and failure.code == "depth")

        return chunks_to_do(missing) + rows_to_retry(failures, missing, is_worth_it)

    def _unblocked(self, pending: Sequence[int]) -> set[int]:
        """Return the pending rows that can be embedded now."""
        if not pending:
            return set()
        plan = self.job.plan
        contents = Contents(contents_of_bank(self.job.bank, plan.setup.image_set))
        source = image_source(plan.manifest, plan.setup.options, contents)
        return set(no_longer_pending(source, self.planned.specs[0].recipe.rendering, pending))

    def _compute(self, work: Work, tasks: Sequence[ChunkTask]) -> _Outcome:
        """Have the tasks done. Workers write features directly to the bank, never through this process."""
        models = range(len(work.specs))
        done = tuple(sum(work.size(task) for task in tasks if i in task.models) for i in models)
        if not tasks:
            return _Outcome(Tally(), 0.0, done)
        total = sum(map(work.size, tasks))
        with self.job.executor.session(work) as session:
            start = time.perf_counter()  # importing torch does not count as part of a pass
            slugs = tuple(spec.slug for spec in work.specs)
            watch = Watch(slugs, total, self.job.on_progress, max(self.job.bank.rows - total, 0))
            session.run(tasks, watch.count)
            return _Outcome(watch.tally, time.perf_counter() - start, done)

    def _finish(self, writer: FeatureWriter, i: int, outcome: _Outcome) -> EmbedReport:
        """Seal a feature, and write its provenance if any of it was made now."""
        bank, setup, feature = self.job.bank, self.job.plan.setup, writer.key.name
        embedded = outcome.rows[i]
        if embedded:
            refuse_conflict(bank, writer.layout)
        seal = writer.seal()
        size = setup.options.batch_for(setup.runtime, bank.chunk_rows)
        report = EmbedReport(
            bank=str(bank.path),
            key=writer.key.digest,
            model=self.planned.specs[i].slug,
            rows=bank.rows,
            ok=seal.ok,
            failed=seal.failed,
            pending=seal.pending,
            embedded=embedded,
            seconds=round(outcome.seconds, 3),
            img_per_s=round(embedded / outcome.seconds, 2) if embedded else 0.0,
            stages=stage_reports(outcome.tally),
            failures=count_codes(failure.code for failure in bank.features(feature).failures()),
            decoder=setup.decoder,
            precision=setup.runtime.numerics,
            device=setup.runtime.device,
            workers=self.job.executor.workers,
            feature=feature,
            name=feature_names.read(bank.path, feature),
            title=bank.title(feature),
            notes=pass_notes(outcome.tally, size, setup.runtime, embedded > 0),
        )
        if embedded:
            self._write_provenance(writer, self.planned.specs[i])
            lineage = self.planned.specs[i].lineage
            self._record(writer.key, report, outcome.tally, i, lineage.to_dict() if lineage else {})
        return report

    def _record(
        self, key: FeatureKey, report: EmbedReport, tally: Tally, position: int, lineage: JsonObject
    ) -> None:
        """Keep a record of the pass in the bank, for the model at a position of the pass."""
        setup, manifest = self.job.plan.setup, self.job.plan.manifest
        batch_size = setup.options.batch_for(setup.runtime, self.job.bank.chunk_rows)
        RunRecord.now(
            kind="embed",
            asked={"model": report.model, "batch_size": batch_size, **options_document(setup.options)},
            used={
                "feature": report.feature,
                "key": key.to_dict(),
                "manifest_digest": manifest.digest,
                "encoder": tally.encoders.get(position, {}),
                "batch_sizes": {str(size): rows for size, rows in sorted(tally.batch_sizes.items())},
                "device": report.device,
                "workers": report.workers,
                **({"lineage": lineage} if lineage else {}),
            },
            metrics={
                "rows": report.rows,
                "ok": report.ok,
                "failed": report.failed,
                "pending": report.pending,
                "failures": report.failures,
                **({"first_frames": tally.first_frames} if tally.first_frames else {}),
            },
            seconds={"total": report.seconds, "stages": report.stages, **_encoding(tally, position)},
            versions=versions(),
        ).write(self.job.bank.path)

    def _write_provenance(self, writer: FeatureWriter, spec: ModelSpec) -> None:
        writer.write_provenance(provenance_document(spec, self.job.plan.manifest, self.job.plan.setup))


def _encoding(tally: Tally, position: int) -> JsonObject:
    """Return `encode`: images, rate and seconds of one model's encoder alone; stages are of all models."""
    clock = tally.encoding.get(position)
    if clock is None:
        return {}
    return {
        "encode": {
            "images": clock.images,
            "img_per_s": round(clock.img_per_s, 3),
            "busy_s": round(clock.busy_s, 4),
        }
    }


def _withdraw(root: Place, feature: str) -> None:
    """Remove a feature that was refused before its first chunk was committed."""
    layout = definition(root, feature)
    if layout is not None and not committed_chunks(layout):
        remove(removable(root, feature))
