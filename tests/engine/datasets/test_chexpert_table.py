"""The real label table of CheXpert: every count and digest that was computed from it independently."""

import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import datasets
from engine.datasets import _splits
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from tests.engine.datasets import trees

pytestmark = pytest.mark.slow

ORACLES = json.loads((Path(__file__).parents[2] / "oracles/label_tables.json").read_text())
CHEXPERT = ORACLES["chexpert"]
SPLIT = CHEXPERT["paper_split"]
FEW_SHOT, LINEAR = {"evaluation": "few-shot"}, {"evaluation": "linear"}


def digest(items: Iterable[object]) -> str:
    return hashlib.sha256("\n".join(map(str, items)).encode()).hexdigest()


def paths(frame: pd.DataFrame) -> list[str]:
    return [f"{name}.jpg" for name in frame["image_id"]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole table, one image."""
    root = tmp_path_factory.mktemp("chexpert")
    home = root / "CheXpert-v1.0-small"
    home.mkdir()
    (home / "train.csv").write_bytes(
        gzip.decompress(trees.package_table("chexpert_train.csv.gz").read_bytes())
    )
    trees.image(home / "train/patient00001/study1/view1_frontal.jpg")
    return root


@pytest.fixture(scope="module")
def published(root: Path) -> Manifest:
    return datasets.build("chexpert", root, "as-published", LINEAR)


@pytest.fixture(scope="module")
def linear(published: Manifest) -> pd.DataFrame:
    return published.frame


@pytest.fixture(scope="module")
def default(root: Path) -> Manifest:
    return datasets.build("chexpert", root)


def counted(cells: pd.Series) -> dict[str, int]:
    """Cells of a finding by what they mean."""
    return {
        name: int((cells == cell).sum())
        for name, cell in (("positive", "1"), ("uncertain", "-1"), ("negative", "0"), ("blank", ""))
    }


def test_the_table(default: Manifest) -> None:
    frame = default.frame
    assert len(frame) == CHEXPERT["rows"]
    assert frame["group"].nunique() == CHEXPERT["patients"]
    assert frame["study"].nunique() == CHEXPERT["studies"]
    assert frame["view"].value_counts().to_dict() == {
        "frontal": CHEXPERT["frontal"],
        "lateral": CHEXPERT["lateral"],
    }
    assert {k or "blank": n for k, n in frame["projection"].value_counts().items()} == CHEXPERT["ap_pa"]
    assert frame["sex"].value_counts().to_dict() == CHEXPERT["sex"]
    findings = CHEXPERT["columns"][5:]
    assert [name for name in default.table.column_names if name in findings] == findings
    for name, truth in CHEXPERT["five_labels_images"].items():
        assert counted(frame[name]) == truth
    assert counted(frame["Pleural Effusion"]) == CHEXPERT["pleural_effusion_images"]


def test_no_image_was_needed_and_that_is_said(default: Manifest) -> None:
    assert any("sampled images are missing" in note for note in default.notes)
    assert "the counts are those of the whole data set: 223,414 images" in default.notes


def test_studies_share_their_label(default: Manifest) -> None:
    studies = default.frame.groupby("study")["Pleural Effusion"].agg(["first", "nunique"])
    assert int((studies["nunique"] > 1).sum()) == CHEXPERT["studies_with_conflicting_pleural_effusion_labels"]
    assert counted(studies["first"]) == CHEXPERT["pleural_effusion_studies"]
    share = 100 * float((studies["first"] == "1").mean())
    assert round(share, 4) == CHEXPERT["pleural_effusion_positive_pct"]["of_studies"]


@pytest.mark.parametrize(
    ("policy", "truth"),
    [
        ("ones", CHEXPERT["pleural_effusion_rule_images"]["u_ones"]),
        ("zeros", CHEXPERT["pleural_effusion_rule_images"]["u_zeros"]),
        ("soft", CHEXPERT["pleural_effusion_rule_images"]["u_ones"]),
    ],
)
def test_every_policy_for_uncertain_findings(root: Path, policy: str, truth: dict[str, int]) -> None:
    manifest = datasets.build("chexpert", root, options={"uncertain": policy})
    assert manifest.classes == truth
    unsure = CHEXPERT["pleural_effusion_images"]["uncertain"]
    assert manifest.unlabelled == 0
    assert "the counts are those of the whole data set: 223,414 images" in manifest.notes
    if policy == "soft":
        targets = pd.to_numeric(manifest.frame["target"])
        drawn = targets[manifest.frame["Pleural Effusion"] == "-1"]
        assert len(drawn) == unsure and drawn.between(0.55, 0.85).all()
        assert abs(float(drawn.mean()) - 0.7) < 4 * 0.3 / np.sqrt(12 * unsure)
        others = targets[manifest.frame["Pleural Effusion"] != "-1"]
        np.testing.assert_array_equal(others, manifest.frame["Pleural Effusion"][others.index] == "1")


def test_expected_counts_of_every_finding() -> None:
    """Counted by pandas from the file itself."""
    table = pd.read_csv(trees.package_table("chexpert_train.csv.gz"), usecols=CHEXPERT["columns"][5:])
    chexpert = datasets.load("chexpert")
    for finding, column in table.items():
        for policy, uncertain in (("ones", 1.0), ("zeros", 0.0)):
            truth = int((column.replace(-1.0, uncertain) == 1.0).sum())
            whole = chexpert.expected("default", label=str(finding), uncertain=policy)
            assert whole["positive"] == truth
            assert whole["negative"] == len(column) - truth
        assert chexpert.expected("default", label=str(finding))[""] == int((column == -1.0).sum())


@pytest.mark.parametrize("part", ["train", "test"])
def test_published_parts(linear: pd.DataFrame, part: str) -> None:
    rows, truth = linear[linear["split"] == part], SPLIT[part]
    assert len(rows) == truth["rows"]
    assert rows["view"].value_counts().to_dict() == {k: truth[k] for k in ("frontal", "lateral")}
    assert rows["group"].nunique() == truth["patients"]
    assert rows["study"].nunique() == truth["studies"]
    assert counted(rows["Pleural Effusion"]) == truth["pleural_effusion"]
    assert rows["label"].value_counts().to_dict() == truth["rule"]["u_zeros"]
    unsure = rows["Pleural Effusion"] == "-1"
    assert int((rows["label"] == "positive").sum() + unsure.sum()) == truth["rule"]["u_ones"]["positive"]
    assert paths(rows)[:3] == truth["first3"]
    assert digest(paths(rows)) == truth["sha256_paths"]
    assert int((rows["pair"] != "").sum()) == SPLIT["laterals"][f"{part}_pairable"]


def test_published_leakage(published: Manifest, linear: pd.DataFrame) -> None:
    train, test = (linear[linear["split"] == part] for part in ("train", "test"))
    both = set(train["group"]) & set(test["group"])
    assert len(both) == SPLIT["patients_in_both"]
    assert train["group"].nunique() - len(both) == SPLIT["patients_train_only"]
    assert test["group"].nunique() - len(both) == SPLIT["patients_test_only"]
    assert int(test["group"].isin(train["group"]).sum()) == SPLIT["test_images_with_patient_in_train"]
    assert len(set(train["study"]) & set(test["study"])) == SPLIT["studies_in_both"]
    assert int(test["study"].isin(train["study"]).sum()) == SPLIT["test_images_with_study_in_train"]
    torn = next(p for p in check(published, files=False).problems if p.code == "group_across_splits")
    assert torn.count == SPLIT["patients_in_both"]


def test_published_validation(linear: pd.DataFrame) -> None:
    truth = SPLIT["validation"]
    train = linear[linear["split"] == "train"]
    indices = _splits.published_validation(len(train))
    assert indices[:10].tolist() == truth["first10_indices"]
    assert digest(indices) == truth["sha256_indices"]
    chosen = (train["validation"] == "yes").to_numpy()
    assert set(np.flatnonzero(chosen)) == set(indices.tolist())
    assert (int(chosen.sum()), int((~chosen).sum())) == (truth["rows"], truth["train_rows"])
    validation, rest = train[chosen], train[~chosen]
    assert validation["label"].value_counts().to_dict() == truth["val_rule"]["u_zeros"]
    assert rest["label"].value_counts().to_dict() == truth["train_rule"]["u_zeros"]
    for rows, rule in ((validation, "val_rule"), (rest, "train_rule")):
        positive = rows["Pleural Effusion"].isin(["1", "-1"]).sum()
        assert int(positive) == truth[rule]["u_ones"]["positive"]
    assert validation["group"].nunique() == truth["val_patients"]
    assert len(set(validation["group"]) & set(rest["group"])) == truth["patients_in_both"]
    assert (linear.loc[linear["split"] == "test", "validation"] == "").all()


@pytest.fixture(scope="module")
def few_shot(root: Path) -> Manifest:
    return datasets.build("chexpert", root, "as-published", FEW_SHOT)


@pytest.mark.parametrize("size", [10000, 10001])
def test_published_few_shot_pool(few_shot: Manifest, size: int) -> None:
    assert len(few_shot) == 10001
    pool, truth = few_shot.frame.iloc[:size], CHEXPERT["few_shot_pool"][str(size)]
    assert pool["label"].value_counts().to_dict() == truth["u_ones"]
    assert pool["group"].nunique() == truth["patients"]
    assert int((pool["view"] == "lateral").sum()) == truth["lateral"]
    assert digest(paths(pool)) == truth["sha256_paths"]
    assert "the counts are those of the whole data set: 10,001 images" in few_shot.notes


def test_uncertain_findings_have_no_label_by_default(default: Manifest) -> None:
    truth = CHEXPERT["pleural_effusion_images"]
    assert default.classes == {"positive": truth["positive"], "negative": truth["negative"] + truth["blank"]}
    assert default.unlabelled == truth["uncertain"]


def test_default_split_is_by_patient(default: Manifest) -> None:
    problems = {problem.code for problem in check(default, files=False).problems}
    assert "group_across_splits" not in problems and "group_missing" not in problems
    patients = default.frame.groupby("group")["split"].first()
    share, n = float((patients == "test").mean()), len(patients)
    assert abs(share - 0.4) < 4 * np.sqrt(0.24 / n)


def test_view_pairs(default: Manifest) -> None:
    views, frame = CHEXPERT["views"], default.frame
    pairs = datasets.view_pairs(default)
    assert pairs.shape == (views["laterals_with_view1_frontal"], 2)
    lateral, frontal = frame.iloc[pairs[:, 0]], frame.iloc[pairs[:, 1]]
    assert (lateral["view"] == "lateral").all() and (frontal["view"] == "frontal").all()
    assert (lateral["study"].to_numpy() == frontal["study"].to_numpy()).all()
    assert frontal["image_id"].str.endswith("/view1_frontal").all()
    assert (lateral["Pleural Effusion"].to_numpy() == frontal["Pleural Effusion"].to_numpy()).all()
    alone = frame[(frame["view"] == "lateral") & (frame["pair"] == "")]
    assert paths(alone) == views["laterals_without_list"]
    per_study = pd.crosstab(frame["study"], frame["view"])
    has = per_study > 0
    assert int((has["frontal"] & ~has["lateral"]).sum()) == views["studies_frontal_only"]
    assert int((has["frontal"] & has["lateral"]).sum()) == views["studies_both"]
    assert len(set(frontal["study"])) == views["studies_both"]
    assert int((~has["frontal"] & has["lateral"]).sum()) == views["studies_lateral_only"]
    assert int(per_study.prod(axis=1).sum()) == views["all_frontal_x_lateral_pairs"]
    assert frame.loc[frame["view"] == "lateral", "group"].nunique() == views["patients_with_lateral"]
    names = frame["uri"].str.rpartition("/")[2]
    for side in ("frontal", "lateral"):
        assert names[frame["view"] == side].value_counts().to_dict() == views[f"{side}_filenames"]


def test_majority_accuracy_of_the_facts() -> None:
    said: Any = " ".join(datasets.load("chexpert").facts.caveats)
    for number in SPLIT["test_majority_accuracy_pct"].values():
        assert f"{number:.3f} %" in said
    assert f"{SPLIT['test_images_with_patient_in_train_pct']:.2f} %" in said
    assert f"{SPLIT['test_images_with_study_in_train_pct']:.2f} %" in said
