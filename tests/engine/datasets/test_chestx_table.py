"""The real label table of ChestX-ray14: every count and digest that was computed from it independently."""

import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine import datasets
from engine.datasets import _splits, chestx
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from tests.engine.datasets import trees

pytestmark = pytest.mark.slow

CHESTX = json.loads((Path(__file__).parents[2] / "oracles/label_tables.json").read_text())["chestx"]
SPLIT, SEVEN = CHESTX["paper_split"], CHESTX["seven_class"]


def digest(items: Iterable[object]) -> str:
    return hashlib.sha256("\n".join(map(str, items)).encode()).hexdigest()


def names(frame: pd.DataFrame) -> list[str]:
    return [f"{name}.png" for name in frame["image_id"]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole table, and an empty file for every image with one finding: none is opened."""
    root = tmp_path_factory.mktemp("chestx")
    data = gzip.decompress(trees.package_table("Data_Entry_2017_v2020.csv.gz").read_bytes())
    (root / "Data_Entry_2017_v2020.csv").write_bytes(data)
    (root / "images").mkdir()
    for line in data.decode().splitlines()[1:]:
        name, findings = line.split(",")[:2]
        if "|" not in findings and findings != "No Finding":
            (root / "images" / name).touch()
    return root


@pytest.fixture(scope="module")
def published(root: Path) -> Manifest:
    return datasets.build("chestx", root, "as-published")


@pytest.fixture(scope="module")
def table(root: Path) -> pd.DataFrame:
    """All rows in the order of the file, whether they have a label or not."""
    return chestx._rows(root / "Data_Entry_2017_v2020.csv")


def test_the_table(table: pd.DataFrame) -> None:
    assert len(table) == CHESTX["rows"]
    assert table["group"].nunique() == CHESTX["patients"]
    assert table["view"].value_counts().to_dict() == CHESTX["view"]
    assert int(table["findings"].str.contains("|", regex=False).sum()) == CHESTX["multi_label_images"]
    occurrences = {name: int((table[name] == "1").sum()) for name in chestx.FINDINGS}
    occurrences["No Finding"] = int((table["findings"] == "No Finding").sum())
    assert occurrences == CHESTX["label_occurrences"]
    in_name = table["image_id"].str[:8].astype(int)
    assert (in_name == table["group"].astype(int)).all(), "names tell the patient"


def test_single_labels(root: Path, table: pd.DataFrame) -> None:
    fourteen = datasets.build("chestx", root, options={"label": "fourteen"})
    assert fourteen.classes == {k: n for k, n in CHESTX["single_label_counts"].items() if k != "No Finding"}
    assert len(fourteen) == CHESTX["single_pathology_total_14"]
    alone = int((table["findings"] == "No Finding").sum())
    assert alone == CHESTX["single_label_counts"]["No Finding"]
    assert "the counts are those of the whole data set: 30,963 images" in fourteen.notes


def test_seven_classes(root: Path) -> None:
    manifest = datasets.build("chestx", root)
    assert manifest.classes == SEVEN["counts"]
    assert list(manifest.classes) == SEVEN["order"], "codes are the study's"
    assert len(manifest) == SEVEN["total"]
    assert manifest.frame["group"].nunique() == SEVEN["patients"]
    assert manifest.frame["group"].value_counts().max() == 49
    assert "group_across_splits" not in {p.code for p in check(manifest, files=False).problems}
    patients = manifest.frame.groupby("group")["split"].first()
    assert abs(float((patients == "test").mean()) - 0.2) < 4 * np.sqrt(0.16 / len(patients))


@pytest.mark.parametrize("finding", chestx.FINDINGS)
def test_expected_counts_of_a_finding(finding: str) -> None:
    truth = CHESTX["label_occurrences"][finding]
    assert chestx.expected("default", label=finding) == {"positive": truth, "negative": 112120 - truth}


@pytest.mark.parametrize("part", ["train", "test"])
def test_published_parts(published: Manifest, part: str) -> None:
    truth = SPLIT[part]
    rows = published.frame[published.frame["split"] == part]
    assert len(rows) == truth["rows"]
    assert rows["label"].value_counts().to_dict() == truth["classes"]
    assert rows["group"].nunique() == truth["patients"]
    assert names(rows)[:3] == truth["first3"]
    assert digest(names(rows)) == truth["sha256_images"]


def test_published_leakage(published: Manifest, table: pd.DataFrame) -> None:
    frame = published.frame
    train, test = (frame[frame["split"] == part] for part in ("train", "test"))
    assert len(set(train["group"]) & set(test["group"])) == SPLIT["patients_in_both_after_filter"]
    assert int(test["group"].isin(train["group"]).sum()) == SPLIT["test_images_with_patient_in_train"]
    before = _splits.published_split(table)
    sides = {part: before[before["split"] == part] for part in ("train", "test")}
    assert len(sides["train"]) == SPLIT["train_rows_before_filter"]
    assert len(sides["test"]) == SPLIT["test_rows_before_filter"]
    shared = set(sides["train"]["group"]) & set(sides["test"]["group"])
    assert len(shared) == SPLIT["patients_in_both_before_filter"]


@pytest.mark.parametrize("size", [10000, 10001])
def test_published_few_shot_pool(root: Path, size: int) -> None:
    manifest = datasets.build("chestx", root, "as-published", {"evaluation": "few-shot"})
    assert len(manifest) == 10001
    pool, truth = manifest.frame.iloc[:size], CHESTX["few_shot_pool"][str(size)]
    assert pool["label"].value_counts().to_dict() == truth["classes"]
    assert pool["group"].nunique() == truth["patients"]
    assert digest(names(pool)) == truth["sha256_images"]
    if size == 10001:
        assert (
            pool.groupby("label")["group"].nunique().to_dict()
            == CHESTX["few_shot_pool_patients_per_class_10001"]
        )
        assert "the counts are those of the whole data set: 10,001 images" in manifest.notes
