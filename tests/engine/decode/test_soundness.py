"""Files that are no image, or cut short, are found without decoding them; the corpus says which they are."""

import zipfile
from pathlib import Path

import pytest

from engine.decode.soundness import fault_finder
from engine.decode.source import ImageSource, Limits
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from stores.manifest.problems import CheckReport
from tests.corpus import images

pytestmark = pytest.mark.slow

#: Complete as far as their structure goes: found when they are decoded, and no earlier.
DECODED = {"JPEG, no tables"}
DICOM = {"garbage", "no preamble", "half", "minus 20 bytes", "no rows", "three frames"}


def checked(root: Path, files: dict[str, bytes], limits: Limits | None = None) -> CheckReport:
    """What `manifest check --content` finds."""
    for name, data in files.items():
        (root / name).write_bytes(data)
    manifest = Manifest.from_columns({"uri": list(files)}, root)
    fault_of = fault_finder(ImageSource(root, manifest.uris, limits=limits or Limits()))
    return check(manifest, content=True, fault_of=fault_of)


@pytest.mark.parametrize("kind", ["truncated", "corrupt", "silent", "modes", "DICOM"])
def test_the_corpus(kind: str, tmp_path: Path) -> None:
    """What fails for its structure is found, and no good image is accused."""
    cases = [case for case in images.BYTES[kind] if kind != "DICOM" or case.name in DICOM]
    fault_of = fault_finder(ImageSource(tmp_path, [str(number) for number in range(len(cases))]))
    for number, case in enumerate(cases):
        (tmp_path / str(number)).write_bytes(case.make())
        code = fault[0] if (fault := fault_of(number)) else ""
        due = "" if case.name in DECODED or case.code == "depth" else case.code
        assert code == due, (case.name, fault)


def test_faults_are_counted_by_kind_with_examples(tmp_path: Path) -> None:
    good = images.png()
    files = {
        "a.png": good, "b.png": good[:-40], "c.png": b"<html>", "d.jpg": images.half(images.jpeg()),
        "e.png": b"", "f.tif": images.written(images.scene(), "TIFF"),
    }  # fmt: skip
    report = checked(tmp_path, files)
    found = {problem.code: problem for problem in report.problems if problem.severity == "error"}
    assert {code: problem.count for code, problem in found.items()} == {
        "truncated": 2,
        "unknown_format": 1,
        "empty": 1,
    }
    assert found["truncated"].text == "2 image files are cut short"
    assert found["truncated"].examples[0] == "'b.png': its PNG chunks stop before IEND"
    assert "an HTML page" in found["unknown_format"].examples[0]
    assert "fetch them again" in found["truncated"].remedy and not report.ok
    (tmp_path / "e.png").unlink()  # what is not there is said once
    assert {
        p.code: p.count for p in checked(tmp_path, {"a.png": good}).problems if p.severity == "error"
    } == {}


def test_members_of_archives_are_looked_at(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", images.png())
        archive.writestr("cut.png", images.png()[:-40])
    manifest = Manifest.from_columns({"uri": ["x.zip!/good.png", "x.zip!/cut.png"]}, tmp_path)
    report = check(manifest, content=True, fault_of=fault_finder(ImageSource(tmp_path, manifest.uris)))
    (problem,) = [problem for problem in report.problems if problem.severity == "error"]
    assert (problem.code, problem.examples[0].partition(":")[0]) == ("truncated", "'x.zip!/cut.png'")


def test_a_limit_is_no_fault_of_the_file(tmp_path: Path) -> None:
    report = checked(tmp_path, {"a.png": images.png()}, Limits(max_pixels=100))
    found = {problem.code: problem.severity for problem in report.problems}
    assert found["too_large"] == "warning" and report.ok
