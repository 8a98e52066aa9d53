"""Reading: limits, links, and the line between a bad image and a bad machine."""

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from engine.decode import ImageSource, Limits, make_decoder
from engine.decode import source as module
from engine.decode.contents import Contents
from engine.errors import BadImage, ChangedImage, MachineFault, Refused
from engine.recipes import Recipe
from tests.corpus.images import png


def code(source: ImageSource, row: int = 0) -> str:
    with pytest.raises(BadImage) as caught:
        source.read(row)
    return caught.value.code


def test_bytes_are_the_files(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "a").write_bytes(data)
    assert ImageSource(tmp_path, ["a"]).read(0) == data


def test_size_limit_is_inclusive(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100))
    assert len(ImageSource(tmp_path, ["a"], limits=Limits(max_bytes=100)).read(0)) == 100
    assert code(ImageSource(tmp_path, ["a"], limits=Limits(max_bytes=99))) == "too_large"


def test_sparse_giant_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 42)
    assert code(ImageSource(tmp_path, ["a"])) == "too_large"


def test_file_that_grows_while_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(5000))
    real = os.fstat

    def shorter(handle: int) -> os.stat_result:
        found = list(real(handle))
        found[6] = 10
        return os.stat_result(found)

    monkeypatch.setattr(module.os, "fstat", shorter)
    assert len(ImageSource(tmp_path, ["a"]).read(0)) == 5000
    assert code(ImageSource(tmp_path, ["a"], limits=Limits(max_bytes=4000))) == "too_large"


@pytest.mark.parametrize(
    ("number", "code", "pending"),
    [
        (errno.ENOENT, "missing", True),
        (errno.ENOTDIR, "missing", True),
        (errno.EACCES, "unreadable", True),
        (errno.EPERM, "unreadable", True),
        (errno.ELOOP, "unreadable", False),
        (errno.ENAMETOOLONG, "unreadable", False),
    ],
)
def test_what_is_not_the_images_fault_is_pending(
    number: int, code: str, pending: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, whom no permission stops: so the answer of the system is made."""
    (tmp_path / "a").write_bytes(png())

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.os, "open", refuse)
    with pytest.raises(BadImage) as caught:
        ImageSource(tmp_path, ["a"]).read(0)
    assert (caught.value.code, caught.value.pending) == (code, pending)


def test_limits_are_settings_and_damage_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100))
    (tmp_path / "b").write_bytes(b"")
    for name, limit, pending in (("a", 99, True), ("b", 99, False)):
        with pytest.raises(BadImage) as caught:
            ImageSource(tmp_path, [name], limits=Limits(max_bytes=limit)).read(0)
        assert caught.value.pending is pending


def test_contents_are_noted_and_compared(tmp_path: Path) -> None:
    data = {"a": png(), "b": b"other"}
    for name, value in data.items():
        (tmp_path / name).write_bytes(value)
    contents = Contents(np.zeros((2, 32), np.uint8))
    source = ImageSource(tmp_path, ["a", "b"], contents=contents)
    for row in (0, 1):
        source.read(row)
    assert [each.tobytes() for each in contents.read] == [hashlib.sha256(v).digest() for v in data.values()]
    expecting = ImageSource(tmp_path, ["b", "b"], contents=Contents(contents.read))
    assert expecting.read(1) == b"other"
    with pytest.raises(ChangedImage, match="'b' is not the image"):
        expecting.read(0)


def test_outside_may_be_allowed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "a.png"
    root.mkdir()
    outside.write_bytes(png())
    (root / "link.png").symlink_to(outside)
    uris = ["link.png", str(outside)]
    assert [code(ImageSource(root, uris), row) for row in (0, 1)] == ["outside_root"] * 2
    source = ImageSource(root, uris, allow_outside=True)
    assert source.read(0) == source.read(1) == png()


def test_root_with_a_similar_neighbour(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data2").mkdir()
    (tmp_path / "data2" / "a").write_bytes(b"x")
    (tmp_path / "data" / "a").symlink_to("../data2/a")
    assert code(ImageSource(tmp_path / "data", ["a"])) == "outside_root"


def test_root_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"x")
    (tmp_path / "root").symlink_to("real")
    assert ImageSource(tmp_path / "root", ["a"]).read(0) == b"x"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("call", ["stat", "open", "read"])
def test_faults_of_the_machine_are_not_the_image(
    number: int, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(png())

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with make_decoder("reference", Recipe(), device="cpu", threads=1, batch_size=2) as decoder:
        stream = decoder.stream(ImageSource(tmp_path, ["a.png"]), [[0]])
        monkeypatch.setattr(module.os, call, fail)
        with pytest.raises(MachineFault, match=r"a\.png") as caught:
            next(stream)
        monkeypatch.undo()
    assert caught.value.exit_code == 3


def test_refusals() -> None:
    with pytest.raises(Refused, match="digest"):
        ImageSource(Path(), ["a", "b"], ["0" * 64])
    with pytest.raises(Refused, match="max_pixels"):
        Limits(max_pixels=0)
