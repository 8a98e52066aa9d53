"""The commit protocol under forced interleavings, with mutants that these tests must kill."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stores import documents, files, locks
from stores.commit import Committer, marker_document
from stores.encode import EncodedChunk, encode
from stores.layout import FeatureLayout
from stores.schema import ChunkResult, Failure
from stores.write import FeatureWriter, open_or_create
from tests.stores.banks import Os, chunk_result, lies, make_key, make_manifest, patched

ROWS, DIM = 20, 4


@pytest.fixture
def layout(tmp_path: Path) -> FeatureLayout:
    """A feature of one chunk, ready for commits."""
    bank = open_or_create(tmp_path / "bank", make_manifest(tmp_path, ROWS))
    with FeatureWriter(bank, make_key(bank.image_digest), DIM) as writer:
        return writer.layout


def clear(layout: FeatureLayout) -> None:
    """Back to no chunk at all."""
    for path in [*layout.root.rglob("c/*"), *layout.side.glob("markers/*")]:
        if path.is_file():
            path.unlink()
    for path in layout.root.glob("*/embedding/c/0/0"):
        path.unlink()


def variants() -> dict[str, ChunkResult]:
    """Results that differ from the first in the file named (and, of course, in the marker)."""
    first = chunk_result(0, 0, ROWS, DIM)
    other = first.embedding.copy()
    other[3] += 1
    # Below float16's resolution, above float32's: the stored embedding is the same, its norm is not.
    exact = first.embedding.copy()
    rounded = exact.astype(np.float16).astype(np.float32)
    exact[3] = rounded[3]
    nudged = exact.copy()
    nudged[3] *= np.float32(1 + 1e-5)
    failure = Failure(5, "corrupt", "another reason")
    return {
        "nothing": replace(first, embedding=exact),
        "embedding": replace(first, embedding=other),
        "norm": replace(first, embedding=nudged),
        "marker": replace(first, embedding=exact, failures=(failure,)),
    }


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


class Turns:
    """Lets threads pass their primitives one at a time, in an order given beforehand."""

    def __init__(self, order: Callable[[int, int], int], check: Callable[[], None]) -> None:
        self._order, self._check = order, check
        self._condition, self._done = threading.Condition(), [False, False]
        self._steps = [0, 0]
        self._who: dict[int, int] = {}

    def enter(self, me: int) -> None:
        self._who[threading.get_ident()] = me

    def leave(self, me: int) -> None:
        with self._condition:
            self._done[me] = True
            self._condition.notify_all()

    def before(self, count: int, name: str, args: tuple[Any, ...]) -> None:
        me = self._who.get(threading.get_ident())
        if me is None:
            return
        with self._condition:
            while not self._done[1 - me] and self._order(self._steps[0], self._steps[1]) != me:
                if not self._condition.wait(timeout=20):
                    raise AssertionError("the order cannot be kept: the two wait for each other")
            self._check()
            self._steps[me] += 1
            self._condition.notify_all()


def race(layout: FeatureLayout, results: list[ChunkResult], order: Callable[[int, int], int]) -> list[bool]:
    """Two committers on one chunk; after every step, no marker may lie. Returns what `commit` said."""
    clear(layout)
    errors: list[BaseException] = []
    faults: list[BaseException] = []

    def check() -> None:
        assert not lies(layout.root, layout.name), "a marker vouches for bytes that are not there"

    turns = Turns(order, check)
    said = [False, False]

    def commit(me: int) -> None:
        turns.enter(me)
        try:
            said[me] = Committer(layout).commit(results[me])
        except files.MachineFault as error:
            faults.append(error)
        except BaseException as error:
            errors.append(error)
        finally:
            turns.leave(me)

    with patched(Os(turns.before)):
        threads = [threading.Thread(target=commit, args=(me,)) for me in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    check()
    judge(layout, results, said)
    assert not faults, "a race is no fault of the machine"
    return said


def judge(layout: FeatureLayout, results: list[ChunkResult], said: list[bool]) -> None:
    """One and only one committer won, and all that lies there is that one's."""
    assert sum(said) == 1, f"{sum(said)} committers completed the chunk"
    winner = encode(results[said.index(True)], layout)
    marker = documents.read(layout.root / layout.marker(0))
    assert marker == marker_document(layout, winner), "the marker is not the winner's"
    for path, data in winner.files.items():
        assert (layout.root / path).read_bytes() == bytes(data), "a mixed chunk"
    assert files.names(layout.root / ".embank" / "tmp") == []


def steps_alone(layout: FeatureLayout) -> int:
    """Primitives of one undisturbed commit."""
    clear(layout)
    fake = Os(lambda count, name, args: None)
    with patched(fake):
        assert Committer(layout).commit(variants()["nothing"])
    return fake.count


def handovers(at: int) -> Callable[[int, int], int]:
    """The first goes `at` steps, then the second to its end, then the first again."""
    return lambda first, second: 0 if first < at else 1


def shuffled(seed: int) -> Callable[[int, int], int]:
    drawn = np.random.default_rng(seed).integers(0, 2, 10_000)
    return lambda first, second: int(drawn[first + second])


def run_races(layout: FeatureLayout, kinds: list[str], stride: int = 1, shuffles: int = 25) -> None:
    results = variants()
    total = steps_alone(layout)
    for kind in kinds:
        pair = [results["nothing"], results[kind]]
        for at in range(0, total + 1, stride):
            race(layout, pair, handovers(at))
            race(layout, pair[::-1], handovers(at))
        for seed in range(shuffles):
            race(layout, pair, shuffled(seed))


@pytest.mark.parametrize("kind", ["nothing", "embedding", "norm", "marker"])
def test_two_committers_at_every_interleaving(layout: FeatureLayout, kind: str) -> None:
    run_races(layout, [kind])


def _marker_first(self: Committer, chunk: EncodedChunk) -> bool:
    """Mutant: says "done", then writes."""
    marker = self.layout.root / self.layout.marker(chunk.index)
    done = documents.create(marker, marker_document(self.layout, chunk), self._temporary())
    for path, data in chunk.files.items():
        self._create(path, data)
    return done


def _overwriting_create(path: Path, data: Any, temp: Path) -> bool:
    """Mutant: replaces what is there."""
    files.replace(path, data, temp)
    return True


def _not_withdrawing(self: Committer, relative: str, data: Any) -> bool:
    """Mutant: takes whatever lies there for its own."""
    path = self.layout.root / relative
    files.make_directory(path.parent)
    files.create(path, data, self._temporary())
    files.sync_directory(path.parent)
    return True


def _marker_of_what_is_there(self: Committer, chunk: EncodedChunk) -> bool:
    """Mutant: vouches for the files that it finds, whosever they are."""
    for path, data in chunk.files.items():
        _not_withdrawing(self, path, data)
    body = marker_document(self.layout, chunk)
    for path in body["files"]:
        found = (self.layout.root / path).read_bytes()
        body["files"][path] = {"size": len(found), "sha256": hashlib.sha256(found).hexdigest()}
    return documents.create(self.layout.root / self.layout.marker(chunk.index), body, self._temporary())


@pytest.mark.parametrize(
    ("where", "name", "mutant"),
    [
        (Committer, "_commit", _marker_first),
        (files, "create", _overwriting_create),
        (Committer, "_create", _not_withdrawing),
        (Committer, "_commit", _marker_of_what_is_there),
    ],
    ids=["marker first", "overwrite", "no withdrawal", "marker of what is there"],
)
def test_mutants_die(
    layout: FeatureLayout, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, mutant: Any
) -> None:
    monkeypatch.setattr(where, name, mutant)
    with pytest.raises(AssertionError):
        run_races(layout, ["norm", "embedding"], stride=3, shuffles=5)


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
    monkeypatch.setattr(files, skipped, lambda path: None)
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
    with pytest.raises(files.MachineFault, match="reads back other bytes"):
        Committer(layout).commit(variants()["nothing"])
    assert files.names(layout.side / "markers") == []


def test_commits_wait_for_the_clean_up(layout: FeatureLayout) -> None:
    with (
        locks.held(layout.side / "commit.lock"),
        pytest.raises(files.BankError, match="locked by another process"),
        locks.held(layout.side / "commit.lock", shared=True, patience=0.1),
    ):
        pass
    with (
        locks.held(layout.side / "commit.lock", shared=True),
        locks.held(layout.side / "commit.lock", shared=True, patience=0.1),
    ):
        pass
