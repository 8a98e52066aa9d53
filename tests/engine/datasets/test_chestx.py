"""ChestX-ray14 from its layouts, and what is refused; counts and orders are in test_chestx_table."""

from pathlib import Path

import numpy as np
import pytest

from engine import datasets
from engine.errors import Refused
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from tests.engine.datasets import trees

ROWS = [
    "00000001_000.png,Cardiomegaly,0,1",
    "00000001_001.png,Cardiomegaly|Emphysema,1,1",
    "00000002_000.png,No Finding,0,2",
    "00000003_000.png,Hernia,0,3",
    "00000004_000.png,Mass,0,4",
    "00000004_001.png,Nodule,1,4",
    "00000005_000.png,Pneumonia,0,5",
    "00000006_000.png,Effusion,0,6",
]


def build(root: Path, mode: str = "default", **options: str) -> Manifest:
    return datasets.build("chestx", root, mode, options)


def test_labels(tmp_path: Path) -> None:
    root = trees.chestx(tmp_path, ROWS)
    seven = build(root)
    assert check(seven).ok
    assert dict(zip(seven.image_ids, seven.column("label"), strict=True)) == {
        "00000001_000": "Cardiomegaly",
        "00000004_000": "Mass",
        "00000004_001": "Nodule",
        "00000006_000": "Effusion",
    }
    assert seven.column("study")[2] == "4/1" and seven.column("view")[2] == "PA"
    assert set(build(root, label="fourteen").classes) == set(seven.classes) | {"Hernia", "Pneumonia"}
    heart = build(root, label="Cardiomegaly").frame
    assert heart.loc[heart["label"] == "positive", "image_id"].tolist() == ["00000001_000", "00000001_001"]
    assert len(heart) == 8 and heart["Emphysema"].tolist() == ["0", "1"] + 6 * ["0"]


@pytest.mark.parametrize("table", ["Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"])
@pytest.mark.parametrize("comma", [False, True])
def test_both_tables_and_a_comma_at_the_end(tmp_path: Path, table: str, comma: bool) -> None:
    whole = build(trees.chestx(tmp_path / "a", ROWS))
    assert build(trees.chestx(tmp_path / "b", ROWS, comma=comma, table=table)).digest == whole.digest


def test_images_in_twelve_folders(tmp_path: Path) -> None:
    whole = build(trees.chestx(tmp_path / "a", ROWS))
    for below in ("images", "."):
        root = trees.chestx(tmp_path / f"b{below}", ROWS)
        for at, path in enumerate(sorted((root / "images").iterdir()), 1):
            target = root / f"images_{at:03d}" / below
            target.mkdir(parents=True)
            path.rename(target / path.name)
        (root / "images").rmdir()
        manifest = build(root)
        assert check(manifest).ok
        assert manifest.uris[0] == str(Path("images_001", below, "00000001_000.png"))
        assert manifest.image_ids == whole.image_ids and manifest.column("label") == whole.column("label")


def test_a_part_of_the_images(tmp_path: Path) -> None:
    root = trees.chestx(tmp_path, ROWS)
    whole = build(root)
    (root / "images/00000004_000.png").rename(root / "images/00000004_000.PNG")
    (root / "images/00000001_000.png").unlink()
    part = build(root)
    assert part.uris[0] == "images/00000004_000.PNG"
    assert part.column("split") == whole.column("split")[1:]
    assert any(
        "1 of 4 rows of the label table left out: no file (first: 00000001_000)" in n for n in part.notes
    )
    assert any("3 images, the whole data set has 25,848" in note for note in part.notes)
    for path in (root / "images").iterdir():
        path.unlink()
    with pytest.raises(Refused, match="holds none of the 4 images"):
        build(root)


def test_as_published_shuffles_first(tmp_path: Path) -> None:
    manifest = build(trees.chestx(tmp_path, ROWS), "as-published")
    order = np.random.RandomState(42).permutation(8)
    seven = {"00000001_000", "00000004_000", "00000004_001", "00000006_000"}
    shuffled = [(ROWS[i][:12], "train" if at < 6 else "test") for at, i in enumerate(order)]
    assert list(zip(manifest.image_ids, manifest.column("split"), strict=True)) == [
        pair for pair in shuffled if pair[0] in seven
    ]
    with pytest.raises(Refused, match="seven classes and a split of its own"):
        build(tmp_path, "as-published", label="fourteen")


def test_the_official_list(tmp_path: Path) -> None:
    root = trees.chestx(tmp_path, ROWS)
    with pytest.raises(Refused, match=r"test_list\.txt is missing"):
        build(root, splits="official")
    trees.lines(root / "test_list.txt", ["00000004_000.png", "00000004_001.png"])
    assert build(root, splits="official").column("split") == ["train", "test", "test", "train"]
    trees.lines(root / "test_list.txt", ["00000009_000.png"])
    with pytest.raises(Refused, match="names images of the label table"):
        build(root, splits="official")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("00000007_000.png,Cold,0,7", "row 9: 'Cold'"),
        ("00000007_000.png,Mass|Mass,0,7", r"row 9: 'Mass\|Mass'"),
        ("00000007_000.png,,0,7", "row 9: ''"),
        ("../00000007_000.png,Mass,0,7", "named like"),
        ("00000007_000.jpg,Mass,0,7", "named like"),
        ("00000001_000.png,Mass,0,1", "once"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, bad: str, says: str) -> None:
    root = trees.chestx(tmp_path, ROWS)
    path = root / "Data_Entry_2017_v2020.csv"
    path.write_text(path.read_text() + bad + ",058,M,PA,1,1,1,1\n")
    with pytest.raises(Refused, match=says):
        build(root)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"Data_Entry_2017_v2020\.csv is missing, and so is Data_Entry_2017"):
        build(tmp_path)
    trees.lines(tmp_path / "Data_Entry_2017.csv", ["Image Index;Finding Labels", "a;b"])
    with pytest.raises(Refused, match="has no column"):
        build(tmp_path)


def test_a_file_twice_is_refused(tmp_path: Path) -> None:
    root = trees.chestx(tmp_path, ROWS)
    trees.image(root / "images_001/images/00000001_000.png")
    with pytest.raises(Refused, match="Each image is there once"):
        build(root)
