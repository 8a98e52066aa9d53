"""The commands that make and check manifests: what they refuse leaves nothing, what they find they say."""

from pathlib import Path

import pytest

from stores.manifest.manifest import Manifest
from tests.command import embank
from tests.corpus import images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat/p1_a.png", "cat/p1_b.png", "dog/p2_a.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(images.png())
    return tmp_path / "images"


@pytest.mark.parametrize("root", ["nowhere", "t.csv", "images/nowhere"])
def test_a_root_that_is_no_folder_is_refused(root: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("uri\ncat/p1_a.png\n")
    before, out = sorted(tmp_path.rglob("*")), tmp_path / "made" / "m.parquet"
    for words in (
        ("manifest", "folder", tmp_path / root, "-o", out),
        ("manifest", "table", tmp_path / "t.csv", "--root", tmp_path / root, "-o", out),
        ("manifest", "build", "imagefolder", tmp_path / root, "-o", out),
        ("manifest", "build", "webdataset", tmp_path / root, "-o", out),
        ("manifest", "build", "chexpert", tmp_path / root, "-o", out),
        ("manifest", "check", tmp_path / "t.csv", "--root", tmp_path / root),
        ("manifest", "split", tmp_path / "t.csv", "--root", tmp_path / root, "--folds", 2, "-o", out),
    ):
        ran = embank(*words)
        assert (ran.code, ran.out) == (2, ""), words
        assert str(tmp_path / root) in ran.err and "remedy:" in ran.err, ran.err
    assert sorted(tmp_path.rglob("*")) == before


def test_patients_in_file_names(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.parquet"
    ran = embank("manifest", "folder", folder, "--group-pattern", r"/(p\d+)_", "-o", out)
    assert ran.code == 0 and "2 groups among 3 images" in ran.err
    assert Manifest.read(out).column("group") == ["p1", "p1", "p2"]
    ran = embank("manifest", "folder", folder, "--group-pattern", "(q)", "-o", tmp_path / "n.parquet")
    assert ran.code == 2 and "no group in any of 3 paths" in ran.err
    assert not (tmp_path / "n.parquet").exists()


def test_files_that_are_no_image_are_found(folder: Path, tmp_path: Path) -> None:
    assert embank("manifest", "folder", folder, "-o", tmp_path / "m.parquet").code == 0
    (folder / "cat/p1_b.png").write_bytes(images.png()[:-100])
    (folder / "dog/p2_a.png").write_bytes(b"nothing")
    assert embank("manifest", "check", tmp_path / "m.parquet", "--json").code == 0
    ran = embank("manifest", "check", tmp_path / "m.parquet", "--content", "--json")
    found = {
        problem["code"]: problem["count"]
        for problem in ran.json["problems"]
        if problem["severity"] == "error"
    }
    assert (ran.code, found) == (2, {"truncated": 1, "unknown_format": 1})
    ran = embank("manifest", "check", tmp_path / "m.parquet", "--content")
    assert "'cat/p1_b.png': its PNG chunks stop before IEND" in ran.out
