"""Verification: every byte of a bank is read and compared with what was promised, without any cache."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stores.backends import files
from stores.backends.location import Place, place
from stores.bank import document_schemas, documents, integrity
from stores.bank.columns import manifest_remedy
from stores.bank.contents import damaged_sets
from stores.bank.layout import MANIFEST, RUN_DOCUMENT, SIDE, ZARR, FeatureLayout, is_feature_name, marker_file
from stores.bank.links import refuse_links
from stores.bank.markers import read_marker
from stores.bank.names import NOTE, Roster
from stores.bank.names import checked as checked_note
from stores.bank.predictions import broken_tables
from stores.bank.reader import Bank
from stores.bank.records import FOLDER, read_record, record_files
from stores.bank.seal import (
    definition,
    expected_root_metadata,
    feature_names,
    read_feature,
    read_seal,
    seal_file,
)
from stores.errors import BankError
from stores.maintenance.cleanup import marker_names_chunk
from stores.maintenance.quarantine import quarantine
from stores.maintenance.report import Damage, VerifyReport

__all__ = ["Damage", "VerifyReport", "quarantine", "verify"]

_RECOMPUTE = "`embank bank repair` computes this chunk again"
_REBUILD = "`embank bank repair` rebuilds it from the rest of the bank"
_DROP = "`embank bank repair` sets it aside; nothing else depends on it"
_DROP_RECORD = "`embank bank repair` sets it aside with its record; run the same evaluation again"
_EMBED = "run the same `embank embed` command again, which writes it anew"


def verify(
    bank: Bank | Place | str,
    features: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Verify a bank, with both finished and unfinished features.

    Args:
        bank: an open bank, or its path (which works even if the run document is damaged).
        features: names or slugs to look at; None looks at all. The bank's own files are always looked at.
        progress: called with (files read, files in all).

    Returns:
        The report; whole sealed features are stamped, so that opening them is quick.

    Raises:
        BankError: nothing there, another schema version, or an unknown feature.
        MachineFault: I/O error.
    """
    root = bank.path if isinstance(bank, Bank) else place(bank)
    opened, damaged = _open(root)
    damaged += [] if opened is None else list(_side_files(opened))
    damaged += _root_metadata(root)
    damaged += [Damage(None, None, path, reason, _REBUILD) for path, reason in damaged_sets(root).items()]
    damaged += _documents(root)
    checks = [_check(root, name, opened) for name in _choose(root, features)]
    damaged += [damage for check in checks for damage in check.damaged]
    promises = {path: promise for check in checks for path, promise in check.promises.items()}
    stamps = files.stamps(root, promises)
    broken = integrity.find_broken(root, promises, progress)
    damaged += [_damage_of(path, reason) for path, reason in broken.items()]
    for check in checks:
        if check.seal is not None and not any(damage.feature == check.name for damage in damaged):
            integrity.remember(root, check.name, check.seal, {path: stamps[path] for path in check.promises})
    if any(damage.path == MANIFEST for damage in damaged):
        damaged = [_after_manifest(root, damage) for damage in damaged]
    return VerifyReport(sum(check.chunks for check in checks), tuple(damaged))


def _after_manifest(root: Place, damage: Damage) -> Damage:
    """Advise restoring the manifest first, since chunks and columns are made from it."""
    if damage.chunk is None and not damage.path.startswith(f"{SIDE}/columns/"):
        return damage
    return replace(damage, remedy=manifest_remedy(root))


def _open(root: Place) -> tuple[Bank | None, list[Damage]]:
    refuse_links(root)
    if not files.names(root / SIDE):
        return Bank.open(root), []  # Raises: there is no bank.
    try:
        if files.stat_if_there(root / RUN_DOCUMENT) is not None:
            return Bank.open(root), []
        reason = "missing"
    except documents.BrokenDocument:
        reason = "differs from its own SHA-256"
    remedy = "`embank bank repair` rebuilds it if a finished feature confirms it; else embed into a new bank"
    return None, [Damage(None, None, RUN_DOCUMENT, reason, remedy)]


def _side_files(bank: Bank) -> Iterator[Damage]:
    """Check the manifest and the label columns against the run document."""
    for path, promise in bank.files.items():
        state = files.digest(bank.path / path)
        if state is None or state[1] != promise:
            reason = "missing" if state is None else "content differs from its SHA-256"
            remedy = manifest_remedy(bank.path) if path == MANIFEST else _REBUILD
            yield Damage(None, None, path, reason, remedy)


def _root_metadata(root: Place) -> list[Damage]:
    expected = expected_root_metadata(root)
    state = files.digest(root / ZARR, len(expected))  # a file of another size may be huge, and is not read
    if not integrity.difference(state, integrity.promise_of(expected)):
        return []
    reason = "missing" if state is None else "is not what the finished features make it"
    return [Damage(None, None, ZARR, reason, _REBUILD)]


def _documents(root: Place) -> list[Damage]:
    """Check the records, each with its own digest, and the predictions beside them."""
    damaged: list[Damage] = []
    for path in record_files(root):
        try:
            record = read_record(path)
        except documents.BrokenDocument:
            damaged.append(Damage(None, None, f"{FOLDER}/{path.name}", "differs from its own SHA-256", _DROP))
        except BankError:
            continue  # of another schema version
        else:
            broken = broken_tables(root, record, path.name)
            damaged += [Damage(None, None, table.path, reason, _DROP_RECORD) for table, reason in broken]
    return damaged


def _is_whole(path: Place, form: document_schemas.Test | None = None) -> bool:
    try:
        body = documents.read_if_there(path)
        if body is not None and form is not None:
            document_schemas.check(body, form, path)
    except documents.BrokenDocument:
        return False
    except BankError:
        return True  # of another schema version
    return True


def _choose(root: Place, wanted: Sequence[str] | None) -> list[str]:
    # Data without documents are damage as well, so look for both.
    every = sorted({*feature_names(root), *(name for name in files.names(root) if is_feature_name(name))})
    if wanted is None:
        return every
    roster = Roster.of(root, every)
    names: set[str] = set()
    for name in wanted:
        matching = roster.matching(name)
        if not matching:
            raise roster.unknown(name)
        names.update(entry.feature for entry in matching)
    return sorted(names)


@dataclass(frozen=True)
class _Check:
    """The files to read of one feature, and the damage that is already known."""

    name: str
    promises: dict[str, integrity.FilePromise]
    chunks: int
    damaged: list[Damage]
    seal: bytes | None


def _check(root: Place, name: str, bank: Bank | None) -> _Check:
    damaged = list(_notes(root, name))
    try:
        sealed = read_seal(root, name)
    except BankError as error:
        sealed = None
        damaged.append(Damage(name, None, seal_file(name), error.found, _REBUILD))
    damaged += _key(root, name, bank, sealed is not None)
    if sealed is not None:
        promises = dict(sealed[0].files)
        chunks = sum("/markers/" in path for path in promises)
        return _Check(name, promises, chunks, damaged, sealed[1])
    promises, broken, chunks = _by_markers(root, name)
    layout = definition(root, name)
    if layout is not None:
        promises.update(_metadata(layout, chunks > 0))
    return _Check(name, promises, chunks, damaged + broken, None)


def _key(root: Place, name: str, bank: Bank | None, sealed: bool) -> Iterator[Damage]:
    """Check the key if no seal covers its bytes, and whether it belongs here."""
    path = f"{SIDE}/{name}/key.json"
    try:
        layout = read_feature(root, name)
    except BankError as error:
        if not sealed:
            yield Damage(name, None, path, error.found, _EMBED)
        return
    if bank is not None and not bank.holds(layout):
        remedy = f"`embank bank rm {root} {name}` removes it; or move its folders out of this bank"
        yield Damage(name, None, path, "belongs to another bank", remedy)


def _notes(root: Place, name: str) -> Iterator[Damage]:
    """Check documents beside the features, each with its own digest."""
    for note in ("certificate.json", "provenance.json", "stamps.json"):
        if not _is_whole(root / SIDE / name / note):
            yield Damage(name, None, f"{SIDE}/{name}/{note}", "differs from its own SHA-256", _DROP)
    path = root / SIDE / name / NOTE
    if not _is_whole(path, lambda body: _is_note(body, path, name)):
        remedy = f"{_DROP}; `embank bank rename {root} {name} NAME` names the feature again"
        yield Damage(name, None, f"{SIDE}/{name}/{NOTE}", "is no name of this feature", remedy)


def _is_note(body: Any, path: Place, feature: str) -> bool:
    try:
        return bool(checked_note(body, path, feature))
    except documents.BrokenDocument:
        return False


def _by_markers(root: Place, name: str) -> tuple[dict[str, integrity.FilePromise], list[Damage], int]:
    """Collect the promises of the markers of a feature without a seal."""
    promises: dict[str, integrity.FilePromise] = {}
    damaged = []
    entries = files.names(root / SIDE / name / "markers")
    for entry in entries:
        number = entry.removesuffix(".json")
        index = int(number) if number.isdecimal() else None
        path = f"{SIDE}/{name}/markers/{entry}"
        if index is None or path != marker_file(name, index):
            damaged.append(Damage(name, None, path, "is no marker", _DROP))
            continue
        try:
            marker = read_marker(root / path)
        except documents.BrokenDocument:
            damaged.append(Damage(name, index, path, "differs from its own SHA-256", _RECOMPUTE))
            continue
        if not marker_names_chunk(name, index, marker):
            damaged.append(Damage(name, index, path, "belongs to another chunk", _RECOMPUTE))
            continue
        promises.update(marker["files"])
    return promises, damaged, len(entries)


def _metadata(layout: FeatureLayout, needed: bool) -> dict[str, integrity.FilePromise]:
    """Return the promises of the zarr metadata: of all if needed, else of the files that exist."""
    return {
        path: integrity.promise_of(data)
        for path, data in layout.metadata_files().items()
        if needed or files.stat_if_there(layout.root / path) is not None
    }


def _damage_of(path: str, reason: str) -> Damage:
    parts = path.split("/")
    index = integrity.chunk_index(path)
    return Damage(
        parts[1] if parts[0] == SIDE else parts[0],
        index,
        path,
        reason,
        _REBUILD if index is None else _RECOMPUTE,
    )
