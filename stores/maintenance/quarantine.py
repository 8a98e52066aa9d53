"""Moving damage aside, so that files that follow from others are rebuilt, and chunks are computed again.

Nothing is deleted but caches: damaged files move to `.embank/quarantine`. A second repair changes nothing,
and an interrupted one is finished by the next.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from stores.backends import files, locks
from stores.backends.location import Place, place
from stores.bank import documents, integrity
from stores.bank.contents import restore_sets
from stores.bank.create import column_files, run_document
from stores.bank.layout import MANIFEST, RUN_DOCUMENT, SIDE, FeatureLayout
from stores.bank.links import refuse_links
from stores.bank.markers import missing_chunks
from stores.bank.reader import Bank
from stores.bank.records import FOLDER, record_stem
from stores.bank.seal import (
    Seal,
    definition,
    feature_names,
    read_seal,
    seal_file,
    seal_path,
    write_root_metadata,
)
from stores.bank.writer import FeatureWriter
from stores.errors import BankError, Refused
from stores.maintenance.cleanup import quarantine_chunk, quarantine_file
from stores.maintenance.report import Damage, VerifyReport
from stores.manifest.ids import with_former_ids
from stores.manifest.restore import restore_manifest

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest


def quarantine(
    bank: Bank | Place | str, report: VerifyReport, *, unfinished: Collection[str] = ()
) -> dict[str, list[int]]:
    """Take damage out of use and rebuild whatever the rest of the bank determines.

    Afterwards `FeatureWriter.todo` lists exactly the damaged chunks; what lost no chunk is sealed again.

    Args:
        bank: an open bank, or its path.
        report: from `verify`, just now.
        unfinished: features that have damage which the report leaves out: they are not sealed.

    Returns:
        Feature -> chunks to compute again, for every damaged feature that is not sealed now; an empty list if
        its chunks are there but its key is lost (the same embed command puts that back).

    Raises:
        BankError: the run document is damaged and nothing confirms what it said; nothing was changed.
        Refused: a feature is being written. MachineFault: I/O error.
    """
    root = bank.path if isinstance(bank, Bank) else place(bank)
    refuse_links(root)
    for folder in ("quarantine", "tmp"):
        files.make_directory(root / SIDE / folder)
    if any(damage.path == RUN_DOCUMENT for damage in report.damaged):
        _rebuild_run_document(root)
    opened = Bank.open(root)
    _rebuild_columns(opened)
    restore_sets(root)
    names = sorted({damage.feature for damage in report.damaged if damage.feature is not None})
    for name in names:
        _mend_feature(root, name, [damage for damage in report.damaged if damage.feature == name])
    _set_aside_records(root, report)
    # A lost seal shows as a root document that lists more than there is: seal every complete feature.
    for name in feature_names(root):
        if name not in unfinished:
            seal_complete(opened, name)
    with locks.held(root / SIDE / "lock"):
        write_root_metadata(root)
    lost = {
        name: sorted({d.chunk for d in report.damaged if d.feature == name and d.chunk is not None})
        for name in names
    }
    return {
        name: chunks for name, chunks in lost.items() if files.stat_if_there(seal_path(root, name)) is None
    }


def _mend_feature(root: Place, name: str, damaged: list[Damage]) -> None:
    layout = definition(root, name)
    files.make_directory(root / SIDE / name)
    with (
        locks.coordinating(root / SIDE / name / "lock", f"Feature {name} of {root}"),
        locks.held(root / SIDE / name / "commit.lock"),
    ):
        # Documents before data: a lost key follows from the seal, which must stay until the key is back.
        _set_aside_documents(root, name, damaged)
        if layout is not None:
            _rebuild_documents(root, layout)
        _set_aside_chunks(root, name, damaged)


def _set_aside_documents(root: Place, name: str, damaged: list[Damage]) -> None:
    target = files.temporary(root / SIDE / "quarantine", name)
    for damage in damaged:
        if damage.chunk is None:
            quarantine_file(root, damage.path, target)


def _set_aside_chunks(root: Place, name: str, damaged: list[Damage]) -> None:
    """Remove the seal first, then the marker, then data, so that none describes what is gone."""
    files.remove(root / SIDE / name / "stamps.json")
    chunks = sorted({damage.chunk for damage in damaged if damage.chunk is not None})
    if chunks:
        quarantine_file(root, seal_file(name), files.temporary(root / SIDE / "quarantine", name))
    for index in chunks:
        quarantine_chunk(root, name, index)


def _rebuild_documents(root: Place, layout: FeatureLayout) -> None:
    """Write the key and the zarr metadata that are missing now."""
    wanted = {
        f"{SIDE}/{layout.name}/key.json": documents.encode(layout.key_document())
    } | layout.metadata_files()
    for path, data in wanted.items():
        files.make_directory((root / path).parent)
        files.create(root / path, data, files.temporary(root / SIDE / "tmp", layout.name))
        files.sync_directory((root / path).parent)


def seal_complete(bank: Bank, name: str) -> None:
    """Seal a feature that has all its chunks and no seal.

    Raises:
        BankError: a chunk is damaged. MachineFault: I/O error.
    """
    if files.stat_if_there(seal_path(bank.path, name)) is not None:
        return
    layout = definition(bank.path, name)
    if layout is None or missing_chunks(layout):
        return
    with FeatureWriter(bank, layout.key, layout.dim, layout.image_set) as writer:
        if not writer.todo:
            writer.seal()


def _set_aside_records(root: Place, report: VerifyReport) -> None:
    """Move damaged records aside, each with the predictions beside it, which belong together."""
    target = files.temporary(root / SIDE / "quarantine", "records")
    damaged = [damage.path for damage in report.damaged if damage.feature is None]
    stems = {record_stem(path) for path in damaged if path.startswith(f"{FOLDER}/")}
    for name in files.names(root / FOLDER) if stems else ():
        if record_stem(f"{FOLDER}/{name}") in stems:
            quarantine_file(root, f"{FOLDER}/{name}", target)


def _rebuild_columns(bank: Bank) -> None:
    """Write damaged label columns again from the manifest, if that is intact.

    The files say which are damaged: a verification cannot tell while the run document is damaged as well.
    """
    digests = {path: files.digest(bank.path / path) for path in bank.files}
    damaged = {path for path, state in digests.items() if state is None or state[1] != bank.files[path]}
    if not damaged or MANIFEST in damaged:
        return
    files.make_directory(bank.path / SIDE / "columns")
    for path, data in column_files(bank.manifest()).items():
        if path in damaged and integrity.promise_of(data)["sha256"] == bank.files[path]:
            files.replace(bank.path / path, data, files.temporary(bank.path / SIDE / "tmp", "bank"))


def put_back_manifest(root: Place, manifest: "Manifest") -> None:
    """Restore a lost or damaged manifest, and the run document if that is lost or damaged too.

    Args:
        root: of the bank.
        manifest: the one that the bank was made with; where it is not, nothing is changed.

    Raises:
        BankError: another manifest, or a bank without features and run document. MachineFault: I/O error.
    """
    if not files.names(root / SIDE) or _has_run_document(root):
        bank = Bank.open(root)
        manifest = with_former_ids(manifest, bank.image_digest).as_made(bank.manifest_digest)
        if manifest.digest != bank.manifest_digest:
            raise _another_manifest(root, manifest, bank.image_digest, bank.manifest_digest)
        restore_manifest(bank, manifest)
        return
    seals = _seals(root)
    layouts = [definition(root, name) for name in feature_names(root)]
    grids = {(layout.grid, layout.key.images) for layout in layouts if layout is not None}
    if len(grids) != 1:
        raise _unconfirmed(root, "embed into a new bank")
    ((grid, images),) = grids
    manifest = with_former_ids(manifest, images)
    manifest = manifest.as_made(seals[0].manifest_digest) if seals else manifest
    if (grid.rows, images) != (len(manifest), manifest.image_digest):
        raise _another_manifest(root, manifest, images, "")
    for seal in seals:
        if not _agrees(seal, manifest):
            raise _another_manifest(root, manifest, images, seal.manifest_digest)
    for folder in ("quarantine", "tmp"):
        files.make_directory(root / SIDE / folder)
    with locks.held(root / SIDE / "lock"):
        manifest.write(root / MANIFEST)
        _write_run_document(root, manifest, grid.chunk_rows, files.read(root / MANIFEST))


def _has_run_document(root: Place) -> bool:
    try:
        return documents.read_if_there(root / RUN_DOCUMENT) is not None and bool(Bank.open(root))
    except documents.BrokenDocument:
        return False


def _another_manifest(root: Place, manifest: "Manifest", images: str, digest: str) -> BankError:
    what = "labels, splits or groups" if manifest.image_digest == images else "images"
    return BankError(
        f"This manifest (digest {manifest.digest[:12]}) has other {what} than {root} was made with"
        + f" ({digest[:12]})" * bool(digest),
        "A bank keeps the manifest that it was made with",
        "give that one, or the copy of it in an export; if there is none, embed into a new bank",
    )


def _rebuild_run_document(root: Place) -> None:
    """Write the run document again, if the manifest and every sealed feature agree on its content."""
    from stores.manifest.manifest import Manifest

    seals = _seals(root)
    data = files.read_if_there(root / MANIFEST)
    grids = {seal.definition["chunk_rows"] for seal in seals}
    if data is not None and len(grids) == 1:
        try:
            manifest = Manifest.read(root / MANIFEST, allow_outside=True)
        except Refused:  # damaged so that it is no Parquet, or no manifest
            raise _unconfirmed(root) from None
        if all(_agrees(seal, manifest) for seal in seals):
            _write_run_document(root, manifest, grids.pop(), data)
            return
    raise _unconfirmed(root)


def _write_run_document(root: Place, manifest: "Manifest", chunk_rows: int, data: bytes) -> None:
    body = run_document(manifest, chunk_rows, {MANIFEST: data, **column_files(manifest)})
    quarantine_file(root, RUN_DOCUMENT, files.temporary(root / SIDE / "quarantine", "bank"))
    documents.create(root / RUN_DOCUMENT, body, files.temporary(root / SIDE / "tmp", "bank"))


def _agrees(seal: Seal, manifest: "Manifest") -> bool:
    return (seal.manifest_digest, seal.definition["key"]["images"], seal.rows) == (
        manifest.digest,
        manifest.image_digest,
        len(manifest),
    )


def _seals(root: Place) -> list[Seal]:
    seals = []
    for name in feature_names(root):
        try:
            sealed = read_seal(root, name)
        except BankError:
            continue
        seals += [] if sealed is None else [sealed[0]]
    return seals


def _unconfirmed(root: Place, remedy: str = "") -> BankError:
    with_it = (
        f"run `embank bank repair {root} --manifest MANIFEST` with the manifest that the bank was made with"
    )
    return BankError(
        f"{root / RUN_DOCUMENT} is damaged, and no finished feature confirms, with the manifest, what it was",
        "Nothing is guessed about a bank",
        remedy or with_it,
    )
