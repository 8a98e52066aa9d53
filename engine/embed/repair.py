"""Repair of a damaged bank: rebuild files that follow from others, compute damaged chunks again, and compare.

A chunk that was computed again is put in place only if it agrees with what the seal or its marker promises
(`stores.maintenance.heal`). Chunks for which that fails stay as they are and are named.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from engine.decode import decoder_name
from engine.embed.plan import ChunkTask, feature_key
from engine.embed.progress import Watch
from engine.embed.restore import restore
from engine.embed.run import embed
from engine.embed.worker import Ready, Resident, Work
from engine.errors import BankError, Refused
from engine.executors import Local
from engine.pipeline import PassProgress
from stores.backends.location import Place, place
from stores.backends.locks import coordinating
from stores.bank.keys import ChunkResult
from stores.bank.layout import MANIFEST, FeatureLayout
from stores.bank.reader import Bank
from stores.bank.seal import definition
from stores.maintenance.heal import Promise, heal_chunk, heal_marker, promise_of_chunk
from stores.maintenance.quarantine import put_back_manifest, seal_complete
from stores.maintenance.report import DamageJson, VerifyReport
from stores.maintenance.verify import quarantine, verify
from stores.manifest.manifest import Manifest

#: Lowest cosine of an embedding computed again on a device to the first one, by its arithmetic; a feature's
#: certificate, where it has one, is more precise.
_LEAST_COSINE = {"fp32": 0.9999, "bf16": 0.999, "fp16": 0.999}


class UnrepairedReport(TypedDict):
    """Chunks that stay damaged, and why."""

    feature: str
    chunks: list[int]
    reason: str
    remedy: str


class RepairReport(TypedDict):
    """Report of a repair; `repair` explains the fields."""

    ok: bool
    damaged: int
    recomputed: int
    features: dict[str, int]
    quarantined: list[str]
    unrepaired: list[UnrepairedReport]
    remaining: list[DamageJson]


@dataclass(frozen=True)
class Unrepaired:
    """Damaged chunks of a feature that could not be repaired, and why."""

    feature: str
    chunks: tuple[int, ...]
    error: Refused

    def to_dict(self) -> UnrepairedReport:
        """Give the fields as a JSON object."""
        reason = f"{self.error.found}. {self.error.rule}"
        return {
            "feature": self.feature,
            "chunks": list(self.chunks),
            "reason": reason,
            "remedy": self.error.remedy,
        }


def repair(
    bank: Place | str,
    *,
    weights: Path | None = None,
    root: Path | None = None,
    device: str = "auto",
    given: Manifest | None = None,
    on_progress: Callable[[PassProgress], None] | None = None,
) -> RepairReport:
    """Verify a bank and repair what is damaged, with the settings that made it.

    Args:
        weights: the weights file, where it is not at its recorded place any more.
        root: the images' folder, likewise.
        given: the manifest that the bank was made with, to be put back if the bank's own is lost or damaged.

    Returns:
        `{ok, damaged, recomputed, features, quarantined, unrepaired, remaining}`: `ok` after a second
        verification, which found what `remaining` lists, with what mends it; `quarantined` are the files that
        were moved to `.embank/quarantine`; `unrepaired` lists `{feature, chunks, reason, remedy}` of chunks
        that stay damaged. Without a manifest only what needs none is mended.

    Raises:
        Refused: nothing can be mended: weights or images are gone or have changed, or the bank's own
            documents are damaged beyond what the rest confirms. Nothing was changed.
        MachineFault: disk full, device lost; run it again.
    """
    if given is not None:
        put_back_manifest(place(bank), given)
    report = verify(bank)
    if any(damage.path == MANIFEST for damage in report.damaged):
        return _without_manifest(bank, report)
    promises = _promises(place(bank), report)
    unpromised = _without(report, promises)
    lost = quarantine(bank, unpromised, unfinished=promises.keys())
    moved = [damage.path for damage in unpromised.damaged if damage.reason != "missing"]
    store, settings = Bank.open(bank), _Settings(weights, root, device, on_progress)
    unrepaired: list[Unrepaired] = []
    for feature, chunks in promises.items():
        put_aside, failed = _heal(store, feature, chunks, settings)
        moved += put_aside
        unrepaired += failed
    for feature, indices in lost.items():
        if feature not in promises and (indices or not store.is_sealed(feature)):
            try:
                _embed_again(store, feature, settings)
            except Refused as error:
                unrepaired.append(Unrepaired(feature, tuple(indices), error))
    left = {(damage.feature, chunk) for damage in unrepaired for chunk in damage.chunks}
    wanted = {feature: [promise.index for promise in chunks] for feature, chunks in promises.items()} | lost
    recomputed = {
        feature: sum((feature, index) not in left for index in indices) for feature, indices in wanted.items()
    }
    if unrepaired and not moved and not any(recomputed.values()):
        raise _nothing_done(unrepaired)
    return _result(bank, report, recomputed, moved, unrepaired)


def _without_manifest(bank: Place | str, report: VerifyReport) -> RepairReport:
    """Repair what needs no manifest; damaged chunks stay, since computing them again needs one."""
    others = tuple(damage for damage in report.damaged if damage.path != MANIFEST)
    moved: list[str] = []
    if all(damage.chunk is None for damage in others):
        quarantine(bank, replace(report, damaged=others))
        moved = [damage.path for damage in others if damage.reason != "missing"]
    return _result(bank, report, {}, moved, [])


def _result(
    bank: Place | str,
    report: VerifyReport,
    recomputed: dict[str, int],
    moved: Sequence[str],
    unrepaired: Sequence[Unrepaired],
) -> RepairReport:
    now = verify(bank)
    return {
        "ok": now.ok and not unrepaired,
        "damaged": len(report.damaged),
        "recomputed": sum(recomputed.values()),
        "features": recomputed,
        "quarantined": sorted(moved),
        "unrepaired": [chunks.to_dict() for chunks in unrepaired],
        "remaining": now.to_dict()["damaged"],
    }


def _nothing_done(unrepaired: Sequence[Unrepaired]) -> Refused:
    """Return the error for a repair in which nothing could be repaired or changed."""
    first = unrepaired[0].error
    named = "; ".join(f"chunk {', '.join(map(str, bad.chunks))} of {bad.feature}" for bad in unrepaired)
    return type(first)(f"Damaged as before: {named}. {first.found}", first.rule, first.remedy)


def _promises(root: Place, report: VerifyReport) -> dict[str, list[Promise]]:
    """Collect what damaged chunks must be again, by feature; leave out those without any record of it."""
    promises: dict[str, list[Promise]] = {}
    damaged = {(damage.feature, damage.chunk) for damage in report.damaged}
    for feature, chunk in sorted((f, c) for f, c in damaged if f is not None and c is not None):
        layout = definition(root, feature)
        promise = None if layout is None else promise_of_chunk(layout, chunk)
        if promise is not None:
            promises.setdefault(feature, []).append(promise)
    return promises


def _without(report: VerifyReport, promises: dict[str, list[Promise]]) -> VerifyReport:
    """Return the report without the chunks that are restored from a promise."""
    healed = {(feature, promise.index) for feature, chunks in promises.items() for promise in chunks}
    remaining = tuple(damage for damage in report.damaged if (damage.feature, damage.chunk) not in healed)
    return VerifyReport(report.chunks, remaining)


def _embed_again(store: Bank, feature: str, settings: "_Settings") -> None:
    """Compute chunks of which no promise is left, as in resuming an interrupted run."""
    layout = definition(store.path, feature)
    if layout is None:
        raise BankError(
            f"The key of {feature} is lost",
            "It says what the feature is",
            "run the same `embank embed` command again, which writes it anew",
        )
    again = settings.restored(store, layout)
    embed(
        again.manifest,
        again.work.specs,
        store.path,
        runtime=again.work.runtime,
        options=again.work.options,
        on_progress=settings.on_progress,
    )


def _heal(
    store: Bank, feature: str, promises: Sequence[Promise], settings: "_Settings"
) -> tuple[list[str], list[Unrepaired]]:
    """Compute chunks again, one by one, and restore those that agree with what was promised."""
    layout = definition(store.path, feature)
    assert layout is not None  # or there would be no promise
    moved: list[str] = []
    lost = [promise for promise in promises if not heal_marker(layout, promise)]
    unrepaired: list[Unrepaired] = []
    if lost:
        try:
            moved, unrepaired = _compute(settings.restored(store, layout), lost, settings)
        except Refused as error:
            unrepaired = [_unrepaired(feature, lost, error)]
    if not unrepaired:
        seal_complete(store, feature)
    return moved, unrepaired


def _compute(
    again: "_Again", promises: Sequence[Promise], settings: "_Settings"
) -> tuple[list[str], list[Unrepaired]]:
    moved: list[str] = []
    unrepaired: list[Unrepaired] = []
    layout, work = again.layout, again.work
    by_index = {promise.index: promise for promise in promises}

    def put_back(model: int, result: ChunkResult, task: ChunkTask) -> None:
        moved.extend(heal_chunk(layout, by_index[task.chunk], result, min_cosine=again.min_cosine))

    tasks = [ChunkTask(promise.index, (0,)) for promise in promises]
    watch = Watch((work.specs[0].slug,), sum(map(work.size, tasks)), settings.on_progress)
    with (
        coordinating(layout.side / "lock", f"Feature {layout.name} of {again.bank.path}"),
        closing(Resident(work, put_back)) as resident,
    ):
        for task in tasks:
            try:
                resident.run([task], watch.count)
            except Refused as error:
                unrepaired.append(_unrepaired(layout.name, [by_index[task.chunk]], error))
    return moved, unrepaired


def _unrepaired(feature: str, promises: Sequence[Promise], error: Refused) -> Unrepaired:
    return Unrepaired(feature, tuple(promise.index for promise in promises), error)


@dataclass(frozen=True)
class _Again:
    """Encoder, images and tolerance for computing a feature again.

    Attributes:
        min_cosine: how alike the embeddings must be; None: equal to the bit.
    """

    bank: Bank
    layout: FeatureLayout
    manifest: Manifest
    work: Work
    min_cosine: float | None


@dataclass(frozen=True)
class _Settings:
    """The user's weights, images and device, and the progress callback."""

    weights: Path | None
    root: Path | None
    device: str
    on_progress: Callable[[PassProgress], None] | None

    def restored(self, bank: Bank, layout: FeatureLayout) -> _Again:
        """Restore the encoder and the images of a feature.

        Raises:
            Refused: weights or images are gone, or this machine makes other features.
        """
        feature = restore(
            bank,
            layout.name,
            weights=self.weights,
            root=self.root,
            device=self.device,
            recorded_threads=True,
            same_kind=True,
        )
        spec, runtime, options = feature.spec, feature.runtime, feature.options
        manifest = replace(bank.manifest(), root=feature.images.root)
        decoder = decoder_name(options.decoder, runtime.device, options.dct)
        key = feature_key(spec, decoder, runtime, layout.key.images, options.dtype)
        if key.name != layout.name:
            raise BankError(
                f"These inputs make {key.name}, not {layout.name}",
                "A repair uses the very weights, settings and decoder that made the features",
                "give the original file with --weights",
            )
        here = Local(Ready(bank, manifest))
        work = Work(manifest.root, (spec,), (layout,), runtime, options, here)
        exact = not (feature.made.runtime.on_cuda or runtime.on_cuda or runtime.compile)
        least = None if exact else _least_cosine(bank, layout, runtime.precision)
        return _Again(bank, layout, manifest, work, least)


def _least_cosine(store: Bank, layout: FeatureLayout, precision: str) -> float:
    """Return the lowest acceptable cosine: by the feature's certificate, else by its precision."""
    certificate = store.describe(layout.name)["certificate"] or {}
    measured = certificate.get("embedding", {}).get("precision_min_cosine")
    return float(measured) if measured is not None else _LEAST_COSINE[precision]
