"""BACH on small trees in its layout."""

from pathlib import Path

import numpy as np
import pytest

from engine import datasets
from engine.errors import Refused
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from tests.engine.datasets import trees

ROWS = [f"{letters}{n:03d}.tif,{label}" for letters, label in
        (("n", "Normal"), ("b", "Benign"), ("is", "InSitu"), ("iv", "Invasive")) for n in (1, 2)]  # fmt: skip


def build(root: Path, mode: str = "default") -> Manifest:
    return datasets.build("bach", root, mode)


@pytest.mark.parametrize("photos", ["ICIAR2018_BACH_Challenge/Photos", "Photos", "."])
def test_layouts(tmp_path: Path, photos: str) -> None:
    manifest = build(trees.bach(tmp_path, ROWS, photos))
    assert check(manifest).ok
    prefix = "" if photos == "." else f"{photos}/"
    truth = {name.removesuffix(".tif"): label for name, label in (row.split(",") for row in ROWS)}
    assert dict(zip(manifest.image_ids, manifest.column("label"), strict=True)) == truth
    assert manifest.uris[0] == f"{prefix}Benign/b001.tif"


def test_as_published_shuffles_the_table(tmp_path: Path) -> None:
    manifest = build(trees.bach(tmp_path, ROWS), "as-published")
    order = np.random.RandomState(42).permutation(8)
    assert manifest.image_ids == [ROWS[i].partition(".")[0] for i in order]
    assert manifest.column("split") == ["train"] * 6 + ["test"] * 2
    assert any("not its split" in note for note in manifest.notes)


def test_the_table_decides_over_the_folders(tmp_path: Path) -> None:
    root = trees.bach(tmp_path, ROWS)
    trees.image(root / "ICIAR2018_BACH_Challenge/Photos/Normal/n101.tif")
    manifest = build(root)
    assert len(manifest) == 8
    assert "1 files left out: they are not in the label table" in manifest.notes


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("n003.tif,Sarcoma", "row 9: 'Sarcoma'.*Normal, Benign, InSitu, Invasive"),
        ("../n003.tif,Normal", "named like"),
        ("n001.tif,Benign", "once"),
        ("n003.tif", "2 columns, got 1"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, bad: str, says: str) -> None:
    root = trees.bach(tmp_path, ROWS)
    trees.lines(root / "ICIAR2018_BACH_Challenge/Photos/microscopy_ground_truth.csv", [*ROWS, bad])
    with pytest.raises(Refused, match=says):
        build(root)


def test_table_and_folder_must_agree(tmp_path: Path) -> None:
    root = trees.bach(tmp_path, ROWS)
    photos = root / "ICIAR2018_BACH_Challenge/Photos"
    (photos / "Normal/n001.tif").rename(photos / "Benign/n001.tif")
    with pytest.raises(Refused, match="folder of an image is its class"):
        build(root)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"microscopy_ground_truth\.csv is missing"):
        build(tmp_path)
    trees.lines(tmp_path / "Photos/microscopy_ground_truth.csv", ROWS)
    with pytest.raises(Refused, match="Photos holds none of the 8 images"):
        build(tmp_path)
