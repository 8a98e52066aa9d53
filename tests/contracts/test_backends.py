"""Every backend keeps the contract, a wrong one does not, and only backends ask for kinds of paths."""

import ast
import contextlib
import errno
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.banks import Os, content, fill, make_key, make_manifest, nothing, patched
from benchmarks.faults.io import failing
from benchmarks.faults.s3 import Server, environment
from stores.backends import deadlines, leases, object_requests, private, sealed_json
from stores.backends.location import SCHEMES, ObjectPath, Place, place
from stores.bank.reader import Bank
from stores.bank.writer import open_or_create
from stores.errors import BankError, EmbankError, PathRefused
from stores.maintenance.remove import removable, remove
from stores.maintenance.verify import verify
from tests.buckets import serving
from tests.contracts.backend_suite import BackendSuite, Files, Storage, files
from tests.contracts.memory_backend import MemoryBackend, MemoryStorage, registered

__all__ = ["files"]

ROOT = Path(__file__).parents[2]


class Folder(Storage):
    """A folder, at whose calls of the operating system processes die and errors strike."""

    faults = ("ENOSPC", "EIO", "EACCES")

    def __init__(self, root: Path) -> None:
        self.root = root

    def steps(self, work: Callable[[], object]) -> int:
        with patched(Os(nothing)) as fake:
            work()
        return int(fake.count)

    def kill(self, work: Callable[[], object], at: int) -> None:
        def die(count: int, name: str, args: tuple[Any, ...]) -> None:
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

        child = os.fork()
        if child == 0:
            try:
                with patched(Os(die)):
                    work()
            finally:
                os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])

    def failing(self, at: int, kind: str) -> contextlib.AbstractContextManager[object]:
        return patched(Os(failing(at, getattr(errno, kind), sticky=False)))

    def abandon(self, path: Place) -> None:
        self.kill(lambda: (self.backend.coordinate(path, "it"), self.backend.names(self.root)), 4)


class Bucket(Storage):
    """A prefix on a server, to which requests get lost. A client that dies makes no further request; its last
    one may have arrived, so each request is two steps."""

    faults = ("500", "403", "lost", "cut")
    read_faults = ("slow",)

    def __init__(self, server: Server, root: ObjectPath) -> None:
        self.server, self.root = server, root

    def steps(self, work: Callable[[], object]) -> int:
        with self.server.faulty(lambda count, method, path: None):
            work()
            return 2 * self.server.count

    def kill(self, work: Callable[[], object], at: int) -> None:
        last, arrives = (at + 1) // 2, at % 2 == 0

        def fault(count: int, method: str, path: str) -> str | None:
            return None if count < last else "lost" if count == last and arrives else "500"

        with self.server.faulty(fault), contextlib.suppress(EmbankError):
            work()

    @contextlib.contextmanager
    def failing(self, at: int, kind: str) -> Iterator[None]:
        with self.server.faulty(lambda count, method, path: kind if 2 * count == at else None):
            if kind != "slow":
                yield
                return
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(deadlines.TIMEOUT_VARIABLE, str(self.server.slow_s / 2))
                yield

    def abandon(self, path: Place) -> None:
        assert isinstance(path, ObjectPath)
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        body = {**leases._whose("theirs"), "pid": child, "started": "1"}
        object_requests.replace(path, sealed_json.encode(body))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
class TestLocalBackend(BackendSuite):
    """On disk; in memory where there is such a place."""

    @pytest.fixture
    def storage(self) -> Iterator[Storage]:
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
            yield Folder(Path(name, "folder"))

    def test_creation_is_exclusive_without_hard_links(self, files: Files) -> None:
        def before(count: int, name: str, args: tuple[Any, ...]) -> None:
            if name == "link":
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        with patched(Os(before)):
            self.test_one_of_many_creates(files)
            assert files.create("y", b"1") and not files.create("y", b"2")
            assert files.backend.copy(files.root / "y", files.root / "z", files.temp())
        assert files.get("y") == files.get("z") == b"1"

    def test_a_link_is_seen_wherever_it_is(self, files: Files) -> None:
        root, backend = files.root, files.backend
        path = files.put("a/b/c/0", b"1")
        assert isinstance(path, Path)
        assert backend.link_in(root, lambda name: True) is backend.link_below(root, ()) is None
        (path.parent / "1").symlink_to(path)
        assert backend.link_below(root, ()) == backend.link_below(root, ("c",)) == path.parent / "1"
        (path.parent / "1").unlink()
        (root / "a" / "x").symlink_to(path.parent)
        assert backend.link_in(root / "a", lambda name: name == "x") == root / "a" / "x"
        assert backend.link_in(root / "a", lambda name: name != "x") is None
        with pytest.raises(PathRefused, match="is a link"):
            (root / "linked").symlink_to(path)
            backend.read(root / "linked")
        assert backend.is_not_a_folder(path) and not backend.is_not_a_folder(path.parent)
        backend.remove_link(root / "a" / "x")
        backend.remove_link(path.parent)
        assert backend.names(root / "a") == ["b"] and files.get("a/b/c/0") == b"1"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("bucket") as started, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(started.url).items():
            patch.setenv(name, value)
        started.slow_s = 0.6
        patch.setattr(object_requests, "RETRIES", {"max_retries": 0})
        patch.setattr(object_requests, "PAUSES", ())
        object_requests.bucket_of.cache_clear()
        yield started
    object_requests.bucket_of.cache_clear()


class TestObjectBackend(BackendSuite):
    """In a bucket, by a server on loopback; each answer is final."""

    @pytest.fixture
    def storage(
        self, server: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Storage:
        monkeypatch.setattr(leases, "_POLL_SECONDS", 0.4)
        monkeypatch.setattr(leases, "SECONDS", 2.0)
        monkeypatch.setattr(leases, "_heart", leases._Heart())
        name = "".join(
            letter if letter.isascii() and letter.isalnum() else "-" for letter in request.node.name
        )
        return Bucket(server, ObjectPath("s3", "bucket", f"suite/{name}"))


class TestMemoryBackend(BackendSuite):
    """A third backend needs no more than this."""

    @pytest.fixture
    def storage(self) -> Iterator[Storage]:
        memory = MemoryBackend()
        with registered(memory):
            yield MemoryStorage(memory)


# A bank on a storage that embank has never seen


def test_a_bank_on_a_third_storage_is_the_same_bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(private.CACHE_VARIABLE, "")
    with pytest.raises(BankError, match="prefix at"):
        place("mem://test/bank")
    memory = MemoryBackend()
    with registered(memory):
        manifest = make_manifest(Path("/elsewhere"), 150)
        banks = [
            open_or_create(where, manifest, chunk_rows=64) for where in ("mem://test/bank", tmp_path / "b")
        ]
        for bank in banks:
            fill(bank, make_key(bank.image_digest), 8)
            assert verify(bank.path).ok
        here, there = banks
        assert here.backend is memory
        paths = {
            path.relative_to(ObjectPath("mem", "test", "bank")).as_posix(): path for path in memory.files
        }
        wanted = content(tmp_path / "b")
        assert {name: memory.files[paths[name]] for name in wanted} == wanted
        left, right = here.features(), there.features()
        assert left.array.tobytes() == right.array.tobytes()
        assert (left.failures(), left.info, left.image_ids) == (right.failures(), right.info, right.image_ids)
        chunk = next(path for name, path in paths.items() if "/embedding/c/" in name)
        memory.files[chunk] = memory.files[chunk][:-1] + b"?"
        assert [damage.chunk for damage in verify(here.path).damaged] == [0]
        with pytest.raises(BankError, match="Chunk 0"):
            _ = here.features().array
        remove(removable(here.path, left.name))
        assert Bank.open("mem://test/bank").list() == []
    assert "mem" not in SCHEMES


# The suite can fail


class Overwriting(MemoryBackend):
    def create(self, path: ObjectPath, data: bytes | memoryview, temp: ObjectPath) -> bool:
        self.replace(path, bytes(data), temp)
        return True


class LookingFirst(MemoryBackend):
    def create(self, path: ObjectPath, data: bytes | memoryview, temp: ObjectPath) -> bool:
        if self.stat_if_there(path) is not None:
            return False
        os.sched_yield()
        self.replace(path, bytes(data), temp)
        return True


class InTwoParts(MemoryBackend):
    def replace(self, path: ObjectPath, data: bytes, temp: ObjectPath) -> None:
        super().replace(path, data[:7], temp)
        super().replace(path, data, temp)


class CreatingInTwoParts(MemoryBackend):
    def create(self, path: ObjectPath, data: bytes | memoryview, temp: ObjectPath) -> bool:
        made = super().create(path, bytes(data)[:7], temp)
        if made:
            self.replace(path, bytes(data), temp)
        return made


class RemovingFirst(MemoryBackend):
    def move(self, source: ObjectPath, target: ObjectPath) -> bool:
        data = self.read_if_there(source)
        self.remove(source)
        if data is not None:
            self.replace(target, data, target)
        return data is not None


class Deaf(MemoryBackend):
    def read_if_there(self, path: ObjectPath, most: int | None = None) -> bytes | None:
        try:
            return super().read_if_there(path, most)
        except BankError:
            return None


class Careless(MemoryBackend):
    def remove(self, path: ObjectPath) -> None:
        with contextlib.suppress(BankError):
            super().remove(path)


class MutePuts(MemoryBackend):
    def replace(self, path: ObjectPath, data: bytes, temp: ObjectPath) -> None:
        with contextlib.suppress(BankError):
            super().replace(path, data, temp)


class ByBeginning(MemoryBackend):
    def tree(self, folder: ObjectPath) -> tuple[list[ObjectPath], list[ObjectPath]]:
        return [path for path in self.files if path.key.startswith(folder.key)], []


class Unlocked(MemoryBackend):
    def _try(self, path: ObjectPath, shared: bool) -> Any:
        self.holders.clear()
        return super()._try(path, shared)


class AllShare(MemoryBackend):
    def _try(self, path: ObjectPath, shared: bool) -> Any:
        return super()._try(path, shared=True)


class Backwards(MemoryBackend):
    def each(self, function: Callable[[Any], Any], items: Any) -> list[Any]:
        return super().each(function, items)[::-1]


class Cut(MemoryBackend):
    def read_range(self, path: ObjectPath, start: int, length: int) -> bytes:
        return super().read_range(path, start, length)[:3]


@pytest.mark.parametrize(
    ("mutant", "test"),
    [
        (Overwriting, BackendSuite.test_creation_replaces_nothing),
        (LookingFirst, BackendSuite.test_one_of_many_creates),
        (InTwoParts, BackendSuite.test_a_killed_replacement_leaves_old_or_new),
        (CreatingInTwoParts, BackendSuite.test_a_killed_creation_leaves_all_or_nothing),
        (RemovingFirst, BackendSuite.test_a_killed_move_loses_nothing),
        (Deaf, BackendSuite.test_no_fault_of_a_read_passes_in_silence),
        (Careless, BackendSuite.test_no_fault_of_a_removal_passes_in_silence),
        (MutePuts, BackendSuite.test_no_fault_of_a_write_passes_in_silence),
        (ByBeginning, BackendSuite.test_names_and_trees),
        (ByBeginning, BackendSuite.test_a_tree_goes_and_its_neighbours_stay),
        (Unlocked, BackendSuite.test_one_coordinates),
        (AllShare, BackendSuite.test_committers_share_what_a_clean_up_has_alone),
        (Backwards, BackendSuite.test_each_gives_results_in_order_and_raises),
    ],
)
def test_the_suite_sees_a_wrong_backend(mutant: type[MemoryBackend], test: Callable[..., None]) -> None:
    memory = mutant()
    with registered(memory):
        storage = MemoryStorage(memory)
        names = test.__code__.co_varnames[1 : test.__code__.co_argcount]
        fixtures = {"storage": storage, "files": Files(storage)}
        with pytest.raises((AssertionError, pytest.fail.Exception, EmbankError)):
            test(BackendSuite(), **{name: fixtures[name] for name in names})


def test_the_suite_sees_a_cut_range() -> None:
    memory = Cut()
    with registered(memory), pytest.raises(AssertionError):
        BackendSuite().test_bytes_come_back(Files(MemoryStorage(memory)), 4095)


# One place of dispatch

#: Whatever this does not match need not be parsed.
_MAY_ASK = re.compile(r"\b((isinstance|issubclass|type)\(|case\b).{0,300}?Path", re.DOTALL)
_KINDS = {"Path", "PurePath", "PosixPath", "PurePosixPath", "ObjectPath"}


def kinds_asked(tree: ast.AST) -> list[int]:
    """Lines that ask of which kind a path is: `isinstance`, `type(...) is`, `match`."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            subject = node.args[1]
        elif isinstance(node, ast.Compare) and _is_type_call(node.left):
            subject = node
        elif isinstance(node, ast.MatchClass):
            subject = node.cls
        else:
            continue
        if any(getattr(name, "id", getattr(name, "attr", "")) in _KINDS for name in ast.walk(subject)):
            lines.append(node.lineno if hasattr(node, "lineno") else 0)
    return lines


def _is_type_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "type"


@pytest.mark.parametrize(
    "text",
    [
        "isinstance(a.b, ObjectPath)", "isinstance(place(x), Path)", "isinstance(a, (str, pathlib.Path))",
        "isinstance(a, Path | None)", "type(a) is Path",
        "match where:\n    case ObjectPath():\n        pass",
    ],
)  # fmt: skip
def test_each_way_to_ask_is_seen(text: str) -> None:
    assert _MAY_ASK.search(text) and kinds_asked(ast.parse(text))
    assert not kinds_asked(ast.parse(text.replace("Object", "").replace("Path", "Bank")))


def test_only_backends_ask_for_kinds_of_paths() -> None:
    sources = [ROOT / "cli.py", *(path for part in ("stores", "engine", "benchmarks")
                                  for path in (ROOT / part).rglob("*.py"))]  # fmt: skip
    outside = [path for path in sources if not path.is_relative_to(ROOT / "stores" / "backends")]
    assert len(outside) > 300
    texts = {path: path.read_text("utf-8") for path in outside}
    asking = {
        str(path.relative_to(ROOT)): lines
        for path, text in texts.items()
        if _MAY_ASK.search(text) and (lines := kinds_asked(ast.parse(text)))
    }
    assert asking == {}
