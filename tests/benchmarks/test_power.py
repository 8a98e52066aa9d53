"""Power cuts (`benchmarks.faults.power`, small): nothing promised is lost, a careless protocol is caught."""

import os
import random
import shutil
from pathlib import Path

import pytest

from benchmarks.faults import power
from benchmarks.faults.disk import Disk

pytestmark = pytest.mark.slow


def test_cuts_lose_nothing_and_every_mutant_is_caught() -> None:
    result = power.run(runs=20, say=lambda _: None)
    assert result["problems"] == []
    assert result["ok"] and result["cuts"] == sum(result["fell"].values()) == 20
    assert set(result["mutants"]) == set(power.MUTANTS)
    assert all(at is not None for at in result["mutants"].values())


def states(disk: Disk, folder: Path, draws: int = 60) -> set[tuple[tuple[str, bytes], ...]]:
    """What a cut at this moment was seen to leave."""
    found = set()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for draw in range(draws):
        target = folder / f"left{draw}"
        disk.survivors(target, random.Random(draw))
        left = [(path.name, path.read_bytes()) for path in sorted(target.rglob("*")) if path.is_file()]
        found.add(tuple(left))
    return found


def write(disk: Disk, path: Path, data: bytes, *, sync: bool) -> None:
    descriptor = disk.open(path, os.O_WRONLY | os.O_CREAT)
    disk.write(descriptor, data)
    if sync:
        disk.fsync(descriptor)
    disk.close(descriptor)


def sync_folder(disk: Disk, path: Path) -> None:
    descriptor = disk.open(path, os.O_RDONLY)
    disk.fsync(descriptor)
    disk.close(descriptor)


def test_the_model_keeps_what_was_synced_and_nothing_else_for_sure(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk", lambda count: None)
    write(disk, disk.root / "a", b"xyz", sync=True)
    left = tmp_path / "left"
    assert states(disk, left) == {(), (("a", b"xyz"),)}, (
        "a name that was not synced may be lost, its bytes not"
    )
    sync_folder(disk, disk.root)
    assert states(disk, left) == {(("a", b"xyz"),)}
    write(disk, disk.root / "b", b"uvw", sync=False)
    sync_folder(disk, disk.root)
    found = [dict(state) for state in states(disk, left)]
    assert {b"", b"uvw", b"uv\0", b"u"} <= {each["b"] for each in found}, (
        "bytes not synced may be lost, or zeros"
    )
    assert {each["a"] for each in found} == {b"xyz"}


def test_the_model_lets_names_go_separate_ways(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "old").write_bytes(b"old")
    disk = Disk(tmp_path / "disk", lambda count: None)
    write(disk, disk.root / "new", b"new", sync=True)
    sync_folder(disk, disk.root)
    disk.replace(disk.root / "new", disk.root / "old")
    assert states(disk, tmp_path / "left") == {
        (("old", b"new"),),
        (("new", b"new"), ("old", b"old")),
        (("new", b"new"), ("old", b"new")),
        (("old", b"old"),),
    }
