"""The features of a bank under other labels, splits and groups: nothing is computed again.

A bank keeps its manifest for good, since its records refer to it. So other labels need another bank. Its
features are the same files, by hard links where the file system has them and by copies elsewhere; each bank
can be moved, repaired or deleted without the other. A new link counts as a change, so the old bank's next
evaluation reads its files once more.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stores.backends import files
from stores.backends.location import Place, place
from stores.bank import documents, names
from stores.bank.contents import Table, contents_of_bank, copy_set
from stores.bank.layout import RUN_DOCUMENT, SIDE
from stores.bank.reader import Bank, FeatureSet
from stores.bank.writer import FeatureWriter, open_or_create, refuse_other_labels, write_certificate
from stores.errors import BankError, ManifestError, Refused
from stores.manifest.columns import COLUMNS, plain_uris
from stores.manifest.manifest import Manifest
from stores.manifest.matching import Criterion, Match, digests, match, with_partners_of
from stores.manifest.uri_policy import shown

if TYPE_CHECKING:
    import pyarrow as pa

#: Called with (bytes taken over so far, bytes in all).
Progress = Callable[[int, int], None]
_SHOWN = 3
#: Sealed documents that go with a feature.
_NOTES = ("provenance.json", "certificate.json")


@dataclass(frozen=True)
class Relabelled:
    """Result of a relabelling.

    Attributes:
        bank: the new one.
        manifest: its manifest.
        named: images that the manifest names; the others have no label, split or group there.
        matched_by: what its rows were matched to the bank's by: image_id, uri or content.
        in_order: whether the manifest names them in the order of the bank's rows, which are the new bank's.
        features: names of those taken over.
        unfinished: names of those left out, because they are not sealed.
    """

    bank: Bank
    manifest: Manifest
    named: int
    matched_by: Criterion
    in_order: bool
    features: tuple[str, ...]
    unfinished: tuple[str, ...]


def relabel(
    source: Bank,
    manifest: Manifest,
    target: Place | str,
    *,
    features: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Relabelled:
    """Make a bank of the same images and features under another manifest; repeated, it resumes or adds.

    Args:
        source: the bank; it is not changed.
        manifest: names images of the bank, all or some, in any order, with the same files: all by
            `image_id`, else by uri, else by content (`stores.manifest.matching`). Ids and uris stay the
            bank's; its other columns are those of the new bank.
        target: of the new bank: an empty directory, nothing yet, or what an earlier run of this made.
        features: slugs or names; None for all that are sealed.

    Raises:
        ManifestError: images that the bank does not hold, or that are other files there.
        BankError: no sealed feature, a damaged one, or a target of other images, labels or chunks.
        MachineFault: disk full or I/O error; run again.
    """
    target = place(target)
    _refuse_itself(target, source)
    selected, unfinished = _features_of(source, features)
    own, contents = source.manifest(), contents_of_bank(source)
    matched = match(own, manifest, contents)
    labelled, named, in_order = _aligned(own, manifest, contents, matched)
    for feature in selected:  # a damaged one is refused while there is no new bank yet
        for name in _NOTES:
            documents.read_if_there(source.path / SIDE / feature.name / name)
    _refuse_other_chunks(target, source)
    called = _names(source, selected)
    names.check(target, called)
    bank = open_or_create(target, labelled, chunk_rows=source.chunk_rows)
    refuse_other_labels(bank, labelled)
    count = _Count(sum(feature.info.bytes for feature in selected), progress)
    for feature in selected:
        _take_over(feature, bank, count)
    names.give(bank.path, called)
    taken = tuple(feature.name for feature in selected)
    return Relabelled(bank, labelled, named, matched.by, in_order, taken, unfinished)


def aligned(own: Manifest, other: Manifest, contents: Table | None = None) -> tuple[Manifest, int, bool]:
    """Align another manifest with the images of a bank.

    Args:
        own: of the bank; its ids, files and order stay.
        other: names some of them (`stores.manifest.matching`).
        contents: what the bank's rows were made from, uint8 [rows, 32]; zeros, or None, where that is not
            known.

    Returns:
        The manifest, with empty cells for images that `other` does not name; how many it names; and whether
        in the same order.

    Raises:
        ManifestError: an image that is not in `own`, or that is another file there.
    """
    return _aligned(own, other, contents, match(own, other, contents))


def _aligned(
    own: Manifest, other: Manifest, contents: Table | None, matched: Match
) -> tuple[Manifest, int, bool]:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = np.full(len(own), -1)
    rows[matched.rows] = np.arange(len(other))
    where = pa.chunked_array([pa.array(rows, mask=rows < 0)])
    _refuse_other_files(own, other, where, contents)
    cells = with_partners_of(own, other, matched)
    columns = {name: own.table[name] for name in ("image_id", "uri")}
    own_digests = ["sha256"] if own.sha256s is not None else []
    extra = [name for name in other.table.column_names if name not in (*COLUMNS, "sha256")]
    for name in (*COLUMNS[2:], *own_digests, *extra):
        taken = own.table[name] if name in own_digests else cells.table[name].take(where)
        columns[name] = pc.fill_null(taken, "")
    # Every cell is of a manifest that was checked, and no two rows share a file that did not do so before.
    in_order = bool((np.diff(rows[rows >= 0]) > 0).all())
    return Manifest(pa.table(columns), own.root), len(matched.rows), in_order


def _refuse_other_files(
    own: Manifest, other: Manifest, where: "pa.ChunkedArray", contents: Table | None
) -> None:
    """Refuse other files under equal names: digests decide, else the paths below the roots."""
    import pyarrow.compute as pc

    differ = pc.not_equal(plain_uris(own.table["uri"]), plain_uris(other.table["uri"]).take(where))
    if other.sha256s is not None:
        here, there = _digests(own, contents), other.table["sha256"].take(where)
        known = pc.and_(pc.not_equal(here, ""), pc.not_equal(there, ""))
        differ = pc.if_else(known, pc.not_equal(here, there), differ)
    strange = own.table["image_id"].filter(pc.fill_null(differ, False))
    if len(strange):
        raise ManifestError(
            f"{len(strange)} images are other files in the bank: {_examples(strange)}",
            "An image_id with its uri (or its sha256, where it is known of both) names the same image",
            "start from the bank's own manifest.parquet, or embed this manifest into a bank of its own",
        )


def _digests(own: Manifest, contents: Table | None) -> "pa.ChunkedArray":
    import pyarrow as pa

    return pa.chunked_array([pa.array(digests(own, contents), pa.large_string())])


def _examples(ids: "pa.ChunkedArray") -> str:
    ellipsis = ", ..." if len(ids) > _SHOWN else ""
    return ", ".join(map(shown, ids[:_SHOWN].to_pylist())) + ellipsis


def _features_of(source: Bank, wanted: Sequence[str] | None) -> tuple[list[FeatureSet], tuple[str, ...]]:
    if wanted is not None:
        named = {feature.name: feature for feature in map(source.features, wanted)}
        return list(named.values()), ()
    infos = source.list()
    sealed = [source.features(info.name) for info in infos if info.sealed]
    if not sealed:
        raise BankError(
            f"{source.path} holds no finished feature",
            "There must be something to take over",
            "run the same `embank embed` command again; it goes on where it stopped",
        )
    return sealed, tuple(info.name for info in infos if not info.sealed)


def _refuse_itself(target: Place, source: Bank) -> None:
    if target.resolve() == source.path.resolve():
        raise BankError(
            f"{target} is the bank itself",
            "Its manifest stays: other labels make another bank",
            "choose a new directory",
        )


def _names(source: Bank, features: Sequence[FeatureSet]) -> dict[str, str]:
    """Read the chosen names, by feature."""
    chosen_names = {feature.name: names.read(source.path, feature.name) for feature in features}
    return {feature: name for feature, name in chosen_names.items() if name is not None}


def _refuse_other_chunks(target: Place, source: Bank) -> None:
    if files.stat_if_there(target / RUN_DOCUMENT) is None:
        return
    there = Bank.open(target)
    if there.rows == source.rows and there.chunk_rows != source.chunk_rows:
        raise Refused(
            f"{target} has {there.chunk_rows} rows a chunk, {source.path} has {source.chunk_rows}",
            "Chunks are taken over whole",
            "choose a new directory",
        )


class _Count:
    """Bytes taken over."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(self._done, self._total)


def _take_over(feature: FeatureSet, bank: Bank, count: _Count) -> None:
    source = feature.bank.path
    if image_set := feature.layout.image_set:
        copy_set(source, bank.path, image_set)
    with FeatureWriter(bank, feature.key, feature.dim, image_set, feature.layout.version) as writer:
        todo, chunks = writer.todo, writer.layout.grid.chunks
        chunk_bytes = feature.info.bytes // chunks  # chunks are padded to one size
        count(chunk_bytes * (chunks - len(todo)))

        def adopt(index: int) -> None:
            writer.committer.adopt(index, source)
            count(chunk_bytes)

        files.each(bank.path, adopt, todo)
        provenance = documents.read_if_there(source / SIDE / feature.name / "provenance.json")
        if provenance is not None:
            writer.write_provenance(provenance)
        writer.seal()
    certificate = documents.read_if_there(source / SIDE / feature.name / "certificate.json")
    if certificate is not None:
        write_certificate(bank, feature.key, certificate)
