"""One rule names images, and banks whose images were named by the former rule are recognised."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import datasets
from stores.bank.reader import Bank
from stores.bank.writer import open_or_create, refuse_other_labels, refuse_unfit
from stores.errors import BankError
from stores.maintenance.quarantine import put_back_manifest
from stores.maintenance.relabel import aligned
from stores.manifest.ids import former_folder_ids, with_former_ids, with_ids_of
from stores.manifest.manifest import Manifest
from stores.manifest.matching import match
from tests.stores.banks import make_bank

NAMES = ("a.png", "a.jpg", "a.png.jpg", "a.png.jpg.bmp", "b.c/d.png", "e.tif")
#: By hand, from the former rule: without suffix, unless two are equal so.
FORMER = ["a.png", "a.jpg", "a.png.jpg", "a.png.jpg.bmp", "b.c/d", "e"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root" / "train"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return tmp_path / "root"


def named(manifest: Manifest, ids: list[str]) -> Manifest:
    return Manifest.from_frame(manifest.frame.assign(image_id=ids), manifest.root)


def test_a_folder_a_table_and_a_layout_name_the_same_files_alike(folder: Path) -> None:
    listed = Manifest.from_folder(folder)
    (folder / "t.csv").write_text("\n".join(["uri", *listed.uris]))
    table = Manifest.read(folder / "t.csv")
    built = datasets.build("imagefolder", folder)
    assert listed.image_ids == listed.uris == table.image_ids
    assert dict(zip(built.uris, built.image_ids, strict=True)) == dict(
        zip(listed.uris, listed.image_ids, strict=True)
    )


def test_a_table_relabels_what_a_folder_embedded(folder: Path) -> None:
    listed = Manifest.from_folder(folder)
    (folder / "t.csv").write_text("\n".join(["uri,label", *(f"{uri},new" for uri in listed.uris[::-1])]))
    table = Manifest.read(folder / "t.csv")
    assert match(listed, table).by == "image_id"
    former = named(listed, former_folder_ids(listed.uris))
    labelled, _, _ = aligned(former, table)
    assert match(former, table).by == "uri"
    assert (labelled.image_ids, set(labelled.column("label"))) == (former.image_ids, {"new"})


def test_former_ids_are_those_that_earlier_versions_gave() -> None:
    assert former_folder_ids(NAMES) == FORMER


@given(st.lists(st.text("ab./", min_size=1, max_size=6), max_size=8))
def test_former_ids_end(uris: list[str]) -> None:
    assert len(former_folder_ids(uris)) == len(uris)


def test_a_bank_of_former_ids_takes_the_folder_listed_anew(folder: Path, tmp_path: Path) -> None:
    listed = Manifest.from_folder(folder)
    former = named(listed, former_folder_ids(listed.uris))
    bank = open_or_create(tmp_path / "bank", former)
    with pytest.raises(BankError, match="other images"):
        refuse_unfit(bank.path, listed)
    found, note = with_ids_of(bank, listed)
    assert (found.digest, found.root) == (former.digest, listed.root)
    assert "matched by uri" in note and "'train/b.c/d.png', in the bank 'train/b.c/d'" in note
    refuse_other_labels(bank, found)
    (tmp_path / "bank" / "manifest.parquet").unlink()  # what the folder's rule gives needs no manifest
    assert with_ids_of(bank, listed)[0].digest == former.digest
    put_back_manifest(bank.path, listed)
    assert Bank.open(bank.path).manifest().digest == former.digest


def test_ids_of_any_other_rule_are_matched_by_uri(folder: Path, tmp_path: Path) -> None:
    listed = Manifest.from_folder(folder)
    frame = listed.frame.assign(image_id=[f"image {i}" for i in range(len(listed))])
    frame["uri"] = "./" + frame["uri"]
    bank = open_or_create(tmp_path / "bank", Manifest.from_frame(frame, folder))
    found, _ = with_ids_of(bank, listed)
    assert found.digest == bank.manifest_digest
    assert with_ids_of(bank, found) == (found, "")


def test_other_files_are_not_taken_for_the_banks(folder: Path, tmp_path: Path) -> None:
    hashed = Manifest.from_folder(folder, hash_files=True)
    bank = open_or_create(tmp_path / "bank", named(hashed, [str(i) for i in range(len(hashed))]))
    assert with_ids_of(bank, hashed)[1]
    digests = list(hashed.sha256s or [])
    for other in (
        Manifest.from_folder(folder),
        Manifest.from_frame(hashed.frame[::-1], folder),
        Manifest.from_frame(hashed.frame[1:], folder),
        Manifest.from_frame(hashed.frame.assign(sha256=digests[::-1]), folder),
        Manifest.from_frame(hashed.frame.assign(uri=[f"x/{uri}" for uri in hashed.uris]), folder),
    ):
        assert with_ids_of(bank, other) == (other, "")
        assert with_former_ids(other, bank.image_digest) is other
    assert with_ids_of(None, hashed) == (hashed, "")


def test_a_damaged_bank_is_left_to_those_who_say_so(tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "bank", 80, 4)
    manifest = bank.manifest()
    shutil.copy(tmp_path / "bank" / "embank.json", tmp_path / "bank" / "manifest.parquet")
    other = named(manifest, [f"x{i}" for i in range(80)])
    assert with_ids_of(bank, other) == (other, "")
