"""Which images are compared with which."""

from pathlib import Path

import pytest

from engine.errors import Refused
from engine.evals.perceptual.pairs import Pair, find_pairs


def folder(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_two_files_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", "x.png") / "x.png", folder(tmp_path / "b", "y.jpg") / "y.jpg"
    pairs = find_pairs(a, b)
    assert pairs.pairs == (Pair("x.png", "y.jpg"),)
    assert pairs.roots == (tmp_path / "a", tmp_path / "b")


def test_folders_match_by_path_without_extension_and_lose_no_file(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", "p/1.png", "p/2.png", "q/1.v2.png", "notes.txt")
    b = folder(tmp_path / "b", "p/1.jpg", "q/1.v2.TIF", "q/3.png", ".hidden.png")
    assert find_pairs(a, b).pairs == (
        Pair("p/1.png", "p/1.jpg"),
        Pair("p/2.png", None),
        Pair("q/1.v2.png", "q/1.v2.TIF"),
        Pair(None, "q/3.png"),
    )


def test_what_is_no_pair_is_refused(tmp_path: Path) -> None:
    a, empty = folder(tmp_path / "a", "1.png", "sub/2.png"), tmp_path / "empty"
    empty.mkdir()
    for first, second, words in (
        (a, tmp_path / "nowhere", "is not there"),
        (a, a / "1.png", "is a file"),
        (a / "1.png", a, "is a file"),
        (a, empty, "has no image"),
        (a, a / "sub", "no name in common"),
        (a, folder(tmp_path / "twice", "1.png", "1.jpg"), "belongs to one file"),
    ):
        with pytest.raises(Refused, match=words) as caught:
            find_pairs(first, second)
        assert caught.value.remedy
