"""The commit protocol under forced interleavings, with mutants that these tests must kill."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import races
from benchmarks.faults.races import (
    MUTANTS,
    Caught,
    handover,
    mutated,
    one_chunk,
    race,
    shuffled,
    steps_alone,
    variants,
)
from stores.backends import files, locks
from stores.backends.local import LocalBackend
from stores.bank.commit import Committer, marker_document
from stores.bank.encode import EncodedChunk, encode
from stores.bank.layout import FeatureLayout
from stores.errors import BankError, MachineFault
from tests.stores.banks import Os, patched


@pytest.fixture
def layout(tmp_path: Path) -> FeatureLayout:
    return one_chunk(tmp_path)


def test_the_variants_differ_where_they_say(layout: FeatureLayout) -> None:
    found = variants()
    chunks = {name: encode(result, layout) for name, result in found.items()}
    base = chunks["nothing"]

    def differing(chunk: EncodedChunk) -> list[str]:
        return [
            path.split("/")[1] for path, data in chunk.files.items() if bytes(data) != bytes(base.files[path])
        ]

    assert differing(chunks["embedding"])[0] == "embedding"
    assert differing(chunks["norm"]) == ["norm"]
    assert differing(chunks["marker"]) == []
    assert marker_document(layout, chunks["marker"]) != marker_document(layout, base)


def run_races(layout: FeatureLayout, kinds: list[str], stride: int = 1, shuffles: int = 25) -> None:
    results = variants()
    total = steps_alone(layout)
    for kind in kinds:
        pair = [results["nothing"], results[kind]]
        for at in range(0, total + 1, stride):
            race(layout, pair, handover(at))
            race(layout, pair[::-1], handover(at))
        for seed in range(shuffles):
            race(layout, pair, shuffled(seed))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nothing", "embedding", "norm", "marker"])
def test_two_committers_at_every_interleaving(layout: FeatureLayout, kind: str) -> None:
    run_races(layout, [kind])


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_die(layout: FeatureLayout, name: str) -> None:
    with mutated(MUTANTS[name]), pytest.raises(Caught):
        run_races(layout, ["norm", "embedding"], stride=3, shuffles=5)


@pytest.mark.slow
def test_the_script_races_and_kills_the_mutants() -> None:
    result = races.run(runs=24, say=lambda _: None)
    assert result["ok"] and result["races"] == sum(result["won_by"].values()) == 24
    assert set(result["mutants"]) == set(MUTANTS)
    with mutated(MUTANTS["no withdrawal"]):
        broken = races.run(runs=40, mutants=False, say=lambda _: None)
    assert not broken["ok"] and broken["problems"]


class PowerModel:
    """What would survive a power cut: fsynced bytes under names in fsynced directories, the root given."""

    def __init__(self, layout: FeatureLayout) -> None:
        self.layout, self.open, self.bytes = layout, {}, set()
        self.named: set[Path] = {path for path in layout.root.rglob("*") if path.is_dir()}
        self.at_marker: list[str] = []
        import os

        self._os = os

    def before(self, count: int, name: str, args: tuple[Any, ...]) -> None:
        if name == "fsync":
            path = Path(self._os.readlink(f"/proc/self/fd/{args[0]}"))
            if path.is_dir():
                self.named.update(path.iterdir())
            else:
                self.bytes.add(path.stat().st_ino)
        if name == "link" and "markers" in str(args[1]):
            self.at_marker = [self.lost(path) for path in (args[0], *map(self._absolute, self._promised()))]

    def _promised(self) -> list[str]:
        return [self.layout.chunk_file(array, 0) for array in ("embedding", "norm", "status")]

    def _absolute(self, path: str) -> Path:
        return self.layout.root / path

    def lost(self, path: Path) -> str:
        if path.stat().st_ino not in self.bytes:
            return f"{path}: bytes"
        inside = [each for each in (path, *path.parents) if self.layout.root in each.parents]
        nameless = [each for each in inside if each not in self.named]
        return f"{nameless[-1]}: name" if nameless and path.parent.name != "tmp" else ""


def test_nothing_is_promised_before_it_would_survive_a_power_cut(layout: FeatureLayout) -> None:
    model = PowerModel(layout)
    with patched(Os(model.before, sync=True)):
        assert Committer(layout).commit(variants()["nothing"])
    assert model.at_marker == ["", "", "", ""]
    assert model.lost(layout.root / layout.marker(0)) == ""


def test_the_second_committer_of_the_same_bytes_makes_sure_of_the_first_ones(layout: FeatureLayout) -> None:
    """The first died after linking; nothing says that its bytes reached the disk."""
    chunk = encode(variants()["nothing"], layout)
    for path, data in chunk.files.items():
        (layout.root / path).parent.mkdir(parents=True, exist_ok=True)
        (layout.root / path).write_bytes(data)
    model = PowerModel(layout)
    model.named -= set((layout.root / layout.name).rglob("c/*"))
    with patched(Os(model.before, sync=True)):
        assert Committer(layout).commit(variants()["nothing"])
    assert model.at_marker == ["", "", "", ""]


@pytest.mark.parametrize("skipped", ["sync_directory", "sync_file"])
def test_a_commit_that_forgets_to_sync_is_caught(
    layout: FeatureLayout, monkeypatch: pytest.MonkeyPatch, skipped: str
) -> None:
    monkeypatch.setattr(LocalBackend, skipped, lambda self, path: None)
    with pytest.raises(AssertionError):
        if skipped == "sync_directory":
            test_nothing_is_promised_before_it_would_survive_a_power_cut(layout)
        else:
            test_the_second_committer_of_the_same_bytes_makes_sure_of_the_first_ones(layout)


def test_a_disk_that_returns_other_bytes_is_a_fault(
    layout: FeatureLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = files.digest
    monkeypatch.setattr(files, "digest", lambda path: (1, "0" * 64) if "norm" in str(path) else honest(path))
    with pytest.raises(MachineFault, match="reads back other bytes"):
        Committer(layout).commit(variants()["nothing"])
    assert files.names(layout.side / "markers") == []


def test_commits_wait_for_the_clean_up(layout: FeatureLayout) -> None:
    with (
        locks.held(layout.side / "commit.lock"),
        pytest.raises(BankError, match="locked by another process"),
        locks.held(layout.side / "commit.lock", shared=True, patience=0.1),
    ):
        pass
    with (
        locks.held(layout.side / "commit.lock", shared=True),
        locks.held(layout.side / "commit.lock", shared=True, patience=0.1),
    ):
        pass
