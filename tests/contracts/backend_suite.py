"""The contract of a storage backend (`stores.backends.base`) as tests, which the tests of a backend inherit.

    class TestMyBackend(BackendSuite):
        @pytest.fixture
        def storage(self) -> Iterator[Storage]:
            yield MyStorage(...)

A `Storage` gives an empty folder and can be made to fail and to die: that is all that a new backend has to
write. Kills and faults strike every step (a call of the operating system, a request) of every operation; what
is there afterwards is read by the backend itself, undisturbed. `tests.contracts.memory_backend` is the
smallest example; the suite is proved on wrong versions of it (`test_backends`).

What a backend promises of more than one file is tested with banks, on disk (`tests/stores`) and in a bucket
(`tests/stores/backends`).
"""

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any

import numpy as np
import pytest

from stores.backends.base import Backend
from stores.backends.location import Place
from stores.backends.registry import backend_of
from stores.errors import BankError, EmbankError, Refused

#: Sizes around those at which blocks and requests end.
SIZES = (0, 1, 4095, (1 << 20) + 1)
RACERS = 8
OLD, NEW = b"old" * 50, b"new!" * 70


class Storage(ABC):
    """A storage that can be made to fail.

    Attributes:
        root: an empty folder of the test's own.
        faults: kinds of faults that `failing` knows.
        read_faults: kinds that strike reads alone, if there are more.
    """

    root: Place
    faults: tuple[str, ...]
    read_faults: tuple[str, ...] = ()

    @property
    def backend(self) -> Backend[Any]:
        return backend_of(self.root)

    @abstractmethod
    def steps(self, work: Callable[[], object]) -> int:
        """Do work undisturbed, and count its steps."""

    @abstractmethod
    def kill(self, work: Callable[[], object], at: int) -> None:
        """Do work by a process that dies ahead of a step, counted from 1; cleaning up is no more possible."""

    @abstractmethod
    def failing(self, at: int, kind: str) -> AbstractContextManager[object]:
        """Let a step of the body fail."""

    @abstractmethod
    def abandon(self, path: Place) -> None:
        """Leave the lock at `path` as a coordinator does that is killed on this machine."""


def payload(size: int) -> bytes:
    """Bytes of which no two blocks are alike."""
    return np.random.default_rng(size).bytes(size)


def together(jobs: list[Callable[[], object]]) -> tuple[list[object], list[BaseException]]:
    """Start jobs at the same moment, in a thread each: what they returned, and what they raised."""
    start, results, errors = threading.Barrier(len(jobs)), list[object](), list[BaseException]()

    def run(job: Callable[[], object]) -> None:
        start.wait()
        try:
            results.append(job())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, errors


class Files:
    """Short calls on a storage for one test."""

    def __init__(self, storage: Storage) -> None:
        self.backend, self.root = storage.backend, storage.root
        self.backend.make_directory(self.root / "tmp")

    def temp(self) -> Place:
        path: Place = self.backend.temporary(self.root / "tmp", "suite")
        return path

    def create(self, name: str, data: bytes) -> bool:
        return self.backend.create(self.root / name, data, self.temp())

    def replace(self, name: str, data: bytes) -> None:
        self.backend.replace(self.root / name, data, self.temp())

    def put(self, name: str, data: bytes) -> Place:
        path = self.root / name
        self.backend.make_directory(path.parent)
        self.replace(name, data)
        return path

    def get(self, name: str) -> bytes | None:
        return self.backend.read_if_there(self.root / name)

    def clear(self) -> None:
        self.backend.remove_tree(self.root)
        self.backend.make_directory(self.root / "tmp")


@pytest.fixture
def files(storage: Storage) -> Files:
    return Files(storage)


class BackendSuite:
    """What every backend promises. Inherit it, and give the fixture `storage`."""

    # Reading and listing

    @pytest.mark.parametrize("size", SIZES)
    def test_bytes_come_back(self, files: Files, size: int) -> None:
        data, path = payload(size), files.root / "x"
        assert files.create("x", data)
        sha256 = hashlib.sha256(data).hexdigest()
        state = files.backend.stat_if_there(path)
        assert state is not None and state.st_size == size
        assert files.backend.read(path) == files.get("x") == data
        assert files.backend.digest(path) == files.backend.digest(path, size) == (size, sha256)
        for start, length in ((0, 4), (size // 2, 7), (max(0, size - 4), 4), (size - 1, 1 << 16)):
            if 0 <= start < size:
                assert files.backend.read_range(path, start, length) == data[start : start + length]

    def test_what_is_absent_is_said_to_be(self, files: Files) -> None:
        backend, path = files.backend, files.root / "no" / "thing"
        assert backend.read_if_there(path) is None
        assert backend.digest(path) is None and backend.digest(path, 3) is None
        assert backend.stat_if_there(path) is None
        assert backend.names(path) == [] and backend.inventory(path) == [] and backend.tree(path) == ([], [])
        assert backend.stamps(files.root, ["no/thing"]) == {"no/thing": None}
        assert not backend.is_not_a_folder(path)
        assert not backend.move(path, files.root / "elsewhere")
        for gone in (backend.remove, backend.remove_directory, backend.remove_tree, backend.remove_link):
            gone(path)
        for read in (backend.read, lambda path: backend.read_range(path, 0, 4)):
            with pytest.raises(BankError, match="thing"):
                read(path)
        assert files.get("elsewhere") is None

    def test_a_file_of_too_many_bytes_is_refused(self, files: Files) -> None:
        path = files.put("x", b"12345")
        assert files.backend.read_if_there(path, 5) == files.backend.read(path, 5) == b"12345"
        with pytest.raises(BankError, match="has 5 bytes"):
            files.backend.read_if_there(path, 4)

    def test_another_size_than_expected_is_enough_to_know(self, files: Files) -> None:
        state = files.backend.digest(files.put("x", b"12345"), 6)
        assert state is not None and state[0] == 5
        assert state[1] in ("", hashlib.sha256(b"12345").hexdigest())

    def test_names_and_trees(self, files: Files) -> None:
        everything = {"b/c/d": b"123", "b/e": b"45", "b-/f": b"", "a": b"6", "bb": b"7"}
        for name, data in everything.items():
            files.put(name, data)
        root, backend = files.root, files.backend
        assert backend.names(root) == sorted({name.partition("/")[0] for name in everything} | tmp_of(files))
        assert backend.names(root / "b") == ["c", "e"]
        inside, folders = backend.tree(root / "b")
        assert sorted(map(str, inside)) == [str(root / "b/c/d"), str(root / "b/e")]
        assert folders in ([], [root / "b/c", root / "b"])
        stored = {str(file.path): file for file in backend.inventory(root / "b")}
        assert {path: file.size for path, file in stored.items()} == {
            str(root / "b/c/d"): 3, str(root / "b/e"): 2,
        }  # fmt: skip
        assert all(abs(file.used - next(iter(stored.values())).used) < 600 for file in stored.values())

    @pytest.mark.parametrize("name", ["a b", "50%25", "é", "日本", "#1+2&3=?", "'\"<>", "~t.json"])
    def test_a_name_is_kept_as_it_is(self, files: Files, name: str) -> None:
        assert files.create(name, b"here")
        assert files.backend.names(files.root) == sorted({name} | tmp_of(files))
        assert files.get(name) == b"here"

    def test_a_stamp_changes_with_every_write(self, files: Files) -> None:
        path = files.put("x", b"1")
        first = files.backend.stamps(files.root, ["x", "y"])
        files.backend.replace(path, b"2", files.temp())
        second = files.backend.stamps(files.root, ["x", "y"])
        assert first["y"] is second["y"] is None
        assert (first["x"] is not None and first["x"] != second["x"]) == files.backend.has_stamps

    def test_mapped_chunks_are_one_array(self, files: Files) -> None:
        chunks = [payload(4096 * 2 + index)[: 4096 * 2] + b"crc!" for index in (1, 2, 3)]
        paths = [files.put(f"c/{index}", data) for index, data in enumerate(chunks)]
        if not files.backend.maps_files:
            with pytest.raises(NotImplementedError):
                files.backend.map_chunks(paths, 8192, np.dtype("<f4"), (4,))
            return
        array = files.backend.map_chunks(paths, 8192, np.dtype("<u4"), (4,))
        assert array.shape == (3 * 512, 4) and not array.flags.writeable
        assert array.tobytes() == b"".join(data[:8192] for data in chunks)
        with pytest.raises(BankError, match="too short"):
            files.backend.map_chunks([*paths, files.put("c/3", b"short")], 8192, np.dtype("<u4"), (4,))

    def test_a_local_path_leads_to_the_file(self, files: Files) -> None:
        local = files.backend.local_path(files.put("x", b"data"))
        assert local is None or local.read_bytes() == b"data"
        assert files.backend.why_unwritable(files.root / "a/b/c") == ""

    # Writing

    def test_creation_replaces_nothing(self, files: Files) -> None:
        assert files.create("x", b"first")
        assert not files.create("x", b"second")
        assert not files.create("x", b"first")
        assert files.get("x") == b"first"
        assert files.backend.names(files.root / "tmp") == []

    def test_one_of_many_creates(self, files: Files) -> None:
        data = [payload(1000 + racer) for racer in range(RACERS)]
        for turn in range(3):
            jobs = [lambda mine=mine, turn=turn: files.create(f"x{turn}", mine) and mine for mine in data]
            results, errors = together(jobs)
            assert errors == []
            winners = [result for result in results if result]
            assert len(winners) == 1
            assert files.get(f"x{turn}") == winners[0]
        assert files.backend.names(files.root / "tmp") == []

    def test_replacement_is_seen_whole(self, files: Files) -> None:
        path = files.put("x", OLD)
        done, seen = threading.Event(), set[bytes]()

        def look() -> None:
            while not done.is_set():
                seen.add(files.backend.read(path))

        reader = threading.Thread(target=look)
        reader.start()
        try:
            for turn in range(10):
                files.replace("x", (NEW, OLD)[turn % 2])
        finally:
            done.set()
            reader.join()
        assert seen <= {OLD, NEW}
        assert files.get("x") == OLD
        assert files.backend.names(files.root / "tmp") == []

    def test_a_copy_is_created_and_lives_on(self, files: Files) -> None:
        source = files.put("x", OLD)
        assert files.backend.copy(source, files.root / "y", files.temp())
        assert not files.backend.copy(files.put("z", NEW), files.root / "y", files.temp())
        files.backend.remove(source)
        files.backend.replace(source, NEW, files.temp())
        assert files.get("y") == OLD
        with pytest.raises(BankError, match="absent"):
            files.backend.copy(files.root / "absent", files.root / "v", files.temp())

    def test_a_move_takes_the_file_along(self, files: Files) -> None:
        source = files.put("x", OLD)
        assert files.backend.move(source, files.root / "new/folder/y")
        assert files.get("x") is None and files.get("new/folder/y") == OLD

    def test_a_tree_goes_and_its_neighbours_stay(self, files: Files) -> None:
        for name in ("b/c/d", "b/e", "b-", "bb/f"):
            files.put(name, b"1")
        files.backend.remove_tree(files.root / "b")
        assert files.backend.names(files.root) == sorted({"b-", "bb"} | tmp_of(files))
        files.backend.remove(files.root / "b-")
        files.backend.remove(files.root / "b-")
        assert files.get("b-") is None

    def test_temporary_names_show_their_owner(self, files: Files) -> None:
        names = {files.backend.temporary(files.root / "tmp", "owner.x").name for _ in range(100)}
        assert len(names) == 100
        assert {name.rpartition("~")[0] for name in names} == {"owner.x"}

    def test_each_gives_results_in_order_and_raises(self, files: Files) -> None:
        assert files.backend.parallel_reads >= 1
        assert files.backend.each(lambda number: -number, range(40)) == [-number for number in range(40)]
        with pytest.raises(ZeroDivisionError):
            files.backend.each(lambda number: 1 // number, [1, 0, 2])

    # Kills: a process dies ahead of each step

    def killed(
        self, storage: Storage, files: Files, work: Callable[[], object]
    ) -> list[dict[str, bytes | None]]:
        """What is there after a kill at each step of some work, begun each time with `x` of OLD bytes."""

        def begin() -> None:
            files.clear()
            files.put("x", OLD)

        begin()
        outcomes = []
        for at in range(1, storage.steps(work) + 1):
            begin()
            storage.kill(work, at)
            outcomes.append({name: files.get(name) for name in ("x", "y")})
            work()  # whoever comes next can do it all the same
        return outcomes

    def test_a_killed_creation_leaves_all_or_nothing(self, storage: Storage, files: Files) -> None:
        outcomes = self.killed(storage, files, lambda: files.create("y", NEW))
        there = [outcome["y"] for outcome in outcomes]
        assert there[0] is None, "the kill came too late"
        assert set(there) <= {None, NEW}
        assert files.get("y") == NEW

    def test_a_killed_replacement_leaves_old_or_new(self, storage: Storage, files: Files) -> None:
        outcomes = self.killed(storage, files, lambda: files.replace("x", NEW))
        there = [outcome["x"] for outcome in outcomes]
        assert there[0] == OLD, "the kill came too late"
        assert set(there) <= {OLD, NEW}
        assert files.get("x") == NEW

    def test_a_killed_move_loses_nothing(self, storage: Storage, files: Files) -> None:
        outcomes = self.killed(storage, files, lambda: files.backend.move(files.root / "x", files.root / "y"))
        assert outcomes[0] == {"x": OLD, "y": None}, "the kill came too late"
        for outcome in outcomes:
            assert OLD in outcome.values() and set(outcome.values()) <= {OLD, None}
        assert (files.get("x"), files.get("y")) == (None, OLD)

    # Faults: each step fails in each way

    def spoil(
        self,
        storage: Storage,
        files: Files,
        work: Callable[[], object],
        right: Callable[[Any], bool],
        more: tuple[str, ...] = (),
    ) -> int:
        """Let each step of work fail in each way; how often that ended it. Silence must come with a right
        result, and the work be possible again afterwards."""
        ended = 0
        files.put("x", OLD)
        total = storage.steps(work)
        for kind in (*storage.faults, *more):
            for at in range(1, total + 1):
                files.clear()
                files.put("x", OLD)
                try:
                    with storage.failing(at, kind):
                        result = work()
                    assert right(result), f"{kind} at step {at} passes in silence: {result!r}"
                except EmbankError as error:
                    ended += 1
                    assert error.found and error.rule and error.remedy
                assert files.get("x") in (OLD, NEW, None)
                assert files.get("y") in (OLD, NEW, None)
        return ended

    def test_no_fault_of_a_read_passes_in_silence(self, storage: Storage, files: Files) -> None:
        backend, path = files.backend, files.root / "x"
        sha256 = hashlib.sha256(OLD).hexdigest()

        def work() -> tuple[object, ...]:
            state = backend.stat_if_there(path)
            return (
                backend.read(path), backend.read_range(path, 3, 5), backend.digest(path),
                state and state.st_size, backend.names(files.root), backend.tree(files.root)[0],
            )  # fmt: skip

        names = sorted({"x"} | tmp_of(files))
        wanted = (OLD, OLD[3:8], (len(OLD), sha256), len(OLD), names, [path])
        more = storage.read_faults
        assert self.spoil(storage, files, work, lambda result: result == wanted, more) > 0

    def test_no_fault_of_a_write_passes_in_silence(self, storage: Storage, files: Files) -> None:
        def work() -> bool:
            created = files.create("y", NEW)
            files.replace("x", NEW)
            return created

        def right(created: bool) -> bool:
            # False, if it was created and the answer lost on its way: then others take it for theirs.
            return created in (True, False) and files.get("x") == files.get("y") == NEW

        assert self.spoil(storage, files, work, right) > 0

    def test_no_fault_of_a_removal_passes_in_silence(self, storage: Storage, files: Files) -> None:
        def work() -> bool:
            moved = files.backend.move(files.root / "x", files.root / "y")
            files.backend.remove(files.root / "y")
            return moved

        def right(moved: bool) -> bool:
            return files.get("x") is files.get("y") is None

        assert self.spoil(storage, files, work, right) > 0

    # Locks

    def test_one_coordinates(self, files: Files) -> None:
        path = files.root / "lock"
        first = files.backend.coordinate(path, "Feature f")
        with pytest.raises(Refused, match="Feature f is being written by process"):
            files.backend.coordinate(path, "Feature f")
        assert first.alive()
        with suppress(Refused):  # where it can be told
            files.backend.refuse_taken(path, "Feature f")
        first.unsign()
        first.release()
        first.release()
        files.backend.refuse_taken(path, "Feature f")
        second = files.backend.coordinate(path, "Feature f")
        assert second.alive()
        second.release()

    def test_one_of_many_coordinates(self, files: Files) -> None:
        locks, errors = together([lambda: files.backend.coordinate(files.root / "lock", "it")] * RACERS)
        assert len(locks) == 1
        assert all(isinstance(error, Refused) for error in errors), errors
        locks[0].release()  # type: ignore[attr-defined]

    def test_nobody_waits_for_a_killed_coordinator(self, storage: Storage, files: Files) -> None:
        storage.abandon(files.root / "lock")
        files.backend.coordinate(files.root / "lock", "it").release()

    def test_committers_share_what_a_clean_up_has_alone(self, files: Files) -> None:
        backend, path = files.backend, files.root / "commit.lock"
        with ExitStack() as stack:
            for _ in range(3):
                assert stack.enter_context(backend.hold(path, shared=True)).alive()
            with pytest.raises(BankError, match="locked by another"), backend.hold(path, patience=0.1):
                pass
        with backend.hold(path) as alone:
            assert alone.alive()
            refused = pytest.raises(BankError, match="locked by another")
            with refused, backend.hold(path, shared=True, patience=0.1):
                pass
        with backend.hold(path), pytest.raises(ZeroDivisionError), backend.hold(files.root / "other"):
            raise ZeroDivisionError
        with backend.hold(files.root / "other"):
            pass

    def test_a_clean_up_waits_for_the_committers(self, files: Files) -> None:
        path, order = files.root / "commit.lock", list[str]()
        inside = threading.Event()

        def commit() -> None:
            with files.backend.hold(path, shared=True):
                inside.set()
                threading.Event().wait(0.2)
                order.append("committed")

        thread = threading.Thread(target=commit)
        thread.start()
        assert inside.wait(10)
        with files.backend.hold(path):
            order.append("cleaned")
        thread.join()
        assert order == ["committed", "cleaned"]


def tmp_of(files: Files) -> set[str]:
    """The folder of temporary files, where a folder exists without files."""
    return {"tmp"} & set(files.backend.names(files.root))
