"""Every touch of the disk fails, or the process dies there; a resume always reaches the same bytes."""

import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import io
from benchmarks.faults.io import failing
from stores.backends import disk, files
from stores.bank.reader import Bank
from stores.bank.writer import open_or_create
from stores.errors import MachineFault
from stores.maintenance.verify import verify
from tests.stores.banks import Os, content, fill, lies, make_bank, make_key, make_manifest, nothing, patched

pytestmark = pytest.mark.slow

ROWS, DIM, CHUNK = 80, 4, 64
CODES = (errno.ENOSPC, errno.EIO)


@pytest.fixture(scope="module")
def reference(quick_folder: Path) -> Path:
    (quick_folder / "reference").mkdir()
    return make_bank(quick_folder / "reference" / "bank", ROWS, DIM, CHUNK).path


@pytest.fixture(scope="module")
def empty(quick_folder: Path) -> Path:
    """A bank without features."""
    (quick_folder / "empty").mkdir()
    path = quick_folder / "empty" / "bank"
    return open_or_create(path, make_manifest(path.parent, ROWS), chunk_rows=CHUNK).path


def work(path: Path) -> None:
    bank = Bank.open(path)
    fill(bank, make_key(bank.image_digest), DIM)


def create(path: Path) -> None:
    open_or_create(path, make_manifest(path.parent, ROWS), chunk_rows=CHUNK)


def count(job: Callable[[Path], None], path: Path) -> int:
    with patched(Os(nothing)) as fake:
        job(path)
    return fake.count


def fresh(empty: Path, quick_path: Path) -> Path:
    shutil.rmtree(quick_path / "bank", ignore_errors=True)
    return Path(shutil.copytree(empty, quick_path / "bank"))


def assert_same(path: Path, reference: Path) -> None:
    found, wanted = content(path), content(reference)
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert files.names(path / ".embank" / "tmp") == []


@pytest.mark.parametrize(("sticky", "stride"), [(False, 1), (True, 7)], ids=["once", "for good"])
def test_every_primitive_of_a_run_fails(
    reference: Path, empty: Path, quick_path: Path, sticky: bool, stride: int
) -> None:
    feature = Bank.open(reference).list()[0].name
    total = count(work, fresh(empty, quick_path))
    assert_same(quick_path / "bank", reference)
    stopped = 0
    steps = range(1, total + 1, stride)
    for at in steps:
        code = CODES[at % 2]
        path = fresh(empty, quick_path)
        with patched(Os(failing(at, code, sticky))):
            try:
                work(path)
            except MachineFault as fault:
                stopped += 1
                assert os.strerror(code) in str(fault)
        assert lies(path, feature) == [], f"a marker lies after a fault at step {at}"
        with patched(Os(nothing)):
            work(path)
        assert_same(path, reference)
    # Some faults harm nobody: a temporary that stays, a lock that cannot be closed, a cache not kept.
    assert stopped > len(steps) // 2
    assert verify(quick_path / "bank").ok


def test_every_primitive_of_a_creation_fails(quick_path: Path) -> None:
    (quick_path / "first").mkdir()
    total = count(create, quick_path / "first" / "bank")
    wanted = content(quick_path / "first" / "bank")
    for at in range(1, total + 1):
        root = quick_path / f"try{at}"
        root.mkdir()
        with patched(Os(failing(at, CODES[at % 2], sticky=False))):
            try:
                create(root / "bank")
            except MachineFault as fault:
                assert os.strerror(CODES[at % 2]) in str(fault)
        with patched(Os(nothing)):
            create(root / "bank")
        assert content(root / "bank") == wanted
        shutil.rmtree(root)


def test_every_job_says_what_fails_and_comes_right() -> None:
    """The script (`benchmarks.faults.io`), small: all jobs, codes and modes."""
    result = io.run(stride=29, say=lambda _: None)
    assert result["problems"] == []
    assert result["ok"] and set(result["jobs"]) == set(io.JOBS)
    assert all(each["stopped"] > 0 for each in result["jobs"].values())
    assert result["faults"] > 100


@pytest.mark.parametrize("job", ["embed", "repair", "verify", "read", "export", "relabel"])
def test_the_script_sees_faults_that_pass_in_silence(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: whatever the disk reports is swallowed."""

    @contextmanager
    def deaf(path: Path) -> Iterator[None]:
        with suppress(OSError):
            yield

    monkeypatch.setattr(disk, "faults", deaf)
    assert not io.run(stride=29, jobs=[job], say=lambda _: None)["ok"]


def die_at(at: int) -> Callable[[int, str, tuple[Any, ...]], None]:
    def before(count: int, name: str, args: tuple[Any, ...]) -> None:
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return before


def killed(
    job: Callable[[Path], None], path: Path, before: Callable[[int, str, tuple[Any, ...]], None]
) -> bool:
    """Run the job in a child that kills itself at some step. Whether it did."""
    child = os.fork()
    if child == 0:
        try:
            with patched(Os(before)):
                job(path)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("stride", [25, pytest.param(8, marks=pytest.mark.thorough)])
def test_a_kill_at_every_so_many_steps_of_a_run(
    reference: Path, empty: Path, quick_path: Path, stride: int
) -> None:
    feature = Bank.open(reference).list()[0].name
    total = count(work, fresh(empty, quick_path))
    for nth, at in enumerate(range(1, total + 1, stride)):
        path = fresh(empty, quick_path)
        assert killed(work, path, die_at(at))
        assert lies(path, feature) == []
        if nth % 2 == 0:  # Every other time the resumed run is killed as well.
            killed(work, path, die_at(at // 2 + 1))
            assert lies(path, feature) == []
        with patched(Os(nothing)):
            work(path)
        assert_same(path, reference)
    assert verify(quick_path / "bank").ok


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("stride", [7, pytest.param(2, marks=pytest.mark.thorough)])
def test_a_kill_at_every_so_many_steps_of_a_creation(quick_path: Path, stride: int) -> None:
    (quick_path / "first").mkdir()
    total = count(create, quick_path / "first" / "bank")
    wanted = content(quick_path / "first" / "bank")
    for at in range(1, total + 1, stride):
        root = quick_path / f"try{at}"
        root.mkdir()
        assert killed(create, root / "bank", die_at(at))
        with patched(Os(nothing)):
            create(root / "bank")
        assert content(root / "bank") == wanted
        shutil.rmtree(root)


def test_short_writes_are_finished(
    reference: Path, empty: Path, quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    path = fresh(empty, quick_path)
    work(path)
    assert_same(path, reference)


def test_a_file_system_without_hard_links(reference: Path, empty: Path, quick_path: Path) -> None:
    def before(count: int, name: str, args: tuple[Any, ...]) -> None:
        if name == "link":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    path = fresh(empty, quick_path)
    with patched(Os(before)):
        work(path)
        work(path)
    assert_same(path, reference)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_kills_on_a_file_system_without_hard_links(reference: Path, empty: Path, quick_path: Path) -> None:
    """There a file can be torn; a torn marker or chunk must not count."""

    def before_and(at: int) -> Callable[[int, str, tuple[Any, ...]], None]:
        def before(count: int, name: str, args: tuple[Any, ...]) -> None:
            die_at(at)(count, name, args)
            if name == "link":
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        return before

    with patched(Os(before_and(0))) as fake:
        work(fresh(empty, quick_path))
    for at in range(1, fake.count + 1, 7):
        path = fresh(empty, quick_path)
        assert killed(work, path, before_and(at))
        with patched(Os(before_and(0))):
            work(path)
        assert_same(path, reference)
