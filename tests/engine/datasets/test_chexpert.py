"""CheXpert from its three layouts, and what is refused; counts and orders are in test_chexpert_table."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from engine import datasets
from engine.errors import Refused
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from tests.engine.datasets import trees
from tests.engine.datasets.trees import chexpert_row as row

#: The value of a lateral's label differs from what an unset cell gives, so that a mix-up shows.
ROWS = [
    row(1, 1, "view1_frontal", "1.0"),
    row(2, 2, "view1_frontal", "-1.0"),
    row(2, 1, "view1_frontal", "0.0"),
    row(2, 1, "view2_lateral", "0.0"),
    row(30000, 1, "view1_lateral"),
    row(64540, 3, "view1_frontal", "1.0"),
    row(64540, 3, "view2_frontal", "1.0"),
    row(64540, 3, "view3_lateral", "1.0"),
]


def build(root: Path, mode: str = "default", **options: str) -> Manifest:
    return datasets.build("chexpert", root, mode, options)


def test_the_archive_as_unpacked(tmp_path: Path) -> None:
    manifest = build(trees.chexpert(tmp_path, ROWS))
    assert check(manifest).ok
    frame = manifest.frame.set_index("image_id")
    one = frame.loc["train/patient00002/study1/view2_lateral"]
    assert one["uri"] == "CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg"
    assert (one["group"], one["study"], one["view"]) == (
        "patient00002",
        "train/patient00002/study1",
        "lateral",
    )
    assert (one["label"], one["Pleural Effusion"], one["Edema"]) == ("negative", "0", "")
    assert (one["pair"], one["sex"], one["age"]) == (
        "train/patient00002/study1/view1_frontal",
        "Female",
        "60",
    )
    assert frame.loc["train/patient00002/study2/view1_frontal", "label"] == ""
    assert frame.loc["train/patient30000/study1/view1_lateral", ["label", "pair"]].tolist() == [
        "negative",
        "",
    ]
    assert manifest.uris == sorted(manifest.uris)
    assert any("8 images, the whole data set has 223,414" in note for note in manifest.notes)


def test_pairs_are_rows_of_the_manifest(tmp_path: Path) -> None:
    manifest = build(trees.chexpert(tmp_path, ROWS))
    ids = manifest.image_ids
    found = {(ids[a], ids[b]) for a, b in datasets.view_pairs(manifest)}
    studies = ("train/patient00002/study1", "train/patient64540/study3")
    laterals = ("view2_lateral", "view3_lateral")
    assert found == {(f"{s}/{v}", f"{s}/view1_frontal") for s, v in zip(studies, laterals, strict=True)}


def test_all_three_layouts_give_the_same_rows(tmp_path: Path) -> None:
    small = build(trees.chexpert(tmp_path / "small", ROWS))
    full = build(trees.chexpert(tmp_path / "full", ROWS, "CheXpert-v1.0"))
    inside = build(tmp_path / "small/CheXpert-v1.0-small")
    beside = tmp_path / "beside"
    shutil.copytree(tmp_path / "small", beside)
    (beside / "CheXpert-v1.0-small/train.csv").rename(beside / "train.csv")
    for other in (full, inside, build(beside), build(batches(tmp_path / "batches"))):
        assert check(other).ok
        for name in set(small.table.column_names) - {"uri"}:
            assert other.column(name) == small.column(name)


def batches(root: Path) -> Path:
    """The four folders that the full-size archives unpack to since 2021."""
    first = "CheXpert-v1.0 batch 1 (validate & csv)"
    trees.chexpert(root, ROWS, first)
    for patient in (root / first / "train").iterdir():
        number = int(patient.name.removeprefix("patient"))
        batch = 2 + (number > 21513) + (number > 43017)
        target = root / f"CheXpert-v1.0 batch {batch} (train {batch - 1})"
        target.mkdir(exist_ok=True)
        patient.rename(target / patient.name)
    (root / first / "train").rmdir()
    return root


def test_a_batch_that_was_not_fetched_is_said(tmp_path: Path) -> None:
    root = batches(tmp_path)
    shutil.rmtree(root / "CheXpert-v1.0 batch 3 (train 2)")
    manifest = build(root)
    assert len(manifest) == 7 and check(manifest).ok
    assert "1 of 8 rows of the label table left out: no file" in manifest.notes


def test_missing_images_are_said_and_can_be_left_out(tmp_path: Path) -> None:
    root = trees.chexpert(tmp_path, ROWS)
    (root / "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg").unlink()
    whole = build(root)
    assert len(whole) == 8
    assert any("1 of 8 sampled images are missing" in note for note in whole.notes)
    part = build(root, files="present")
    assert part.image_ids == [name for name in whole.image_ids if "patient00001" not in name]
    assert part.column("split") == whole.column("split")[1:]
    assert "1 of 8 rows of the label table left out: no file" in part.notes


def test_valid_is_a_split_of_its_own(tmp_path: Path) -> None:
    root = trees.chexpert(tmp_path, ROWS)
    valid = [row(64541, 1, "view1_frontal", "1.0", "CheXpert-v1.0-small/valid")]
    trees.lines(root / "CheXpert-v1.0-small/valid.csv", [trees.CHEXPERT_HEADER, *valid])
    trees.image(root / "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg")
    assert len(build(root)) == 8
    for split in ("val", "test"):
        manifest = build(root, valid=split)
        assert check(manifest).ok
        last = manifest.frame.iloc[-1]
        assert (last["image_id"], last["split"]) == ("valid/patient64541/study1/view1_frontal", split)


def test_row_order_changes_nothing_by_default(tmp_path: Path) -> None:
    one = build(trees.chexpert(tmp_path / "a", ROWS), uncertain="soft")
    two = build(trees.chexpert(tmp_path / "b", ROWS[::-1]), uncertain="soft")
    assert one.digest == two.digest
    assert build(tmp_path / "a", uncertain="soft", seed="1").digest != one.digest


def test_label_and_policies(tmp_path: Path) -> None:
    root = trees.chexpert(tmp_path, ROWS)
    unsure = "train/patient00002/study2/view1_frontal"

    def of(**options: str) -> tuple[str, str]:
        frame = build(root, **options).frame.set_index("image_id")
        return frame.loc[unsure, "label"], frame["target"][unsure] if "target" in frame else ""

    assert of(uncertain="ones") == ("positive", "")
    assert of(uncertain="zeros") == ("negative", "")
    assert of(uncertain="ignore") == of() == ("", "")
    label, target = of(uncertain="soft")
    assert label == "positive" and 0.55 <= float(target) < 0.85
    assert set(build(root, label="Edema").classes) == {"negative"}


def test_a_part_of_the_table_is_not_the_studys_split(tmp_path: Path) -> None:
    root = trees.chexpert(tmp_path, ROWS)
    manifest = build(root, "as-published")
    assert any("not its split" in note for note in manifest.notes)
    order = np.random.RandomState(42).permutation(8)
    table = [each.split("/", 1)[1].split(",")[0].removesuffix(".jpg") for each in ROWS]
    assert manifest.image_ids == [table[i] for i in order]
    assert manifest.column("split") == ["train"] * 5 + ["test"] * 3
    assert (
        manifest.frame.set_index("image_id").loc["train/patient00002/study2/view1_frontal", "label"]
        == "negative"
    )
    few = build(root, "as-published", evaluation="few-shot").frame.set_index("image_id")
    assert few.loc["train/patient00002/study2/view1_frontal", "label"] == "positive"
    for options in ({"uncertain": "soft"}, {"valid": "val"}):
        with pytest.raises(Refused, match="leave these options out"):
            build(root, "as-published", **options)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="does not exist"):
        build(tmp_path / "nowhere")
    with pytest.raises(Refused, match=r"CheXpert-v1.0-small/train is missing"):
        build(tmp_path)
    root = trees.chexpert(tmp_path, ROWS)
    (root / "CheXpert-v1.0-small/train.csv").unlink()
    with pytest.raises(Refused, match=r"train\.csv is missing.*unpack"):
        build(root)
    shutil.rmtree(root / "CheXpert-v1.0-small/train")
    (root / "CheXpert-v1.0-small/train").touch()
    with pytest.raises(Refused, match="train is a file"):
        build(root)
    (root / "CheXpert-v1.0-small/train").unlink()
    (root / "CheXpert-v1.0-small/train").mkdir()
    with pytest.raises(Refused, match="holds no patient's folder"):
        build(root)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(Refused, match="is a file"):
        build(file)


def test_two_copies_are_not_mixed(tmp_path: Path) -> None:
    trees.chexpert(tmp_path, ROWS)
    trees.chexpert(tmp_path, ROWS, "CheXpert-v1.0")
    with pytest.raises(Refused, match="more than one"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (row(3, 1, "view1_frontal", "2.0"), "row 9: '2.0'.*A cell of Pleural Effusion is 1, 0, -1"),
        (row(3, 1, "view1_frontal", "nan"), "row 9: 'nan'"),
        (row(3, 1, "view1_frontal") + ",", "19 columns, got 20"),
        (row(3, 1, "view1_frontal")[:-1], "19 columns, got 18"),
        (row(3, 1, "view1_frontal", prefix="../../etc/train").replace("study1", ".."), "A path reads"),
        (row(3, 1, "view1_frontal", prefix="CheXpert-v1.0-small/valid"), "A path reads .../train/patient"),
        (row(3, 1, "view1_frontal").replace(".jpg", ".png"), "A path reads"),
        (ROWS[0], "Each image stands in the table once"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, bad: str, says: str) -> None:
    root = trees.chexpert(tmp_path, ROWS)
    trees.lines(root / "CheXpert-v1.0-small/train.csv", [trees.CHEXPERT_HEADER, *ROWS, bad])
    with pytest.raises(Refused, match=says):
        build(root)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "has a column without a name|has no column"),
        (trees.CHEXPERT_HEADER.encode() + b"\n", "has no rows"),
        (b"Path,Sex\nx,y\n", "has no column 'Age'"),
        (trees.CHEXPERT_HEADER.replace("Sex", "Path").encode() + b"\nx\n", "names 'Path' twice"),
        ("Path;Sex\n".encode("utf-16"), "UTF-8"),
        (trees.CHEXPERT_HEADER.encode() + b"\n\xff\xfe," + b"," * 17 + b"\n", "UTF-8|UTF8"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path: Path, data: bytes, says: str) -> None:
    root = trees.chexpert(tmp_path, ROWS)
    (root / "CheXpert-v1.0-small/train.csv").write_bytes(data)
    with pytest.raises(Refused, match=says):
        build(root)


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    root = trees.chexpert(tmp_path, ROWS)
    before = build(root)
    table = root / "CheXpert-v1.0-small/train.csv"
    trees.lines(table, ["\ufeff" + trees.CHEXPERT_HEADER, *ROWS], newline="\r\n")
    assert build(root).digest == before.digest


def test_a_table_that_is_a_folder(tmp_path: Path) -> None:
    root = trees.chexpert(tmp_path, ROWS)
    (root / "CheXpert-v1.0-small/train.csv").unlink()
    (root / "CheXpert-v1.0-small/train.csv").mkdir()
    with pytest.raises(Refused, match="is a folder"):
        build(root)
