"""Pruning: only what can be made again goes, what was not used for longest first, down to the size."""

import os
from pathlib import Path

import numpy as np
import pytest

from stores.backends import private
from stores.bank import array_cache
from stores.bank.caches import prune, size
from stores.bank.layout import SIDE
from stores.bank.reader import Bank
from stores.errors import BankError, Refused
from stores.maintenance.verify import verify
from tests.stores.banks import content, make_bank


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1000", 1000),
        ("10GB", 10 * 10**9),
        ("10 GB", 10 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("2k", 2000),
        ("3MiB", 3 * 2**20),
        ("1tb", 10**12),
        ("7B", 7),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "ten", "-1", "1 XB", "1e9", "nan", "10GBs", "1,5GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="size"):
        size(text)


@pytest.fixture
def bank(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bank:
    """Caches of every kind, each file a kilobyte or so, used in this order."""
    bank = make_bank(quick_path / "bank", 40, 5)
    cache = quick_path / "cache"
    monkeypatch.setenv(private.CACHE_VARIABLE, str(cache))
    for at, relative in enumerate(
        ("views/f/rotate.0/1", "saliency/0/1", "statistics/1", "views/f/rotate.0/2")
    ):
        array_cache.write(bank.path, f"{relative}.arrays", {"at": at}, {"x": np.zeros(100)})
        os.utime(bank.path / SIDE / f"{relative}.arrays", (1000 + at, 1000 + at))
    for at, name in enumerate(("a" * 64, "b" * 64)):
        (cache / "banks" / name / "x").mkdir(parents=True)
        (cache / "banks" / name / "x" / "chunk").write_bytes(b"0" * 1000)
        os.utime(cache / "banks" / name / "x" / "chunk", (2000 + at, 2000 + at))
    for other in ("facts/x.json", "models/w.pth", "banks/notes.txt"):
        (cache / other).parent.mkdir(exist_ok=True)
        (cache / other).write_bytes(b"mine")
    return bank


def cached(bank: Bank) -> list[str]:
    below = [
        path for kind in ("views", "saliency", "statistics") for path in (bank.path / SIDE / kind).rglob("*")
    ]
    found = [path.relative_to(bank.path / SIDE).as_posix() for path in below if path.is_file()]
    copies = bank.path.parent / "cache" / "banks"
    return sorted([*found, *(path.name[0] for path in copies.iterdir() if path.is_dir())])


def test_all_caches_go_and_nothing_else(bank: Bank) -> None:
    sealed = {
        p: d for p, d in content(bank.path).items() if not p.startswith(f"{SIDE}/") or "torchvision" in p
    }
    report = prune(bank.path)
    assert cached(bank) == []
    assert {kind: of["files"] for kind, of in report["removed"].items()} == {
        "views": 2,
        "saliency": 1,
        "reconstructions": 0,
        "statistics": 1,
        "buckets": 2,
    }
    assert report["kept_bytes"] == 0
    after = content(bank.path)
    assert {path: after[path] for path in sealed} == sealed
    assert verify(bank).ok
    cache = bank.path.parent / "cache"
    assert sorted(path.name for path in cache.rglob("*") if path.is_file()) == [
        "notes.txt",
        "w.pth",
        "x.json",
    ]
    assert prune(bank.path)["removed_bytes"] == 0


def test_the_longest_unused_goes_first(bank: Bank) -> None:
    bytes_of = {p: (bank.path / SIDE / p).stat().st_size for p in cached(bank) if len(p) > 1}
    newest = "views/f/rotate.0/2.arrays"
    report = prune(bank.path, 2000 + bytes_of[newest])
    assert cached(bank) == ["a", "b", newest]
    assert report["kept_bytes"] == 2000 + bytes_of[newest]
    assert report["removed_bytes"] == sum(bytes_of.values()) - bytes_of[newest]
    prune(bank.path, 1999)
    assert cached(bank) == ["b"]


def test_what_was_read_counts_as_used(bank: Bank) -> None:
    oldest = bank.path / SIDE / "views/f/rotate.0/1.arrays"
    os.utime(oldest, (5000, 1000))
    prune(bank.path, oldest.stat().st_size)
    assert cached(bank) == ["views/f/rotate.0/1.arrays"]


def test_enough_room_removes_nothing(bank: Bank) -> None:
    before = cached(bank)
    assert prune(bank.path, size("1GB"))["removed_bytes"] == 0
    assert cached(bank) == before


def test_links_out_of_a_cache_are_not_followed(bank: Bank, quick_path: Path) -> None:
    precious = quick_path / "precious"
    precious.mkdir()
    (precious / "data").write_bytes(b"data")
    (bank.path / SIDE / "views" / "link").symlink_to(precious)
    (bank.path / SIDE / "views" / "file").symlink_to(precious / "data")
    prune(bank.path)
    assert (precious / "data").read_bytes() == b"data"
    assert not (bank.path / SIDE / "views" / "link").is_symlink()


def test_no_bank(quick_path: Path) -> None:
    with pytest.raises(BankError, match="is not a bank"):
        prune(quick_path / "nothing")
    with pytest.raises(Refused, match="bytes"):
        prune(make_bank(quick_path / "bank", 40, 5).path, -1)
