"""Shenzhen and Montgomery on small trees in their layouts, with the study's rules."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from engine import datasets
from engine.errors import Refused
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from tests.engine.datasets import trees

ORACLES = json.loads((Path(__file__).parents[2] / "oracles/label_tables.json").read_text())
STEMS = [f"CHNCXR_{n:04d}_{int(n > 4)}" for n in range(1, 9)]
TABLE = ["study_id,sex,age,findings", *(f"{s}.png,M,30,{'PTB' if s[-1] == '1' else 'normal'}" for s in STEMS)]


def build(root: Path, mode: str = "default", name: str = "shenzhen", **options: str) -> Manifest:
    return datasets.build(name, root, mode, options)


@pytest.mark.parametrize("folder", ["ChinaSet_AllFiles/CXR_png", "CXR_png", "images/images", "images"])
def test_layouts(tmp_path: Path, folder: str) -> None:
    manifest = build(trees.tuberculosis(tmp_path, folder, STEMS))
    assert check(manifest).ok
    assert manifest.uris == [f"{folder}/{stem}.png" for stem in STEMS]
    assert manifest.column("label") == ["negative"] * 4 + ["positive"] * 4
    assert "no metadata table: labels are from file names, sex and age are not known" in manifest.notes


def test_the_whole_published_split_of_shenzhen(tmp_path: Path) -> None:
    """326 normal, then 336 other names; the digests were computed from the real table, in file-name order."""
    truth = ORACLES["shenzhen"]
    stems = [f"CHNCXR_{n:04d}_{int(n > truth['normal'])}" for n in range(1, truth["rows"] + 1)]
    folder = tmp_path / "ChinaSet_AllFiles/CXR_png"
    folder.mkdir(parents=True)
    for stem in stems:
        (folder / f"{stem}.png").touch()
    frame = build(tmp_path, "as-published").frame
    for part in ("train", "test"):
        rows = frame[frame["split"] == part]
        names = [f"{name}.png" for name in rows["image_id"]]
        assert rows["label"].value_counts().to_dict() == {
            "negative": truth["paper_split"][part]["normal"],
            "positive": truth["paper_split"][part]["abnormal"],
        }
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        assert digest == truth["paper_split"][part]["sha256_images"]
    assert [f"{name}.png" for name in frame["image_id"][:3]] == truth["paper_split"]["train"]["first3"]
    assert "the counts are those of the whole data set: 662 images" in build(tmp_path).notes


def test_the_table_gives_findings_and_the_order(tmp_path: Path) -> None:
    root = trees.tuberculosis(tmp_path, "ChinaSet_AllFiles/CXR_png", STEMS)
    trees.lines(root / "shenzhen_metadata.csv", [TABLE[0], *TABLE[:0:-1]])
    assert build(root).column("findings") == ["normal"] * 4 + ["PTB"] * 4
    published = build(root, "as-published")
    order = np.random.RandomState(42).permutation(8)
    assert published.image_ids == [STEMS[::-1][i] for i in order]
    assert published.column("split") == ["train"] * 6 + ["test"] * 2


def test_the_studys_rule_is_exact_and_the_default_is_not(tmp_path: Path) -> None:
    root = trees.tuberculosis(tmp_path, "CXR_png", STEMS)
    odd = TABLE[1].replace("normal", "Normal")
    trees.lines(root / "shenzhencxr_metadata.csv", [TABLE[0], odd, *TABLE[2:]])
    for mode, label in (("default", "negative"), ("as-published", "positive")):
        frame = build(root, mode).frame.set_index("image_id")
        assert frame.loc[STEMS[0], "label"] == label


def test_montgomery_says_its_depth(tmp_path: Path) -> None:
    stems = ["MCUCXR_0001_0", "MCUCXR_0104_1"]
    manifest = build(trees.tuberculosis(tmp_path, "MontgomerySet/CXR_png", stems, bits=12), name="montgomery")
    assert manifest.column("bits") == ["12", "12"]
    assert manifest.column("label") == ["negative", "positive"]
    assert "bits" not in build(trees.tuberculosis(tmp_path, "CXR_png", STEMS)).table.column_names
    assert any("16-bit" in caveat for caveat in datasets.load("montgomery").facts.caveats)


def test_case_of_names(tmp_path: Path) -> None:
    root = trees.tuberculosis(tmp_path, "CXR_png", STEMS)
    whole = build(root)
    (root / f"CXR_png/{STEMS[0]}.png").rename(root / f"CXR_png/{STEMS[0].lower()}.PNG")
    manifest = build(root)
    assert manifest.uris[0] == f"CXR_png/{STEMS[0].lower()}.PNG"
    assert manifest.image_ids == whole.image_ids


def test_missing_and_bad_parts(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"ChinaSet_AllFiles/CXR_png is missing"):
        build(tmp_path)
    (tmp_path / "CXR_png").touch()
    with pytest.raises(Refused, match="CXR_png is a file"):
        build(tmp_path)
    (tmp_path / "CXR_png").unlink()
    root = trees.tuberculosis(tmp_path, "CXR_png", STEMS)
    trees.lines(root / "shenzhen_metadata.csv", [*TABLE, TABLE[1]])
    with pytest.raises(Refused, match=r"row 9.*once"):
        build(root)
    trees.lines(root / "shenzhen_metadata.csv", [*TABLE, "MCUCXR_0001_0.png,M,30,normal"])
    with pytest.raises(Refused, match="starts with CHNCXR_"):
        build(root)
    trees.lines(root / "shenzhen_metadata.csv", [*TABLE, "CHNCXR_0009_1.png,M,30,PTB"])
    assert any("1 of 9 rows" in note for note in build(root).notes)
    (root / "shenzhen_metadata.csv").unlink()
    trees.image(root / "CXR_png/other.png")
    with pytest.raises(Refused, match="named like CHNCXR_0001_0"):
        build(root)
