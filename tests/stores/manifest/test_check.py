"""`check` finds what was planted, and nothing in a clean set."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from stores.manifest.problems import CheckReport


def build(root: Path, rows: list[tuple[str, bytes, str, str, str]], **more: list[str]) -> Manifest:
    """Files and manifest from (uri, bytes, label, split, group)."""
    for uri, data, *_ in rows:
        (root / uri).parent.mkdir(parents=True, exist_ok=True)
        (root / uri).write_bytes(data)
    names = ("uri", "label", "split", "group")
    cells = list(zip(*[(uri, label, split, group) for uri, _, label, split, group in rows], strict=True))
    ids = [str(i) for i in range(len(rows))]
    columns = {name: list(column) for name, column in zip(names, cells, strict=True)}
    return Manifest.from_columns({"image_id": ids} | columns | more, root)


def clean(count: int = 20) -> list[tuple[str, bytes, str, str, str]]:
    return [
        (f"{label}/{split}{i}.png", f"{label} {split} {i:03d}".encode(), label, split, f"{split}{i}")
        for label in ("cat", "dog")
        for split in ("train", "test")
        for i in range(count)
    ]


def codes(report: CheckReport) -> dict[str, int]:
    return {problem.code: problem.count for problem in report.problems}


def test_nothing_is_found_in_a_clean_set(tmp_path: Path) -> None:
    report = check(build(tmp_path, clean()), content=True)
    assert report.problems == ()
    assert report.ok
    assert (report.rows, report.groups, report.classes) == (80, 40, {"cat": 40, "dog": 40})
    assert report.class_counts == {"test": {"cat": 20, "dog": 20}, "train": {"cat": 20, "dog": 20}}
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


def test_files_that_cannot_be_read_are_sorted_by_reason(tmp_path: Path) -> None:
    root = tmp_path / "root"
    manifest = build(root, clean())
    files = [root / uri for uri in manifest.uris]
    for path in files[:9]:
        path.unlink()
    files[1].mkdir()
    os.mkfifo(files[2])
    files[3].symlink_to("/dev/null")
    (tmp_path / "secret").write_text("x")
    files[4].symlink_to(tmp_path / "secret")
    files[5].symlink_to(files[5])
    files[6].symlink_to("absent")
    files[7].write_bytes(b"")
    files[8].symlink_to(files[9].name)
    report = check(manifest)
    found = codes(report)
    assert found == {"missing": 2, "not_a_file": 2, "outside_root": 2, "unreadable": 1, "empty": 1}
    assert not report.ok
    by_code = {problem.code: problem for problem in report.problems}
    assert by_code["missing"].examples == (manifest.uris[0], manifest.uris[6])
    assert by_code["outside_root"].examples == (manifest.uris[3], manifest.uris[4])
    outside = codes(check(manifest, allow_outside=True))
    assert outside == {"missing": 2, "not_a_file": 3, "unreadable": 1, "empty": 1}
    assert check(manifest, files=False).problems == ()


def test_a_linked_folder_leads_outside(tmp_path: Path) -> None:
    manifest = build(tmp_path / "root", clean())
    (tmp_path / "root" / "cat").rename(tmp_path / "cat")
    (tmp_path / "root" / "cat").symlink_to(tmp_path / "cat")
    assert codes(check(manifest)) == {"outside_root": 40}
    assert codes(check(manifest, allow_outside=True)) == {}


def test_a_name_that_is_too_long_is_found(tmp_path: Path) -> None:
    rows = clean()
    manifest = build(tmp_path, rows, uri=["x" * 300 + ".png", *[row[0] for row in rows[1:]]])
    assert codes(check(manifest)) == {"unreadable": 1}


def test_patients_across_splits(tmp_path: Path) -> None:
    rows = clean()
    rows[0] = (*rows[0][:4], "test3")  # a training image of a patient of the test split
    rows[1] = (*rows[1][:3], "", "test4")  # without split: no leak
    rows[2] = (*rows[2][:4], "")
    report = check(build(tmp_path, rows))
    assert codes(report) == {"group_across_splits": 1, "group_missing": 1}
    torn = report.problems[0]
    assert torn.examples == ("test3: test, train",)
    assert "(3 rows)" in torn.text
    assert torn.severity == "error"
    assert report.problems[1].severity == "warning"


def test_copies_are_found_by_content(tmp_path: Path) -> None:
    rows = clean()
    uri, _, label, split, group = rows[5]
    rows[6] = (rows[6][0], b"a size of its own, twice", *rows[6][2:])
    rows[5] = (uri, rows[6][1], label, split, group)
    manifest = build(tmp_path, rows)
    assert codes(check(manifest)) == {}
    report = check(manifest, content=True)
    assert codes(report) == {"duplicate_content": 1}
    assert report.ok, "a copy within class and split is a warning"
    assert report.problems[0].examples == (f"{rows[5][0]} = {rows[6][0]}",)


@pytest.mark.parametrize(("other", "says"), [(25, "1 in different splits"), (45, "1 with different labels")])
def test_copies_that_leak_are_errors(other: int, says: str, tmp_path: Path) -> None:
    rows = clean()
    uri, _, label, split, group = rows[5]
    rows[5] = (uri, rows[other][1], label, split, group)
    report = check(build(tmp_path, rows), content=True)
    assert codes(report) == {"duplicate_content": 1}
    assert not report.ok
    assert says in report.problems[0].text


def test_one_file_in_two_rows(tmp_path: Path) -> None:
    rows = clean()
    rows.append(("cat/./train0.png", *rows[0][1:]))
    assert codes(check(build(tmp_path, rows), content=True)) == {"duplicate_uri": 1}
    rows[-1] = (*rows[-1][:3], "test", "train0")
    report = check(build(tmp_path, rows), content=True)
    assert codes(report) == {"duplicate_uri": 1, "group_across_splits": 1}
    assert {problem.severity for problem in report.problems} == {"error"}


def test_changed_files_are_found_by_their_digest(tmp_path: Path) -> None:
    rows = clean()
    digests = [hashlib.sha256(row[1]).hexdigest() for row in rows]
    manifest = build(tmp_path, rows, sha256=digests)
    assert codes(check(manifest, content=True)) == {}
    path = tmp_path / rows[7][0]
    path.write_bytes(path.read_bytes()[::-1])
    assert codes(check(manifest, content=True)) == {"digest": 1}


def test_what_evaluations_lack(tmp_path: Path) -> None:
    rows = [(f"{i}.png", str(i).encode(), "", "", "") for i in range(3)]
    assert codes(check(build(tmp_path, rows))) == {"no_group": 3, "no_label": 3}
    rows = [(f"{i}.png", str(i).encode(), "x" if i else "", "", "") for i in range(3)]
    found = codes(check(build(tmp_path, rows)))
    assert found == {"no_group": 3, "unlabelled": 1, "small_class": 1, "one_class": 1}
    rows = [row if row[2:4] != ("dog", "test") else (*row[:3], "train", row[4]) for row in clean()]
    assert codes(check(build(tmp_path, rows)))["class_absent"] == 1


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    check(build(tmp_path, clean()), progress=lambda *now: seen.append(now))
    assert seen[-1] == (80, 80)
