"""EyePACS and the two iChallenge sets on small trees in their layouts."""

from pathlib import Path

import numpy as np
import pytest

from engine import datasets
from engine.datasets import _splits, eyepacs
from engine.errors import Refused
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from tests.engine.datasets import trees

TRAIN = [
    "10_left,0",
    "10_right,0",
    "13_left,2",
    "13_right,1",
    "15_left,4",
    "15_right,4",
    "16_left,0",
    "16_right,1",
]
TEST = ["1_left,0,Private", "1_right,0,Private", "2_left,3,Public", "2_right,0,Public"]


def both(root: Path, table: str = "testLabels.csv") -> Path:
    trees.eyepacs(root, "train", "trainLabels.csv", TRAIN)
    return trees.eyepacs(root, "test", table, TEST, "image,level,Usage")


def build(name: str, root: Path, mode: str = "default", **options: str) -> Manifest:
    return datasets.build(name, root, mode, options)


@pytest.mark.parametrize("table", ["testLabels.csv", "retinopathy_solution.csv"])
def test_eyepacs_takes_both_official_files(tmp_path: Path, table: str) -> None:
    manifest = build("eyepacs", both(tmp_path, table))
    assert check(manifest).ok
    frame = manifest.frame.set_index("image_id")
    assert frame["split"].value_counts().to_dict() == {"train": 8, "test": 4}
    cells = ["uri", "label", "split", "group", "view", "eye", "pair", "usage"]
    assert frame.loc["13_left", cells].tolist() == [
        "train/13_left.jpeg", "2", "train", "13", "left", "left", "", "",
    ]  # fmt: skip
    assert frame.loc["1_left", "pair"] == "1_right" and frame.loc["2_right", "usage"] == "Public"


def test_eyepacs_pairs_have_one_level(tmp_path: Path) -> None:
    manifest = build("eyepacs", both(tmp_path))
    ids = manifest.image_ids
    pairs = {(ids[a], ids[b]) for a, b in datasets.view_pairs(manifest)}
    assert pairs == {("10_left", "10_right"), ("15_left", "15_right"), ("1_left", "1_right")}


def test_eyepacs_without_test_images(tmp_path: Path) -> None:
    root = trees.eyepacs(tmp_path, "train", "trainLabels.csv", TRAIN)
    official = build("eyepacs", root)
    assert set(official.column("split")) == {"train"}
    assert any("no test images" in note and "by-patient" in note for note in official.notes)
    people = build("eyepacs", root, splits="by-patient", seed="1")
    assert check(people).ok and not any("no test images" in note for note in people.notes)
    sides = dict(zip(people.column("group"), people.column("split"), strict=True))
    truth = _splits.by_group(people.frame["group"], 1, 0.2)
    assert people.column("split") == list(truth) and set(sides) == {"10", "13", "15", "16"}


def test_eyepacs_as_published(tmp_path: Path) -> None:
    manifest = build("eyepacs", both(tmp_path), "as-published")
    train, test = np.random.RandomState(42).permutation(8), np.random.RandomState(42).permutation(4)
    truth = [TRAIN[i].partition(",")[0] for i in train] + [TEST[i].partition(",")[0] for i in test]
    assert manifest.image_ids == truth
    indices = np.arange(8)
    np.random.RandomState(0).shuffle(indices)
    chosen = [at for at, mark in enumerate(manifest.column("validation")) if mark]
    assert chosen == sorted(indices[:1].tolist())
    few = build("eyepacs", tmp_path, "as-published", evaluation="few-shot")
    assert few.image_ids == truth[:8]
    with pytest.raises(Refused, match="official files"):
        build("eyepacs", tmp_path, "as-published", splits="by-patient")


def test_eyepacs_facts_are_the_oracles() -> None:
    import json

    truth = json.loads((Path(__file__).parents[2] / "oracles/label_tables.json").read_text())["eyepacs"]
    assert truth["train_levels"] == eyepacs.TRAIN
    assert truth["few_shot_pool"]["10001"]["levels"] == eyepacs.PUBLISHED_POOL
    assert sum(eyepacs.TEST.values()) == truth["test_rows_not_checked_here"]
    assert len(_splits.published_validation(truth["train_rows"])) == truth["validation"]["rows"]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("17_left,5", "A level is 0, 1, 2, 3 or 4"),
        ("17_left,", "A level is 0"),
        ("17_middle,0", "named like 10_left"),
        ("../17_left,0", "named like 10_left"),
        ("10_left,0", "once"),
        ("17_left,0,1", "2 columns, got 3"),
    ],
)
def test_eyepacs_bad_tables(tmp_path: Path, bad: str, says: str) -> None:
    root = trees.eyepacs(tmp_path, "train", "trainLabels.csv", TRAIN)
    trees.lines(root / "trainLabels.csv", ["image,level", *TRAIN, bad])
    with pytest.raises(Refused, match=says):
        build("eyepacs", root)


def test_eyepacs_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"trainLabels\.csv is missing"):
        build("eyepacs", tmp_path)
    trees.lines(tmp_path / "trainLabels.csv", ["image,level", *TRAIN])
    with pytest.raises(Refused, match="train is missing"):
        build("eyepacs", tmp_path)
    both(tmp_path)
    (tmp_path / "train/10_left.jpeg").rename(tmp_path / "train/10_LEFT.JPEG")
    assert "train/10_LEFT.JPEG" in build("eyepacs", tmp_path).uris


# iChallenge

AMD = {"AMD": ["A0001", "A0002"], "Non-AMD": ["N0001", "N0002", "N0003"]}
PM = ["H0001", "H0002", "N0001", "N0002", "P0001", "P0002"]


def amd(root: Path, above: str = "Training400") -> Path:
    for folder, stems in AMD.items():
        for stem in stems:
            trees.image(root / above / folder / f"{stem}.jpg")
    return root


def pm(root: Path, folder: str = "PALM-Training400/PALM-Training400") -> Path:
    for stem in PM:
        trees.image(root / folder / f"{stem}.jpg")
    return root


@pytest.mark.parametrize("above", ["Training400", "iChallenge-AMD-Training400/Training400", "."])
def test_amd_layouts(tmp_path: Path, above: str) -> None:
    manifest = build("ichallenge-amd", amd(tmp_path, above))
    assert check(manifest).ok
    assert manifest.image_ids == AMD["AMD"] + AMD["Non-AMD"]
    assert manifest.column("label") == ["positive"] * 2 + ["negative"] * 3


def test_amd_as_published_needs_the_studys_table(tmp_path: Path) -> None:
    root = amd(tmp_path)
    order = np.random.RandomState(42).permutation(5)
    names = AMD["AMD"] + AMD["Non-AMD"]
    without = build("ichallenge-amd", root, "as-published")
    assert without.image_ids == [names[i] for i in order]
    assert any(r"amd_labels.csv is missing" in note for note in without.notes)
    trees.lines(root / "amd_labels.csv", ["name,label", *(f"{n},{int(n[0] == 'A')}" for n in names[::-1])])
    published = build("ichallenge-amd", root, "as-published")
    assert published.image_ids == [names[::-1][i] for i in order]
    assert published.column("split") == ["train"] * 4 + ["test"]
    for rows, says in (
        (["name,label", "A0001,1", "A0001,1"], "once"),
        (["name,label", "A0001,1", "A0009,1"], "row 2: 'A0009'"),
        (["name,label", "x,1"], "no column with names of images"),
    ):
        trees.lines(root / "amd_labels.csv", rows)
        with pytest.raises(Refused, match=says):
            build("ichallenge-amd", root, "as-published")


def test_amd_bad_trees(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"Training400/AMD is missing"):
        build("ichallenge-amd", tmp_path)
    root = amd(tmp_path)
    trees.image(root / "Training400/AMD/N0009.jpg")
    with pytest.raises(Refused, match="AMD holds A0001"):
        build("ichallenge-amd", root)


@pytest.mark.parametrize("folder", ["PALM-Training400/PALM-Training400", "PALM-Training400", "."])
def test_pm_layouts(tmp_path: Path, folder: str) -> None:
    manifest = build("ichallenge-pm", pm(tmp_path, folder))
    assert check(manifest).ok
    assert manifest.image_ids == PM
    assert manifest.column("class") == 2 * ["high-myopia"] + 2 * ["normal"] + 2 * ["pathological"]


@pytest.mark.parametrize(
    ("mode", "rule", "labels"),
    [
        ("default", "", ["negative", "negative", "negative", "negative", "positive", "positive"]),
        ("default", "reported", ["positive", "positive", "negative", "negative", "positive", "positive"]),
        ("as-published", "", ["positive", "positive", "negative", "negative", "positive", "positive"]),
        ("as-published", "paper", ["negative", "negative", "negative", "negative", "positive", "positive"]),
        ("default", "three", 2 * ["high-myopia"] + 2 * ["normal"] + 2 * ["pathological"]),
    ],
)
def test_pm_rules(tmp_path: Path, mode: str, rule: str, labels: list[str]) -> None:
    manifest = build("ichallenge-pm", pm(tmp_path), mode, **({"rule": rule} if rule else {}))
    found = dict(zip(manifest.image_ids, manifest.column("label"), strict=True))
    assert found == dict(zip(PM, labels, strict=True))


def test_pm_expected_counts() -> None:
    """Reference page: 187 to 213 by the paper, 161 to 239 when the numbers were made."""
    pm_ = datasets.load("ichallenge-pm")
    assert pm_.expected("default") == {"positive": 213, "negative": 187}
    assert pm_.expected("as-published") == {"positive": 239, "negative": 161}
    assert pm_.expected("default", rule="three") == {"normal": 161, "high-myopia": 26, "pathological": 213}


def test_pm_order_of_the_studys_table(tmp_path: Path) -> None:
    root = pm(tmp_path)
    rows = ["ID,imgName,Fovea_X,Fovea_Y,class", *(f"{i},{n}.jpg,1,2,0" for i, n in enumerate(PM[::-1]))]
    trees.lines(root / "PALM-Training400/fovea_location_csv.csv", rows)
    manifest = build("ichallenge-pm", root, "as-published")
    assert manifest.image_ids == [PM[::-1][i] for i in np.random.RandomState(42).permutation(6)]
    trees.lines(root / "PALM-Training400/fovea_location_csv.csv", rows[:-1])
    part = build("ichallenge-pm", root, "as-published")
    assert len(part) == 5 and any("1 images left out" in note for note in part.notes)


def test_pm_bad_trees(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"PALM-Training400/N0001\.jpg is missing"):
        build("ichallenge-pm", tmp_path)
    root = pm(tmp_path)
    trees.image(root / "PALM-Training400/PALM-Training400/X0001.jpg")
    with pytest.raises(Refused, match="named like N0001"):
        build("ichallenge-pm", root)
