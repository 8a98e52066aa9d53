"""Patients in the names of files."""

from pathlib import Path

import pytest

from stores.errors import Refused
from stores.manifest.file_groups import groups_of
from stores.manifest.manifest import Manifest

URIS = ["a/p01_left.png", "a/p01_right.png", "b/p2.png", "b/none.png"]


@pytest.mark.parametrize(
    "pattern",
    [
        r"(p\d+)",
        r"(?P<group>p\d+)(_left|_right)?",
        r"(a|b)/(?P<group>p\d+)",
        r"(?:a|b)/(p\d+)?",
        r"(?i)/(P\d+)",
    ],
)
def test_groups_are_what_stands_in_the_parentheses(pattern: str) -> None:
    groups, note = groups_of(URIS, pattern)
    assert groups == ["p01", "p01", "p2", ""]
    assert note == (
        "2 groups among 3 images, by their names; 1 images have none (such as 'b/none.png'): each counts as "
        "a patient of its own"
    )


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(p", "unterminated"),
        ("p\\d+", "no parentheses"),
        ("(p)(\\d)", "2 parentheses"),
        ("", "no parentheses"),
        ("(?:p)", "no parentheses"),
        ("(q)", "no group in any of 4 paths, such as 'a/p01_left.png'"),
        ("()p", "no group in any"),
        ("(x{99999999999999999999})", "group pattern"),
        ("(" * 3000 + ")" * 3000, "group pattern"),
    ],
)
def test_what_gives_no_groups_is_refused(pattern: str, says: str) -> None:
    with pytest.raises(Refused, match=says) as caught:
        groups_of(URIS, pattern)
    assert "(?P<group>p[0-9]+)_" in caught.value.remedy


def test_the_remedys_example_works() -> None:
    assert groups_of(["x/p017_left.png"], "(?P<group>p[0-9]+)_")[0] == ["p017"]


def test_a_folder_gets_its_groups(tmp_path: Path) -> None:
    for uri in URIS:
        (tmp_path / uri).parent.mkdir(exist_ok=True)
        (tmp_path / uri).write_bytes(b"")
    manifest = Manifest.from_folder(tmp_path, group_pattern=r"(p\d+)")
    assert dict(zip(manifest.uris, manifest.column("group"), strict=True)) == dict(
        zip(URIS, ["p01", "p01", "p2", ""], strict=True)
    )
    assert "2 groups among 3 images" in manifest.notes[-1]
