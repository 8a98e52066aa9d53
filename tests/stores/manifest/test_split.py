"""A manifest gets a split by patient; what a reader must know of it is said."""

import math
from pathlib import Path

import pandas as pd
import pytest

from stores.errors import Refused
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from stores.manifest.split import CutOptions, split_manifest
from tests.command import embank


def manifest(patients: int = 40, **more: list[str]) -> Manifest:
    """Two images a patient; one patient in four is ill."""
    frame = pd.DataFrame({"uri": [f"{i}.png" for i in range(2 * patients)]})
    frame["label"] = ["ill" if i // 2 % 4 == 0 else "well" for i in range(2 * patients)]
    frame["group"] = [f"p{i // 2}" for i in range(2 * patients)]
    return Manifest.from_frame(frame.assign(**more), "/x")


def test_ratios_give_train_val_and_test() -> None:
    cut = split_manifest(manifest(), CutOptions((0.7, 0.1, 0.2)))
    assert cut.by == "group" and cut.folds == {}
    assert cut.splits == {
        "train": {"images": 56, "groups": 28, "classes": {"ill": 14, "well": 42}},
        "val": {"images": 8, "groups": 4, "classes": {"ill": 2, "well": 6}},
        "test": {"images": 16, "groups": 8, "classes": {"ill": 4, "well": 12}},
    }
    assert cut.manifest.notes == ()
    problems = {problem.code for problem in check(cut.manifest, files=False).problems}
    assert "group_across_splits" not in problems and "class_absent" not in problems
    assert cut.manifest.image_digest == manifest().image_digest
    assert set(split_manifest(manifest(), CutOptions((0.8, 0.2))).splits) == {"train", "test"}


def test_folds_and_the_one_that_tests() -> None:
    folds = split_manifest(manifest(), CutOptions(folds=5))
    assert not folds.manifest.has("split") and folds.splits == {}
    assert {name: counts["images"] for name, counts in folds.folds.items()} == dict.fromkeys("01234", 16)
    tests = []
    for fold in range(5):
        cut = split_manifest(manifest(), CutOptions(folds=5, fold=fold))
        assert cut.manifest.column("fold") == folds.manifest.column("fold")
        assert cut.splits["test"] == cut.folds[str(fold)]
        tests += [
            uri
            for uri, part in zip(cut.manifest.uris, cut.manifest.column("split"), strict=True)
            if part == "test"
        ]
    assert sorted(tests) == sorted(manifest().uris)


def test_the_order_of_rows_does_not_count() -> None:
    for options in (CutOptions((0.5, 0.2, 0.3)), CutOptions(folds=3, fold=1)):
        one = split_manifest(manifest(), options).manifest.frame
        shuffled = Manifest.from_frame(manifest().frame.sample(frac=1, random_state=1), "/x")
        two = split_manifest(shuffled, options).manifest.frame
        pd.testing.assert_frame_equal(
            one.sort_values("uri", ignore_index=True), two.sort_values("uri", ignore_index=True)
        )


def test_images_without_a_label_go_with_their_patient() -> None:
    """A patient with labelled and unlabelled images is in one part, and nobody is left out."""
    labels = ["" if i % 2 or i > 60 else "ill" for i in range(80)]
    cut = split_manifest(manifest(label=labels), CutOptions((0.5, 0.5)))
    assert sum(counts["images"] for counts in cut.splits.values()) == 80
    assert sum(counts["groups"] for counts in cut.splits.values()) == 40


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"group": [""] * 80}, "no row names its group (patient): cut by image"),
        ({"group": ["", *(f"p{i}" for i in range(79))]}, "1 rows have no group: each counts as a patient"),
        ({"label": [""] * 80}, "no row has a label: not stratified"),
        (
            {"label": ["rare", "rare", *["well"] * 78]},
            "1 classes have fewer patients than there are parts: 'rare' with 1",
        ),
        ({"group": ["p"] * 60 + [f"q{i}" for i in range(20)], "label": ["x"] * 80}, "of the images, not"),
    ],
)
def test_what_a_reader_must_know_is_said(more: dict[str, list[str]], says: str) -> None:
    notes = split_manifest(manifest(**more), CutOptions((0.7, 0.1, 0.2))).manifest.notes
    assert any(says in note for note in notes), notes


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "Neither"),
        ({"ratios": (0.5, 0.5), "folds": 2}, "Ratios and folds"),
        ({"ratios": (1.0,)}, "ratios 1"),
        ({"ratios": (0.25,) * 4}, "ratios"),
        ({"ratios": (0.5, 0.4)}, "1 together"),
        ({"ratios": (1.5, -0.5)}, "above 0"),
        ({"ratios": (math.nan, 1.0)}, "above 0"),
        ({"ratios": (math.inf, 1.0)}, "above 0"),
        ({"ratios": (1.0, 0.0)}, "above 0"),
        ({"folds": 1}, "folds"),
        ({"folds": 3, "fold": 3}, "fold = 3"),
        ({"ratios": (0.5, 0.5), "fold": 0}, "without folds"),
        ({"folds": 3, "seed": -1}, "seed"),
    ],
)
def test_options_that_cannot_be(options: dict, says: str) -> None:
    with pytest.raises(Refused, match=says):
        CutOptions(**options)


def test_the_remedy_for_ratios_works() -> None:
    for ratios in ((70.0, 10.0, 20.0), (0.7, 0.2, 0.2), (1.0, 2.0)):
        with pytest.raises(Refused) as caught:
            CutOptions(ratios)
        words = caught.value.remedy.rpartition(" ")[2]
        CutOptions(tuple(map(float, words.split(","))))


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(Refused, match="part val would be empty: 2 patients"):
        split_manifest(manifest(2), CutOptions((0.7, 0.1, 0.2)))
    with pytest.raises(Refused, match="folds = 5"):
        split_manifest(manifest(4), CutOptions(folds=5))
    many = manifest(40, label=[f"class {i // 2}" for i in range(80)])
    with pytest.raises(Refused, match="would be empty") as caught:
        split_manifest(many, CutOptions((0.7, 0.1, 0.2)))
    assert "--no-stratify" in caught.value.remedy
    cut = split_manifest(many, CutOptions((0.7, 0.1, 0.2), stratify=False))
    assert [counts["groups"] for counts in cut.splits.values()] == [28, 4, 8]


def test_a_split_that_is_there_stays_unless_it_is_to_go() -> None:
    given = manifest(split=["train"] * 60 + ["test"] * 20)
    with pytest.raises(Refused, match=r"column split already \(train 60, test 20\)") as caught:
        split_manifest(given, CutOptions((0.5, 0.5)))
    assert "--replace-split" in caught.value.remedy
    assert split_manifest(given, CutOptions(folds=2)).manifest.column("split") == given.column("split")
    cut = split_manifest(given, CutOptions((0.5, 0.5), replace=True))
    assert cut.splits["test"]["images"] == 40
    assert cut.manifest.table.column_names == given.table.column_names


def test_the_command(tmp_path: Path) -> None:
    manifest(30).write(tmp_path / "m.parquet")
    words = ("manifest", "split", tmp_path / "m.parquet")
    ran = embank(*words, "--ratios", "0.7,0.1,0.2", "-o", tmp_path / "new" / "s.parquet", "--json")
    made = Manifest.read(tmp_path / "new" / "s.parquet")
    assert ran.code == 0 and ran.json["rows"] == 60 and ran.json["digest"] == made.digest
    assert (ran.json["by"], list(ran.json["splits"]), ran.json["folds"]) == (
        "group",
        ["train", "val", "test"],
        {},
    )
    assert made.root == Manifest.read(tmp_path / "m.parquet").root
    ran = embank(*words, "--folds", 3, "--fold", 1, "-o", tmp_path / "f.parquet")
    assert ran.code == 0 and "test" in ran.out and "well" in ran.out
    before = sorted(tmp_path.rglob("*"))
    for more in (
        ("--ratios", "0.7,0.1,0.2", "-o", tmp_path / "m.parquet", "--force"),
        ("--ratios", "0.7,0.1,0.2", "-o", tmp_path / "f.parquet"),
        ("--ratios", "0.7;0.3", "-o", tmp_path / "x.parquet"),
        ("--ratios", "0.7,0.2", "-o", tmp_path / "x.parquet"),
        ("-o", tmp_path / "x.parquet"),
        ("--folds", 31, "-o", tmp_path / "x.parquet"),
    ):
        ran = embank(*words, *more)
        assert (ran.code, ran.out, "remedy:" in ran.err) == (2, "", True), more
    ran = embank(
        "manifest", "split", tmp_path / "f.parquet", "--ratios", "0.5,0.5", "-o", tmp_path / "x.parquet"
    )
    assert ran.code == 2 and "--replace-split" in ran.err
    assert sorted(tmp_path.rglob("*")) == before
