"""Other labels for the same features: the bytes of the old bank, the cells of the new manifest."""

import errno
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.faults.banks import Os, patched
from stores.bank import documents
from stores.bank.commit import Committer
from stores.bank.layout import FeatureLayout
from stores.bank.reader import Bank
from stores.bank.writer import FeatureWriter, open_or_create, write_certificate
from stores.errors import BankError, MachineFault, ManifestError, Refused
from stores.maintenance.relabel import aligned, relabel
from stores.maintenance.verify import quarantine, verify
from stores.manifest.manifest import Manifest
from tests.stores.banks import chunk_result, content, flip, is_bad, make_bank, make_key, make_manifest

ROWS, DIM, CHUNK = 150, 8, 64


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return make_bank(tmp_path / "old", ROWS, DIM, CHUNK)


def other(bank: Bank, rows: int = ROWS, seed: int = 0) -> Manifest:
    """Some of the bank's images, shuffled, with labels, patients and a column of their own."""
    frame = bank.manifest().frame.sample(rows, random_state=seed)
    frame["label"] = [("ill", "well", "")[row % 3] for row in range(rows)]
    frame["group"] = [f"case {row // 2}" for row in range(rows)]
    frame["age"] = [str(row) for row in range(rows)]
    return Manifest.from_frame(frame, "/anywhere")


def expected(bank: Bank, manifest: Manifest) -> pd.DataFrame:
    """By pandas: the bank's images in its order, each with the cells of its row in the manifest."""
    ids = bank.manifest().frame[["image_id", "uri"]]
    cells = manifest.frame.drop(columns="uri").set_index("image_id")
    return ids.join(cells, on="image_id").fillna("")


def test_features_are_the_same_and_labels_the_new_ones(bank: Bank, tmp_path: Path) -> None:
    before, manifest = content(tmp_path / "old"), other(bank, 110)
    made = relabel(bank, manifest, tmp_path / "new")
    assert (made.named, made.in_order, made.unfinished) == (110, False, ())
    opened = Bank.open(tmp_path / "new")
    assert opened == made.bank
    features, old = opened.features(), bank.features()
    assert made.features == (old.name,) and features.key == old.key
    np.testing.assert_array_equal(features.array, old.array)
    np.testing.assert_array_equal(features.status, old.status)
    assert features.failures() == old.failures()
    wanted = expected(bank, manifest)
    pd.testing.assert_frame_equal(opened.manifest().frame, wanted, check_like=True, check_dtype=False)
    for name in ("label", "split", "group"):
        codes, words = opened.column(name)
        assert [words[code] if code >= 0 else "" for code in codes] == wanted[name].tolist()
    assert opened.manifest().root.resolve() == bank.manifest().root.resolve()
    assert verify(opened).ok and verify(bank).ok
    assert content(tmp_path / "old") == before


def test_manifest_of_the_bank_itself_makes_the_bank_again(bank: Bank, tmp_path: Path) -> None:
    made = relabel(bank, bank.manifest(), tmp_path / "new")
    assert (made.named, made.in_order) == (ROWS, True)
    assert content(tmp_path / "new") == content(tmp_path / "old")


@given(st.lists(st.integers(0, 11), min_size=1, max_size=12, unique=True), st.booleans())
def test_alignment_is_by_image_id(rows: list[int], hashed: bool) -> None:
    frame = make_manifest(Path("/x"), 12).frame
    if hashed:
        frame["sha256"] = [f"{row:064x}" if row % 2 else "" for row in range(12)]
    own = Manifest.from_frame(frame, "/x")
    part = frame.iloc[rows].assign(label=[f"label {row}" for row in rows], extra=[f"extra {r}" for r in rows])
    found, named, in_order = aligned(own, Manifest.from_frame(part, "/y"))
    assert found.image_digest == own.image_digest
    assert (named, in_order) == (len(rows), rows == sorted(rows))
    assert found.column("label") == [f"label {row}" if row in rows else "" for row in range(12)]
    assert found.column("extra") == [f"extra {row}" if row in rows else "" for row in range(12)]


def test_images_that_the_bank_does_not_hold_are_refused(bank: Bank, tmp_path: Path) -> None:
    frame = other(bank, 5).frame
    frame.loc[frame.index[2], ["image_id", "uri"]] = "image 99999", "99999.png"
    with pytest.raises(ManifestError, match="1 of 5 images are not in the bank: 'image 99999'"):
        relabel(bank, Manifest.from_frame(frame, "/x"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_images_under_other_ids_are_known_by_their_uris(bank: Bank, tmp_path: Path) -> None:
    manifest = other(bank, 110)
    frame = manifest.frame.assign(image_id=manifest.uris, uri="./" + manifest.frame["uri"])
    made = relabel(bank, Manifest.from_frame(frame, "/anywhere"), tmp_path / "new")
    assert (made.named, made.matched_by, made.in_order) == (110, "uri", False)
    pd.testing.assert_frame_equal(
        made.bank.manifest().frame, expected(bank, manifest), check_like=True, check_dtype=False
    )
    assert relabel(bank, manifest, tmp_path / "new").matched_by == "image_id"


def test_renamed_files_are_known_by_what_the_rows_were_made_from(bank: Bank, tmp_path: Path) -> None:
    """Rows that failed say nothing of their file: they are found by no content."""
    frame = bank.manifest().frame.assign(
        sha256=[hashlib.sha256(b"image %d" % row).hexdigest() for row in range(ROWS)],
        image_id=[f"x{row}" for row in range(ROWS)],
        uri=[f"moved/{row}.png" for row in range(ROWS)],
        label=[f"label {row}" for row in range(ROWS)],
    )
    good = [row for row in range(ROWS) if not is_bad(row)][::-1]
    made = relabel(bank, Manifest.from_frame(frame.iloc[good], "/x"), tmp_path / "new")
    assert (made.named, made.matched_by, made.in_order) == (len(good), "content", False)
    assert made.bank.manifest().image_ids == bank.manifest().image_ids
    assert made.bank.manifest().column("label") == [
        "" if is_bad(row) else f"label {row}" for row in range(ROWS)
    ]
    bad = next(row for row in range(ROWS) if is_bad(row))
    with pytest.raises(ManifestError, match=rf"1 of 2 images are not .* 'moved/{bad}\.png' .*by content 1"):
        relabel(bank, Manifest.from_frame(frame.iloc[[bad, good[0]]], "/x"), tmp_path / "newer")
    assert not (tmp_path / "newer").exists()


def hashed(digests: Mapping[str, str], uris: Mapping[str, str]) -> Manifest:
    frame = pd.DataFrame({"image_id": list(uris), "uri": list(uris.values())})
    return Manifest.from_frame(frame.assign(sha256=[digests[name] for name in uris]), "/x")


def test_other_files_of_the_same_name_are_refused() -> None:
    one, two = "1" * 64, "2" * 64
    own = hashed({"a": one, "b": ""}, {"a": "a.png", "b": "b.png"})
    moved = hashed({"a": one, "b": ""}, {"a": "moved/a.png", "b": "./b.png"})
    assert aligned(own, moved)[0].uris == ["a.png", "b.png"]
    for digests, uris in (
        ({"a": two, "b": ""}, {"a": "a.png", "b": "b.png"}),
        ({"a": one, "b": one}, {"a": "a.png", "b": "other/b.png"}),
        ({"a": "", "b": ""}, {"a": "other/a.png", "b": "b.png"}),
    ):
        with pytest.raises(ManifestError, match="1 images are other files"):
            aligned(own, hashed(digests, uris))


def test_what_the_rows_were_made_from_is_matched_where_the_bank_has_no_digests(
    bank: Bank, tmp_path: Path
) -> None:
    """Contents say which image a row is, whatever the file is called now."""
    frame = bank.manifest().frame
    assert bank.manifest().sha256s is None
    digests = [hashlib.sha256(b"image %d" % row).hexdigest() for row in range(ROWS)]
    # Rows that failed say nothing of their file, so that its path counts.
    moved = [uri if is_bad(row) else f"moved/{uri}" for row, uri in enumerate(frame["uri"])]
    made = relabel(bank, Manifest.from_frame(frame.assign(sha256=digests, uri=moved), "/x"), tmp_path / "new")
    np.testing.assert_array_equal(made.bank.features().contents, bank.features().contents)
    swapped = [digests[1], digests[0], *digests[2:]]
    with pytest.raises(ManifestError, match="2 images are other files"):
        relabel(bank, Manifest.from_frame(frame.assign(sha256=swapped), "/x"), tmp_path / "other")


def test_files_are_shared_where_they_can_be(bank: Bank, tmp_path: Path) -> None:
    relabel(bank, other(bank), tmp_path / "new")
    chunk = f"{bank.features().name}/embedding/c/0/0"
    assert (tmp_path / "new" / chunk).samefile(tmp_path / "old" / chunk)
    shutil.rmtree(tmp_path / "old")
    assert verify(tmp_path / "new").ok


class _NoLinks(Os):
    """A disk between whose folders there are no hard links."""

    def link(self, source: Any, target: Any) -> None:
        if ".embank" not in str(source):  # a temporary and its file are in one bank
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        os.link(source, target)


def test_files_are_copied_where_they_cannot_be_shared(bank: Bank, tmp_path: Path) -> None:
    with patched(_NoLinks(lambda *_: None)):
        relabel(bank, bank.manifest(), tmp_path / "new")
    chunk = f"{bank.features().name}/embedding/c/0/0"
    assert not (tmp_path / "new" / chunk).samefile(tmp_path / "old" / chunk)
    assert content(tmp_path / "new") == content(tmp_path / "old")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
def test_a_run_that_was_cut_off_goes_on(share: float, bank: Bank, tmp_path: Path) -> None:
    manifest, plain = other(bank), Os(lambda *_: None)
    with patched(plain):
        relabel(bank, manifest, tmp_path / "whole")

    def cut(count: int, name: str, args: tuple[Any, ...]) -> None:
        if count >= share * plain.count:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with patched(Os(cut)), pytest.raises(MachineFault):
        relabel(bank, manifest, tmp_path / "new")
    relabel(bank, manifest, tmp_path / "new")
    assert content(tmp_path / "new") == content(tmp_path / "whole")


def test_run_again_adds_what_is_new(bank: Bank, tmp_path: Path) -> None:
    manifest = other(bank)
    relabel(bank, manifest, tmp_path / "new")
    key = make_key(bank.image_digest, model="torchvision/vgg11")
    with FeatureWriter(bank, key, DIM) as writer:
        for index in writer.todo[:-1]:
            writer.commit(chunk_result(index, *writer.bounds(index), DIM))
    assert relabel(bank, manifest, tmp_path / "new").unfinished == (key.name,)
    with FeatureWriter(bank, key, DIM) as writer:
        for index in writer.todo:
            writer.commit(chunk_result(index, *writer.bounds(index), DIM))
        writer.write_provenance({"model": key.model})
        writer.seal()
    write_certificate(bank, key, {"cosine": 1.0})
    told: list[tuple[int, int]] = []
    made = relabel(bank, manifest, tmp_path / "new", progress=lambda done, total: told.append((done, total)))
    assert len(made.features) == 2 and made.unfinished == ()
    shown = made.bank.describe(key.name)
    assert (shown["provenance"], shown["certificate"]) == ({"model": key.model}, {"cosine": 1.0})
    assert told[-1][0] == told[-1][1] == 2 * bank.features(key.name).info.bytes


def test_one_feature_alone(bank: Bank, tmp_path: Path) -> None:
    name = bank.features().name
    with pytest.raises(BankError, match="not in"):
        relabel(bank, other(bank), tmp_path / "new", features=["torchvision/vgg11"])
    made = relabel(bank, other(bank), tmp_path / "new", features=["torchvision/resnet18", name])
    assert made.features == (name,)


def test_a_target_of_another_kind_is_refused(bank: Bank, tmp_path: Path) -> None:
    relabel(bank, other(bank), tmp_path / "new")
    with pytest.raises(BankError, match="other labels"):
        relabel(bank, other(bank, seed=1), tmp_path / "new")
    make_bank(tmp_path / "chunks", ROWS, DIM, 128)
    with pytest.raises(Refused, match="taken over whole"):
        relabel(bank, bank.manifest(), tmp_path / "chunks")
    make_bank(tmp_path / "rows", ROWS - 1, DIM, CHUNK)
    with pytest.raises(BankError, match="other images"):
        relabel(bank, other(bank), tmp_path / "rows")


def test_nothing_finished_is_refused(tmp_path: Path) -> None:
    bank = open_or_create(tmp_path / "old", make_manifest(tmp_path, ROWS))
    with pytest.raises(BankError, match="no finished feature"):
        relabel(bank, bank.manifest(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_damage_is_not_taken_over(bank: Bank, tmp_path: Path) -> None:
    features = bank.features()
    chunk = f"{features.name}/embedding/c/1/0"
    flip(tmp_path / "old" / chunk)
    with pytest.raises(BankError, match=r"Chunk 1 .* damaged"):
        relabel(bank, other(bank), tmp_path / "new")
    target = open_or_create(tmp_path / "new", bank.manifest(), chunk_rows=CHUNK)
    with FeatureWriter(target, features.key, DIM) as writer:
        writer.committer.adopt(0, bank.path)
        with pytest.raises(BankError, match="embedding/c/1/0 is damaged"):
            writer.committer.adopt(1, bank.path)
        assert writer.todo == [1, 2]


@pytest.mark.parametrize("change", ["chunk", "feature", "size"])
def test_a_marker_of_something_else_is_not_taken_over(change: str, bank: Bank, tmp_path: Path) -> None:
    features = bank.features()
    layout = FeatureLayout(tmp_path / "new", features.key, DIM, bank.grid)
    path = tmp_path / "old" / layout.marker(1)
    body = documents.read(path)
    if change == "chunk":
        body = documents.read(tmp_path / "old" / layout.marker(0))
    elif change == "feature":
        body["feature"] = "0" * 64
    else:
        next(iter(body["files"].values()))["size"] += 1
    path.write_bytes(documents.encode(body))
    with pytest.raises(BankError, match="is damaged"):
        Committer(layout).adopt(1, bank.path)


def test_mending_one_bank_leaves_the_other(bank: Bank, tmp_path: Path) -> None:
    made = relabel(bank, other(bank), tmp_path / "new")
    (tmp_path / "new" / bank.features().name / "norm" / "c" / "2").unlink()
    assert quarantine(made.bank, verify(made.bank)) == {made.features[0]: [2]}
    assert verify(bank).ok
    again = relabel(bank, other(bank), tmp_path / "new")  # the lost chunk comes from the old bank
    assert verify(again.bank).ok
