"""The main job: images in, a bank of embeddings out.

Models whose recipes render alike share one decode pass. Work is planned in whole chunks, which this process
does itself (`engine.embed.worker`) or hands to an executor's workers (`engine.executors`): on the CPU the
bank is the same, bit for bit. The image files are looked at first (`engine.embed.inputs`): what is refused
changes nothing.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.decode import decoder_name
from engine.decode.contents import Contents, Table
from engine.embed import amendments, provenance
from engine.embed.inputs import (
    SAMPLE,
    InputChecks,
    Looked,
    digests,
    no_longer_pending,
    refuse_changed,
    refuse_missing,
)
from engine.embed.preflight import by_rendering, preflight
from engine.embed.worker import (
    EmbedOptions,
    Resident,
    Tally,
    Task,
    Watch,
    Work,
    embed_chunk,
    feature_key,
    image_source,
)
from engine.errors import Refused
from engine.executors import Executor
from engine.models import ModelSpec, resolve
from engine.pipeline import PROGRESS_EVERY_S, Progress, new_clocks
from engine.runtime import Runtime
from engine.versions import versions
from stores.backends.location import Place, place
from stores.bank import names as chosen
from stores.bank.amend import failures_of, uncommitted_rows
from stores.bank.contents import (
    contents_of_bank,
    contents_of_feature,
    differing_rows,
    fill,
    known,
    refuse_conflict,
    set_digest,
    unknown,
    write_set,
)
from stores.bank.keys import FeatureKey
from stores.bank.layout import FeatureLayout, images_key
from stores.bank.markers import committed_chunks
from stores.bank.reader import Bank
from stores.bank.records import RunRecord
from stores.bank.seal import definition
from stores.bank.writer import (
    FeatureWriter,
    as_in_bank,
    layout_in,
    open_or_create,
    refuse_other_labels,
    refuse_unfit,
)
from stores.maintenance.remove import removable, remove
from stores.manifest.ids import with_ids_of
from stores.manifest.manifest import Manifest

__all__ = ["EmbedOptions", "EmbedReport", "InputChecks", "Progress", "embed", "feature_key", "image_source"]


@dataclass(frozen=True)
class EmbedReport:
    """What one model's pass did.

    Attributes:
        rows, ok, failed, pending: of the whole feature set, earlier runs included; pending rows are not
            embedded yet, for want of something that is not the image's fault.
        embedded: rows embedded by this run; 0 when the bank already held all of them.
        seconds: wall seconds of this run's pass (shared by the models of one pass).
        stages: clock of each stage, `decode`, `encode`, `commit`.
        failures: code -> number of rows, failed or pending.
        workers: processes that computed; 0 is this one alone.
        feature: full name of the features.
        name: what the user calls the features, or None.
        title: what tables call them, which no other features of the bank are called.
        notes: what was done otherwise than asked, a sentence each.
    """

    bank: str
    key: str
    model: str
    rows: int
    ok: int
    failed: int
    pending: int
    embedded: int
    seconds: float
    img_per_s: float
    stages: dict[str, Any]
    failures: dict[str, int]
    decoder: str
    precision: str
    device: str
    workers: int
    feature: str
    name: str | None
    title: str
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
    checks: InputChecks | None = None,
    executor: Executor | None = None,
    on_progress: Callable[[Progress], None] | None = None,
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
        runtime: of whoever computes; with an executor, that of each worker (`executor.ask`).
        checks: how far the image files are trusted to be what they were.
        executor: hands the chunks to worker processes; None computes here.
        names: what to call the features of each model (`stores.bank.names`); None leaves their names.

    Returns:
        One report a model, in the order given.

    Raises:
        Refused: a request that cannot be carried out; nothing was changed.
        ChangedImage: a file is not the one that the bank was made from; committed chunks are kept.
        MachineFault: disk full, device or workers lost; committed chunks are kept.
    """
    runtime = runtime or Runtime.resolve()
    options = options or EmbedOptions()
    specs = [resolve(m) if isinstance(m, str) else m for m in models]
    manifest, renamed = with_ids_of(bank, manifest)
    checks = checks or InputChecks()
    called = chosen.assigned([spec.slug for spec in specs], names)
    manifest = as_in_bank(bank, manifest)
    existing = refuse_unfit(bank, manifest, options.chunk_rows)
    if existing is not None:
        refuse_other_labels(existing, manifest)
    images = _Images(manifest, options, checks, existing, on_progress)
    image_set = images.set_name
    given = specs
    specs = _amended(given, existing, manifest, runtime, options, executor, image_set)
    groups = by_rendering(specs)
    passes = [
        _Pass(manifest, [specs[i] for i in group], runtime, options, checks, executor, image_set, called)
        for group in groups
    ]
    chosen.check(place(bank), {name: word for job in passes for name, word in job.names.items()})
    images.refuse([(job.keys, job.specs) for job in passes])
    encoders = preflight(bank, manifest, specs, runtime, options, executor, image_set=image_set)
    store = open_or_create(bank, manifest, chunk_rows=options.chunk_rows)
    refuse_other_labels(store, manifest)
    images.keep_set(store)
    reports: dict[int, EmbedReport] = {}
    for group, job in zip(groups, passes, strict=True):
        reports.update(zip(group, job.run(store, encoders, on_progress), strict=True))
    notes = (renamed,) if renamed else ()
    noted = [_noting(reports[i], given[i], specs[i]) for i in range(len(specs))]
    return [replace(report, notes=(*notes, *report.notes)) for report in noted]


def _amended(
    specs: Sequence[ModelSpec],
    bank: Bank | None,
    manifest: Manifest,
    runtime: Runtime,
    options: EmbedOptions,
    executor: Executor | None,
    image_set: str,
) -> list[ModelSpec]:
    """The models with the rules for deep images that their features have. Raises Refused: others."""
    decoder = _decoder_name(runtime, options, executor)
    images = images_key(manifest.image_digest, image_set)
    keys = [feature_key(spec, decoder, runtime, images, options.dtype) for spec in specs]
    return [amendments.amended(spec, bank, key.name) for spec, key in zip(specs, keys, strict=True)]


def _noting(report: EmbedReport, given: ModelSpec, used: ModelSpec) -> EmbedReport:
    """The report, with a note of rules that its feature had and the request had not."""
    if used.recipe.deep == given.recipe.deep:
        return report
    rules = amendments.in_words(used.recipe.deep)
    note = f"Deep images of {report.title} are shown by {rules}, as the feature has them"
    return replace(report, notes=(*report.notes, note))


def _decoder_name(runtime: Runtime, options: EmbedOptions, executor: Executor | None) -> str:
    wanted = (options.decoder, runtime.device, options.dct)
    return executor.ask(decoder_name, *wanted) if executor else decoder_name(*wanted)


class _Images:
    """The image files before anything is computed: are they there, and are they those of the bank?"""

    def __init__(
        self,
        manifest: Manifest,
        options: EmbedOptions,
        checks: InputChecks,
        bank: Bank | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._source = image_source(manifest, options)
        self._checks, self._bank, self._on_progress = checks, bank, on_progress
        self._table = self._accepted() if checks.accept_changed and bank is not None else None

    @property
    def set_name(self) -> str:
        """Name of the image set, "" for the images that the bank saw first."""
        return "" if self._table is None else set_digest(self._table)

    def _accepted(self) -> Table | None:
        """The contents of all files now, if some have changed since the bank was made of them."""
        assert self._bank is not None
        rows = range(len(self._source))
        refuse_missing(self._source, rows, self._checks.max_missing)
        now = digests(self._source, rows, self._looked())
        return now if len(differing_rows(contents_of_bank(self._bank), now)) else None

    def keep_set(self, store: Bank) -> None:
        """Write the image set into the bank, if it is another than the bank's first."""
        if self._table is not None:
            write_set(store.path, self._table)

    def refuse(self, wanted: Sequence[tuple[Sequence[FeatureKey], Sequence[ModelSpec]]]) -> None:
        """Refuse missing files where there is something to do, and changed ones where something is done."""
        layouts = [
            None if self._bank is None else layout_in(self._bank, key, spec.dim, self.set_name)
            for keys, specs in wanted
            for key, spec in zip(keys, specs, strict=True)
        ]
        rows = set[int]()
        for layout in layouts:
            rows.update(range(len(self._source)) if layout is None else uncommitted_rows(layout))
        if rows:
            refuse_missing(self._source, sorted(rows), self._checks.max_missing)
        if self._bank is not None and self._table is None:
            expected = contents_of_bank(self._bank) if rows else self._made_from(filter(None, layouts))
            if known(expected).any():
                refuse_changed(self._source, expected, every=self._checks.every, looked=self._looked())

    def _made_from(self, layouts: Iterable[FeatureLayout]) -> Table:
        """What the features that are asked for were made from."""
        table = unknown(len(self._source))
        for layout in layouts:
            fill(table, contents_of_feature(layout))
        return table

    def _looked(self) -> Looked | None:
        """Progress of looking at files, shown like that of a pass."""
        callback, start = self._on_progress, time.perf_counter()
        last = [start]  # what takes no time needs no bar
        if callback is None:
            return None

        def looked(done: int, total: int) -> None:
            now = time.perf_counter()
            if now - last[0] >= PROGRESS_EVERY_S or (done == total and total > SAMPLE):
                last[0] = now
                callback(Progress(("comparing files",), done, total, 0, now - start, *new_clocks()))

        return looked


class _Pass:
    """One decode pass over the images, feeding one or more models."""

    def __init__(
        self,
        manifest: Manifest,
        specs: Sequence[ModelSpec],
        runtime: Runtime,
        options: EmbedOptions,
        checks: InputChecks,
        executor: Executor | None,
        image_set: str,
        called: Mapping[str, str],
    ) -> None:
        self.manifest, self.specs, self.checks = manifest, tuple(specs), checks
        self.runtime, self.options, self.executor, self.image_set = runtime, options, executor, image_set
        self.decoder = _decoder_name(runtime, options, executor)
        images = images_key(manifest.image_digest, image_set)
        self.keys = [feature_key(spec, self.decoder, runtime, images, options.dtype) for spec in specs]
        #: Full name of each feature that is given a name -> that name.
        self.names = {
            key.name: called[spec.slug]
            for key, spec in zip(self.keys, specs, strict=True)
            if spec.slug in called
        }

    def run(
        self,
        bank: Bank,
        encoders: Mapping[ModelSpec, Any],
        on_progress: Callable[[Progress], None] | None,
    ) -> list[EmbedReport]:
        self.bank, self.encoders = bank, encoders
        begun = {key.name for key in self.keys if definition(bank.path, key.name) is not None}
        try:
            return self._run(on_progress)
        except Refused:
            for name in {key.name for key in self.keys} - begun:
                self._withdraw(name)
            raise

    def _withdraw(self, name: str) -> None:
        """Leave nothing of a feature that was refused before its first chunk was committed."""
        layout = definition(self.bank.path, name)
        if layout is not None and not committed_chunks(layout):
            remove(removable(self.bank.path, name))

    def _run(self, on_progress: Callable[[Progress], None] | None) -> list[EmbedReport]:
        bank, writers = self.bank, list[FeatureWriter]()
        try:
            for spec, key in zip(self.specs, self.keys, strict=True):
                writers.append(FeatureWriter(bank, key, spec.dim, self.image_set).__enter__())
            chosen.give(bank.path, self.names)
            root = bank.path.resolve()
            layouts = tuple(replace(writer.layout, root=root) for writer in writers)
            self.work = Work(self.manifest.root, self.specs, layouts, self.runtime, self.options)
            amending = [amendments.begin(*pair) for pair in zip(writers, self.specs, strict=True)]
            for i, writer in enumerate(writers):
                if not writer.has_provenance():  # first: a repair of a stopped run needs it
                    self._write_provenance(writer, i)
            todo = [set(w.todo) for w in writers]
            tasks = [
                Task(chunk, tuple(i for i, missing in enumerate(todo) if chunk in missing))
                for chunk in sorted(set().union(*todo))
            ]
            again = self._again(todo, amending)
            tasks += again
            tally, described, seconds = Tally(), dict[int, dict[str, Any]](), 0.0
            if tasks:
                with self._ready() as compute:
                    start = time.perf_counter()  # importing torch is no part of a pass
                    watch = Watch(self.work, tasks, tally, on_progress, whole=bank.rows)
                    described = compute(tasks, tally, watch)
                    seconds = time.perf_counter() - start
            done = [
                sum(self.work.size(task) for task in tasks if i in task.models) for i in range(len(writers))
            ]
            reports = [
                self._finish(writer, i, done[i], tally, seconds, described.get(i, {}))
                for i, writer in enumerate(writers)
            ]
            for writer in writers:
                amendments.end(writer)
            return reports
        finally:
            for writer in writers:
                writer.__exit__(None, None, None)

    def _again(self, todo: Sequence[set[int]], amending: Sequence[bool]) -> list[Task]:
        """Rows of committed chunks to try again: pending ones if it can help, failed ones if asked to.

        Args:
            amending: of each model, whether it has rules for deep images that not all rows were tried with.
        """
        failures = [failures_of(layout) for layout in self.work.layouts]
        pending = {row.row for chunks in failures for rows in chunks.values() for row in rows if row.pending}
        ready = set[int]()
        if pending:
            contents = Contents(contents_of_bank(self.bank, self.image_set))
            source = image_source(self.manifest, self.options, contents)
            ready.update(no_longer_pending(source, self.work.rendering, sorted(pending)))
        models: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for i, chunks in enumerate(failures):
            for chunk in chunks.keys() - todo[i]:
                rows = tuple(
                    failure.row
                    for failure in chunks[chunk]
                    if (
                        failure.row in ready
                        if failure.pending
                        else self.checks.retry_failed or (amending[i] and failure.code == "depth")
                    )
                )
                if rows:
                    models.setdefault((chunk, rows), []).append(i)
        return [Task(chunk, tuple(lacking), rows) for (chunk, rows), lacking in sorted(models.items())]

    @contextlib.contextmanager
    def _ready(self) -> Iterator["_Compute"]:
        """What does chunks: the executor's workers, or this process, which is the reference for them."""
        if self.executor:
            yield self._hand_out
            return
        with contextlib.closing(Resident(self.work, self.manifest, self.encoders)) as resident:

            def compute(tasks: Sequence[Task], tally: Tally, watch: "Watch") -> dict[int, dict[str, Any]]:
                resident.run(tasks, tally, watch.look)
                return resident.describe()

            yield compute

    def _hand_out(self, tasks: Sequence[Task], tally: Tally, watch: "Watch") -> dict[int, dict[str, Any]]:
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
        embedded: int,
        tally: Tally,
        seconds: float,
        described: dict[str, Any],
    ) -> EmbedReport:
        if embedded:
            refuse_conflict(self.bank, writer.layout)
        seal = writer.seal()
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
            pending=seal.pending,
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
            feature=writer.key.name,
            name=chosen.read(self.bank.path, writer.key.name),
            title=self.bank.title(writer.key.name),
            notes=self._notes(tally) + (_frame_notes(tally) if embedded else ()),
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
        self._write_provenance(writer, i)
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
                "pending": report.pending,
                "failures": report.failures,
                **({"first_frames": tally.first_frames} if tally.first_frames else {}),
            },
            seconds={"total": report.seconds, "stages": report.stages},
            versions=versions(),
        ).write(self.bank.path)

    def _write_provenance(self, writer: FeatureWriter, i: int) -> None:
        work = self.work
        made = provenance.of_features(work.specs[i], self.manifest, work.options, work.runtime, self.decoder)
        writer.write_provenance(made)


def _frame_notes(tally: Tally) -> tuple[str, ...]:
    count = tally.first_frames
    if not count:
        return ()
    subject = "1 GIF holds" if count == 1 else f"{count:,} GIFs hold"
    return (f"{subject} several frames: the first frame was embedded, the others were not",)


#: Does chunks, counts them in the tally, and says how the encoders compute.
_Compute = Callable[[Sequence[Task], Tally, "Watch"], dict[int, dict[str, Any]]]
