"""Leases in a bucket: one holder, taken over after it fell silent by the store's clock, never before."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.s3 import Server, environment
from stores.backends import files, leases, locks, object_requests
from stores.backends.location import ObjectPath, place
from stores.bank import documents
from stores.bank.commit import Committer
from stores.bank.writer import FeatureWriter, open_or_create
from stores.errors import BankError, MachineFault, Refused
from tests.buckets import serving
from tests.stores.banks import at_once, chunk_result, make_key, make_manifest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("bucket") as found, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(found.url).items():
            patch.setenv(name, value)
        object_requests.bucket_of.cache_clear()
        yield found
    object_requests.bucket_of.cache_clear()


@pytest.fixture
def lock(server: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectPath:
    monkeypatch.setattr(leases, "_POLL_SECONDS", 0.05)
    found = place(f"s3://bucket/{request.node.name}/lock")
    assert isinstance(found, ObjectPath)
    return found


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of two seconds (the store's clock counts whole ones)."""
    monkeypatch.setattr(leases, "SECONDS", 2.0)
    monkeypatch.setattr(leases, "_heart", leases._Heart())


def abroad(path: ObjectPath, token: str = "theirs") -> dict[str, Any]:
    """A lease of a process of another machine, which nobody renews."""
    body = {"pid": 77, "host": "elsewhere", "started": "1", "boot": "another", "token": token, "renewals": 0}
    object_requests.replace(path, documents.encode(body))
    return body


def body(path: ObjectPath) -> dict[str, Any]:
    return documents.read(path)


def test_one_at_a_time(lock: ObjectPath) -> None:
    first = locks.coordinate(lock, "Feature x")
    with pytest.raises(Refused, match=r"Feature x is being written by process \d+ on .*") as refused:
        locks.coordinate(lock, "Feature x")
    assert "wait for it to end" in refused.value.remedy
    assert first.alive()
    first.release()
    first.release()
    second = locks.coordinate(lock, "Feature x")
    assert second.alive()
    assert not first.alive()
    second.release()


def test_two_coordinators_of_a_feature(lock: ObjectPath) -> None:
    bank = open_or_create(lock.parent, make_manifest(Path("/elsewhere"), 20))
    key = make_key(bank.image_digest)
    with FeatureWriter(bank, key, 4), pytest.raises(Refused, match="One run at a time"):
        FeatureWriter(bank, key, 4)
    FeatureWriter(bank, key, 4).close()


def eight_want(lock: ObjectPath) -> leases.Lease:
    """Have eight threads ask for a lease at once; that of the one which gets it."""
    won, errors = at_once([lambda: locks.coordinate(lock, "it")] * 8)
    assert len(won) == 1
    assert all(isinstance(error, Refused) for error in errors)
    (lease,) = won
    assert isinstance(lease, leases.Lease)
    return lease


def test_eight_that_want_it(lock: ObjectPath) -> None:
    for _ in range(3):
        eight_want(lock).release()


def test_a_holder_elsewhere_is_believed_until_it_falls_silent(lock: ObjectPath, hasty: None) -> None:
    abroad(lock)
    with pytest.raises(Refused, match="process 77 on elsewhere"):
        locks.coordinate(lock, "it")
    assert body(lock)["host"] == "elsewhere"
    time.sleep(3.2)
    taken = locks.coordinate(lock, "it")
    assert taken.alive()
    taken.release()


def test_the_clock_of_this_machine_plays_no_part(
    lock: ObjectPath, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    abroad(lock)
    for wrong in (0.0, 1e11):
        monkeypatch.setattr(time, "time", lambda wrong=wrong: wrong)
        with pytest.raises(Refused):
            locks.coordinate(lock, "it")


def test_a_living_holder_keeps_it(lock: ObjectPath, hasty: None) -> None:
    held = locks.coordinate(lock, "it")
    time.sleep(4.0)
    with pytest.raises(Refused):
        locks.coordinate(lock, "it")
    assert body(lock)["renewals"] > 3
    held.release()


def test_a_holder_that_was_replaced_notices_and_takes_nothing_back(lock: ObjectPath) -> None:
    late = locks.coordinate(lock, "it")
    theirs = abroad(lock)
    late.renew()
    assert not late.alive()
    late.release()
    assert body(lock) == theirs


def test_a_renewal_whose_answer_is_lost(lock: ObjectPath, server: Server) -> None:
    held = locks.coordinate(lock, "it")
    with server.faulty(lambda count, method, path: "lost" if (count, method) == (2, "PUT") else None):
        held.renew()
    held.renew()
    assert held.alive()
    assert body(held.path)["renewals"] == 2
    held.release()


def test_a_creation_whose_answer_is_lost(lock: ObjectPath, server: Server) -> None:
    with server.faulty(lambda count, method, path: "lost" if count == 1 else None):
        held = locks.coordinate(lock, "it")
    held.release()


def test_a_takeover_whose_answer_is_lost(lock: ObjectPath, server: Server) -> None:
    """The client asks again, and is told that the lease has changed: by itself."""
    locks.coordinate(lock, "it").release()
    puts = []

    def lost(count: int, method: str, path: str) -> str | None:
        puts.extend([count] if method == "PUT" else [])
        return "lost" if method == "PUT" and len(puts) == 2 else None

    with server.faulty(lost):
        held = locks.coordinate(lock, "it")
    assert held.alive()
    held.release()


_DIE = """
import os, sys
from stores.backends import locks
from stores.backends.location import place
lock = place(sys.argv[1])
if sys.argv[2] == "alone":
    locks.coordinate(lock, "it")
else:
    manager = locks.held(lock, shared=sys.argv[2] == "shared")
    manager.__enter__()
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["alone", "shared", "exclusive"])
def test_nobody_waits_for_the_dead_of_this_machine(lock: ObjectPath, how: str) -> None:
    """The lease would last a minute; the process is known to have ended."""
    done = subprocess.run([sys.executable, "-c", _DIE, str(lock), how], cwd=ROOT)
    assert done.returncode == -9
    assert object_requests.names(lock.parent)
    start = time.monotonic()
    with locks.held(lock):
        pass
    with locks.held(lock, shared=True):
        pass
    locks.coordinate(lock, "it").release()
    assert time.monotonic() - start < 20


def leave_behind(server: Server, lock: ObjectPath, shared: bool = False) -> leases.Lease:
    """Take a lease and release it with a request that never arrives."""
    manager = leases.held(lock, shared=shared)
    left = manager.__enter__()
    with server.faulty(lambda count, method, path: "500" if method != "GET" else None):
        manager.__exit__(None, None, None)
    assert left.alive()
    return left


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("shared", [False, True])
def test_nobody_waits_for_a_release_of_this_process_that_never_arrived(
    lock: ObjectPath, server: Server, shared: bool
) -> None:
    start = time.monotonic()
    leave_behind(server, lock, shared)
    with locks.held(lock, shared=True):
        pass
    with locks.held(lock):
        pass
    leave_behind(server, lock, shared)
    locks.coordinate(lock, "it").release()
    with locks.held(lock):
        pass
    assert time.monotonic() - start < 20


@pytest.mark.usefixtures("impatient")
def test_of_eight_threads_one_takes_what_was_left(lock: ObjectPath, server: Server) -> None:
    left = leave_behind(server, lock)
    won = eight_want(lock)
    left.release()
    with pytest.raises(Refused):
        locks.coordinate(lock, "it")
    won.release()


@pytest.mark.usefixtures("impatient")
def test_nobody_waits_for_a_creation_that_ended_with_an_error(lock: ObjectPath, server: Server) -> None:
    def lost(count: int, method: str, path: str) -> str | None:
        return "lost" if (count, method) == (1, "PUT") else None

    with server.faulty(lost), pytest.raises(MachineFault):
        locks.coordinate(lock, "it")
    assert "token" in body(lock)
    locks.coordinate(lock, "it").release()


@pytest.mark.parametrize("request_", ["create", "swap"])
def test_no_thread_takes_what_another_is_about_to_know(
    lock: ObjectPath, monkeypatch: pytest.MonkeyPatch, request_: str
) -> None:
    """Between the store's doing and its answer, a lease is its thread's already, or still."""
    real, seen = getattr(object_requests, request_), []

    def watched(path: ObjectPath, *rest: Any) -> bool:
        monkeypatch.setattr(object_requests, request_, real)
        if request_ == "swap":
            seen.append(leases._try(path)[0])
        done: bool = real(path, *rest)
        if request_ == "create":
            seen.append(leases._try(path)[0])
        return done

    if request_ == "create":
        monkeypatch.setattr(object_requests, request_, watched)
    held = locks.coordinate(lock, "it")
    if request_ == "swap":
        monkeypatch.setattr(object_requests, request_, watched)
    held.release()
    assert seen == [None]
    assert body(lock)["free"]


@pytest.mark.usefixtures("impatient")
def test_tokens_do_not_pile_up(lock: ObjectPath, server: Server) -> None:
    before = set(leases._ours)
    leave_behind(server, lock)
    leave_behind(server, lock, shared=True)
    with locks.held(lock), pytest.raises(Refused):
        locks.coordinate(lock, "it")
    with server.faulty(lambda count, method, path: "500"), pytest.raises(MachineFault):
        locks.coordinate(lock, "it")
    assert leases._ours == before


_FORK = """
import os
from stores.backends import leases
leases._ours.add("parent's")
held = leases._whose("parent's")
before = leases._heart
child = os.fork()
if child == 0:
    left = leases._whose("parent's")  # the same token, but of this process, which has taken none
    same = leases._heart is before  # whose thread does not run here
    os._exit(leases._is_dead_here(held) + 2 * (not leases._is_dead_here(left)) + 4 * same)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert not leases._is_dead_here(held)
leases._ours.clear()
assert leases._is_dead_here(held)
"""


def test_a_forked_child_respects_its_parents_leases() -> None:
    subprocess.run([sys.executable, "-c", _FORK], cwd=ROOT, check=True)


def test_alone_waits_for_those_inside_and_keeps_newcomers_out(lock: ObjectPath) -> None:
    order = []
    inside, leave = threading.Event(), threading.Event()

    def share(name: str) -> None:
        with locks.held(lock, shared=True):
            order.append(f"{name} in")
            inside.set()
            assert leave.wait(30)
            order.append(f"{name} out")

    def alone() -> None:
        with locks.held(lock):
            order.append("alone")

    first = threading.Thread(target=share, args=("first",))
    first.start()
    assert inside.wait(30)
    cleaner = threading.Thread(target=alone)
    cleaner.start()
    while object_requests.read_if_there(lock) is None:
        time.sleep(0.01)
    second = threading.Thread(target=share, args=("second",))
    second.start()
    time.sleep(0.5)
    assert order == ["first in"]
    leave.set()
    for thread in (first, cleaner, second):
        thread.join()
    assert order == ["first in", "first out", "alone", "second in", "second out"]
    assert object_requests.names(lock.parent / "leases") == []


def test_patience_ends(lock: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SECONDS", 10.0)
    with (
        locks.held(lock),
        pytest.raises(BankError, match="locked by another process"),
        locks.held(lock, patience=-9.5),
    ):
        pass


def test_sharers_that_fell_silent_are_put_out(lock: ObjectPath, hasty: None) -> None:
    abroad(lock.parent / "leases" / "lock~theirs")
    start = time.monotonic()
    with locks.held(lock):
        assert time.monotonic() - start > 1.0
        assert object_requests.names(lock.parent / "leases") == []


def prepared(lock: ObjectPath) -> Committer:
    bank = open_or_create(lock.parent, make_manifest(Path("/elsewhere"), 20))
    with FeatureWriter(bank, make_key(bank.image_digest), 4) as writer:
        return writer.committer


@pytest.mark.parametrize("swept", [True, False])
def test_a_committer_that_slept_through_a_clean_up(
    lock: ObjectPath, monkeypatch: pytest.MonkeyPatch, swept: bool
) -> None:
    """It wakes up to write its marker, after a clean-up took its chunk for abandoned: the marker goes."""
    committer = prepared(lock)
    marker = committer.layout.root / committer.layout.marker(0)
    real = documents.create

    def late(path: Any, content: Any, temp: Any) -> bool:
        for name in object_requests.names(lock.parent / f".embank/{committer.layout.name}/leases"):
            object_requests.remove(lock.parent / f".embank/{committer.layout.name}/leases/{name}")
        if swept:
            object_requests.remove(committer.layout.root / committer.layout.chunk_file("norm", 0))
        return real(path, content, temp)

    monkeypatch.setattr(documents, "create", late)
    if swept:
        with pytest.raises(MachineFault, match="reads back other bytes"):
            committer.commit(chunk_result(0, 0, 20, 4))
    else:
        assert committer.commit(chunk_result(0, 0, 20, 4))
    assert (files.read_if_there(marker) is None) == swept
