"""Locks in an object store: leases, which a holder renews while it lives and others may take when it is dead.

A lease is an object that names its holder. It is created exclusively and then changed only on condition that
it still is what was last seen there (`If-Match`), so of many that want it one gets it. Whether it has expired
is decided by the store's clock alone: whoever wants to know writes an object of its own and compares the two
times of modification. Clocks of machines play no part.

Leases left on this machine by a process that has ended, or by this very one, are taken at once. A living
process leaves a lease behind if a release, or the answer to a creation, never arrived; other processes wait
for it to expire, since only this one knows.

A holder that was taken for dead may wake up: a lease cannot stop it, only tell it (`Lease.alive`). What keeps
the bank sound is exclusive creation, and digests; leases keep workers out of each other's way.
"""

import contextlib
import functools
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stores.backends import object_requests, sealed_json
from stores.backends.location import ObjectPath
from stores.errors import BankError, EmbankError, Refused

#: A lease not renewed for so many seconds, by the store's clock, is anybody's. Three renewals may fail.
SECONDS = 60.0
_RENEWALS = 4
_POLL_SECONDS = 1.0
_FREE: dict[str, Any] = {"free": True}


@functools.lru_cache
def _machine() -> dict[str, Any]:
    """Return what identifies this boot of this machine, and this set of process numbers."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return {"boot": boot, "processes": Path("/proc/self/ns/pid").readlink().name}
    return {}


def _started(pid: int) -> str | None:
    """Return when a process of this machine began, in ticks; None if it no longer runs."""
    try:
        # The name, in parentheses, may hold anything: count fields 3 (state) and 22 (start) from its end.
        state, *fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]


def _whose(token: str, renewals: int = 0) -> dict[str, Any]:
    me = {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid()), **_machine()}
    return {**me, "token": token, "renewals": renewals}


def _decode(data: bytes, path: ObjectPath) -> dict[str, Any]:
    """Read who holds a lease; nobody if it is free, or not a lease (a lock file copied from a disk)."""
    try:
        return sealed_json.decode(data, path)
    except sealed_json.BrokenDocument:
        return _FREE


def _carries(path: ObjectPath, token: str) -> bool:
    data = object_requests.read_if_there(path)
    return data is not None and bool(_decode(data, path).get("token") == token)


#: Tokens of this process: of leases that it holds, and of those that it is about to take or to let go. One is
#: here before the store can know it, or another thread would take its lease for left behind.
_ours: set[str] = set()


def _is_dead_here(body: dict[str, Any]) -> bool:
    """Return whether the holder was a process of this machine that has ended, or failed to release it."""
    here = _machine()
    if not here or any(body.get(name) != value for name, value in here.items()):
        return False
    if _started(body["pid"]) != body["started"]:
        return True
    return bool(body["pid"] == os.getpid()) and body["token"] not in _ours


class Lease:
    """A held lease, renewed by a thread of this process until it is released."""

    def __init__(self, path: ObjectPath, token: str, shared: bool = False) -> None:
        self.path, self.token, self._shared = path, token, shared
        self._turn, self._renewals, self._held = threading.Lock(), 0, True
        _heart.keep(self)

    def renew(self) -> None:
        """Renew the lease. If that fails, `alive` returns False."""
        with self._turn, contextlib.suppress(EmbankError):
            if not self._held:
                return
            self._renewals += 1
            self._swap(_whose(self.token, self._renewals))

    def _swap(self, body: dict[str, Any]) -> bool:
        current = object_requests.read_state(self.path)
        if current is None or _decode(current[0], self.path).get("token") != self.token:
            return False
        return object_requests.swap(self.path, sealed_json.encode(body), current[1].version)

    def alive(self) -> bool:
        """Return whether the lease is still held: nobody has taken it as abandoned."""
        return _carries(self.path, self.token)

    def release(self) -> None:
        """Release the lease; a second call does nothing.

        If the store cannot be reached, other processes wait until the lease expires; this one need not.
        """
        with self._turn, contextlib.suppress(EmbankError):
            if self._held:
                self._held = False
                _heart.drop(self)
                try:
                    self._tell()
                finally:
                    _ours.discard(self.token)

    def _tell(self) -> None:
        if self._shared:
            object_requests.remove(self.path)
        else:
            self._swap({**_FREE, "token": self.token})

    def unsign(self) -> None:
        """Do nothing: a released lease names nobody."""


class _Heart:
    """The thread that renews the leases of this process."""

    def __init__(self) -> None:
        self._held: set[Lease] = set()
        self._turn, self._thread = threading.Lock(), None

    _thread: threading.Thread | None

    def keep(self, lease: Lease) -> None:
        with self._turn:
            self._held.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="leases", daemon=True)
                self._thread.start()

    def drop(self, lease: Lease) -> None:
        with self._turn:
            self._held.discard(lease)

    def _beat(self) -> None:
        while True:
            time.sleep(SECONDS / _RENEWALS)
            with self._turn:
                held = list(self._held)
                if not held:
                    self._thread = None
                    return
            for lease in held:
                lease.renew()


_heart = _Heart()


def _forget_in_child() -> None:
    # Leases stay the parent's, which renews them: a child has copies of their tokens, but no such thread.
    global _heart
    _heart = _Heart()
    _ours.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def _folder(path: ObjectPath) -> ObjectPath:
    return path.parent / "leases"


def _look(path: ObjectPath) -> tuple[float, dict[str, object_requests.State]]:
    """Return the store's time and the other objects beside a lease; remove those that have expired."""
    mine = _folder(path) / f"ticket~{secrets.token_hex(8)}"
    object_requests.replace(mine, b"what time is it\n")
    try:
        others = object_requests.states(mine.parent)
    finally:
        object_requests.remove(mine)
    if mine.name not in others:
        raise BankError(
            f"{mine} is gone as soon as written",
            "Nobody else removes it",
            "check the bucket's lifecycle rules",
        )
    now = others.pop(mine.name).modified
    for name, state in list(others.items()):
        if now - state.modified > SECONDS:
            object_requests.remove(mine.parent / name)
            del others[name]
    return now, others


def _try(path: ObjectPath) -> tuple[Lease | None, dict[str, Any], float]:
    """Take a lease if it is free, expired, or left behind on this machine; else say who has it.

    Returns:
        (the lease or None, its holder's description, seconds since that renewed it).
    """
    with _new_token() as token:
        taken, body, age = _take(path, token)
        if not taken:
            _ours.discard(token)
            return None, body, age
        _require_conditions(path)
        return Lease(path, token), body, age


@contextlib.contextmanager
def _new_token() -> Iterator[str]:
    """Yield a token for a lease that the body takes; give it up if the body raises."""
    token = secrets.token_hex(8)
    _ours.add(token)
    try:
        yield token
    except BaseException:
        _ours.discard(token)
        raise


def _take(path: ObjectPath, token: str) -> tuple[bool, dict[str, Any], float]:
    """Do what `_try` does; also return whether the lease itself was taken."""
    mine = sealed_json.encode(_whose(token))
    if object_requests.create(path, mine):
        return True, _FREE, 0.0
    current = object_requests.read_state(path)
    if current is None:
        return False, _FREE, 0.0
    body = _decode(current[0], path)
    if body.get("token") == token:  # Created by us, though the answer was lost on its way.
        return True, body, 0.0
    age = 0.0
    if not body.get("free") and not _is_dead_here(body):
        age = _look(path)[0] - current[1].modified
        if age <= SECONDS:
            return False, body, age
    # A swap whose answer was lost is repeated, and then finds that the lease has changed.
    return object_requests.swap(path, mine, current[1].version) or _carries(path, token), body, age


_trusted: set[tuple[str, str]] = set()


def _require_conditions(path: ObjectPath) -> None:
    """Refuse a store that overwrites where it was told not to: some ignore the condition and say "done"."""
    if (path.scheme, path.bucket) in _trusted:
        return
    probe = _folder(path) / f"ticket~{secrets.token_hex(8)}"
    try:
        object_requests.replace(probe, b"first")
        state = object_requests.stat_if_there(probe)
        object_requests.replace(probe, b"second")
        honest = state is not None and not object_requests.create(probe, b"third")
        honest = honest and state is not None and not object_requests.swap(probe, b"fourth", state.version)
    finally:
        object_requests.remove(probe)
    if not honest:
        raise BankError(
            f"The store of {path.scheme}://{path.bucket} overwrites objects that it was asked to create",
            "Workers rely on conditional writes (If-None-Match, If-Match)",
            "use a store that has them, or a bank on disk",
        )
    _trusted.add((path.scheme, path.bucket))


def coordinate(path: ObjectPath, what: str) -> Lease:
    """Become the one coordinator of `what`. Raises Refused, naming the holder, if there is one already."""
    lease, body, age = _try(path)
    if lease is not None:
        return lease
    holder = f"process {body.get('pid', 'unknown')} on {body.get('host', 'an unknown machine')}"
    raise Refused(
        f"{what} is being written by {holder}, last seen {max(age, 0):.0f} s ago by the store's clock",
        f"One run at a time writes a feature; one that is silent for {SECONDS:.0f} s has lost it",
        "wait for it to end, or stop it (committed chunks are kept) and wait so long; then run this again",
    )


@contextlib.contextmanager
def held(path: ObjectPath, *, shared: bool = False, patience: float = 60.0) -> Iterator[Lease]:
    """Hold a lock for the body, waiting for it as long as a lease lasts and then `patience` seconds."""
    deadline = time.monotonic() + SECONDS + patience
    lease = _hold_shared(path, deadline) if shared else _hold(path, deadline)
    try:
        yield lease
    finally:
        lease.release()


def _hold(path: ObjectPath, deadline: float) -> Lease:
    """Hold a lock alone: first keep newcomers out, then wait for those that are inside."""
    while (lease := _try(path)[0]) is None:
        _wait(path, deadline)
    try:
        while any(not _is_over(_folder(path) / name) for name in _look(path)[1] if _is_sharer(path, name)):
            _wait(path, deadline)
    except BaseException:
        lease.release()
        raise
    return lease


def _is_sharer(path: ObjectPath, name: str) -> bool:
    return name.rpartition("~")[0] == path.name


def _is_over(sharer: ObjectPath) -> bool:
    """Return whether a sharer has left, or died on this machine and been removed."""
    data = object_requests.read_if_there(sharer)
    if data is None:
        return True
    body = _decode(data, sharer)
    if body.get("free") or _is_dead_here(body):
        object_requests.remove(sharer)
        return True
    return False


def _hold_shared(path: ObjectPath, deadline: float) -> Lease:
    """Hold a lock with others: announce this sharer first, then check that nobody is alone inside."""
    while True:
        with _new_token() as token:
            entry = _folder(path) / f"{path.name}~{token}"
            object_requests.replace(entry, sealed_json.encode(_whose(token)))
            lease = Lease(entry, token, shared=True)
        try:
            if _is_open(path):
                return lease
        except BaseException:
            lease.release()
            raise
        lease.release()
        _wait(path, deadline)


def _is_open(path: ObjectPath) -> bool:
    """Return whether nobody is alone inside."""
    current = object_requests.read_state(path)
    if current is None:
        return True
    body = _decode(current[0], path)
    return bool(body.get("free")) or _is_dead_here(body) or _look(path)[0] - current[1].modified > SECONDS


def _wait(path: ObjectPath, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise BankError(
            f"{path} is locked by another process",
            "Writers of a bank take turns",
            "wait for the other process, or stop it, and run the same command again",
        )
    time.sleep(_POLL_SECONDS)
