"""A bucket whose endpoint is silent, stops half-way or drips: commands end with 3, on a signal with 130."""

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.faults.s3 import environment
from stores.backends import deadlines, object_requests, private
from stores.backends.location import place
from stores.errors import MachineFault, Refused
from tests.command import embank

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 0.5
SLOW = bytes(range(256)) * (12 << 10)
_HEAD = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nLast-Modified: Tue, 01 Dec 2026 00:00:00 GMT\r\nContent-Length: '


class Endpoint:
    """A TCP server that takes connections and then does what `kind` says; it never answers to the end."""

    def __init__(self, kind: str) -> None:
        self.kind, self.connected, self._open = kind, threading.Event(), list[socket.socket]()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._open.append(connection)
                self.connected.set()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.kind == "silent":
                return  # Nothing is even read.
            connection.recv(65536)
            if self.kind == "half a head":
                connection.sendall(_HEAD)
            if self.kind == "half a body":
                connection.sendall(_HEAD + b"1000\r\n\r\n" + bytes(500))
            while self.kind == "slow":
                connection.sendall(_HEAD + b"%d\r\n\r\n" % len(SLOW))
                for start in range(0, len(SLOW), 1 << 18):
                    time.sleep(0.2)
                    connection.sendall(SLOW[start : start + (1 << 18)])
                connection.recv(65536)
            if self.kind in ("drips", "drips on"):
                connection.sendall(
                    _HEAD + (b"1000\r\n\r\n" if self.kind == "drips" else b"100000000\r\n\r\n")
                )
                while True:
                    connection.sendall(b"x")
                    time.sleep(0.1)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # or the thread in `accept` would keep it open
        for each in (self._socket, *self._open):
            each.close()


@pytest.fixture
def endpoint(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    found = Endpoint(getattr(request, "param", "silent"))
    more = {private.CACHE_VARIABLE: "", deadlines.TIMEOUT_VARIABLE: str(TIMEOUT_S)}
    for name, value in {**environment(found.url), **more}.items():
        monkeypatch.setenv(name, value)
    object_requests.bucket_of.cache_clear()
    yield found
    found.close()
    object_requests.bucket_of.cache_clear()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("silence") / "images" / "a"
    root.mkdir(parents=True)
    for i in range(4):
        Image.fromarray(np.full((8, 8, 3), 60 * i, np.uint8)).save(root / f"{i}.png")
    path = root.parents[1] / "m.csv"
    assert embank("manifest", "folder", root.parent, "-o", path.with_suffix(".parquet")).code == 0
    return path.with_suffix(".parquet")


def commands(manifest: Path) -> dict[str, list[object]]:
    bank = "s3://bucket/bank"
    return {
        "bank ls": ["bank", "ls", bank],
        "embed": ["embed", manifest, "--model", "random/squeezenet1_1", "--bank", bank, "--device", "cpu"],
        "fewshot": ["fewshot", bank, "--model", "random/squeezenet1_1"],
        "verify": ["bank", "verify", bank],
    }


def started(words: list[str]) -> subprocess.Popen[str]:
    """A command that hears SIGINT, even if these tests were started by a shell that ignores it."""
    heard = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", heard, sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, deadlines.TIMEOUT_VARIABLE: "60"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


KINDS = ("silent", "half a head", "half a body", "drips", "drips on")


@pytest.mark.parametrize("endpoint", KINDS, indirect=True)
@pytest.mark.parametrize("command", ["bank ls", "embed", "fewshot", "verify"])
def test_no_answer_ends_with_3(endpoint: Endpoint, manifest: Path, command: str) -> None:
    start = time.monotonic()
    ran = embank(*commands(manifest)[command])
    assert ran.code == 3, ran.err
    assert "does not answer" in ran.err
    assert "remedy:" in ran.err
    assert time.monotonic() - start < 45  # of which most is the import of torch


def test_the_limit_holds_for_the_request_with_its_repetitions(endpoint: Endpoint) -> None:
    start = time.monotonic()
    with pytest.raises(MachineFault, match=deadlines.TIMEOUT_VARIABLE):
        object_requests.read_if_there(place("s3://bucket/x"))
    assert TIMEOUT_S * 0.9 < time.monotonic() - start < TIMEOUT_S + 1


def test_one_silent_object_of_many_costs_the_time_of_one(endpoint: Endpoint) -> None:
    from stores.backends import files

    root = place("s3://bucket/x")
    start = time.monotonic()
    with pytest.raises(MachineFault):
        files.each(
            root, lambda name: object_requests.read_if_there(root / name), [f"{i}" for i in range(100)]
        )
    assert time.monotonic() - start < TIMEOUT_S + 10
    assert (
        len(endpoint._open) <= object_requests.THREADS
    )  # after the first failure no further request is made


def test_the_option(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(deadlines.TIMEOUT_VARIABLE, "600")
    start = time.monotonic()
    assert embank("--store-timeout", 0.5, "bank", "ls", "s3://bucket/bank").code == 3
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("stated", ["soon", "nan", "0", "-1", "inf", "1e9"])
def test_a_limit_that_is_none(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, stated: str) -> None:
    monkeypatch.setenv(deadlines.TIMEOUT_VARIABLE, stated)
    with pytest.raises(Refused, match=deadlines.TIMEOUT_VARIABLE):
        object_requests.read_if_there(place("s3://bucket/x"))
    assert embank("--store-timeout", stated, "bank", "ls", "s3://bucket/bank").code == 2


@pytest.mark.parametrize("endpoint", ["slow"], indirect=True)
def test_a_slow_line_may_carry_a_large_object(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than a request may be without an answer, but each MiB does not."""
    monkeypatch.setenv(deadlines.TIMEOUT_VARIABLE, "2")
    path = place("s3://bucket/x")
    for function, expected in (
        (object_requests.read_if_there, SLOW),
        (object_requests.digest, (len(SLOW), hashlib.sha256(SLOW).hexdigest())),
    ):
        start = time.monotonic()
        assert function(path) == expected
        assert time.monotonic() - start > 2


def test_what_the_store_said_last_is_told(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that it is silent: nobody listens there, and that can be known."""
    monkeypatch.setenv(deadlines.TIMEOUT_VARIABLE, "2")
    endpoint.close()
    with pytest.raises(MachineFault, match="error sending request"):
        object_requests.read_if_there(place("s3://bucket/x"))


def test_a_large_upload_has_more_time() -> None:
    chunk = 64 << 20
    assert deadlines.Deadline(30).seconds == 30
    assert deadlines.Deadline(30, chunk).seconds == 30 + chunk / (256 * 1024)
    assert deadlines.Deadline(60, chunk).seconds == 2 * deadlines.Deadline(30, chunk).seconds


@pytest.mark.parametrize(
    ("command", "number"),
    [
        *((command, signal.SIGINT) for command in ("bank ls", "embed", "fewshot", "verify")),
        ("embed", signal.SIGTERM),  # has a handler of its own
        ("verify", signal.SIGTERM),
        *(
            pytest.param(command, signal.SIGTERM, marks=pytest.mark.thorough)
            for command in ("bank ls", "fewshot")
        ),
    ],
)
def test_a_signal_ends_a_command_that_waits(
    endpoint: Endpoint, manifest: Path, command: str, number: signal.Signals
) -> None:
    run = started(["-m", "cli", *map(str, commands(manifest)[command])])
    assert endpoint.connected.wait(120)
    time.sleep(0.2)
    start = time.monotonic()
    os.kill(run.pid, number)
    _, err = run.communicate(timeout=60)
    assert (run.returncode, "Stopped." in err, "Traceback" in err) == (130, True, False), err
    assert time.monotonic() - start < 20  # 2 on a machine of one's own, against the 60 that a request has


def test_a_signal_ends_what_many_threads_wait_for(endpoint: Endpoint) -> None:
    """As in `verify` of a bank whose store falls silent: the pool's threads wait, and so does its end."""
    code = (
        "import sys\nimport cli\nfrom stores.backends import files, object_requests\n"
        "from stores.backends.location import place\n"
        "root = place('s3://bucket/x')\n"
        "read = lambda n: object_requests.read_if_there(root / n)\n"
        "cli.main(lambda: files.each(root, read, map(str, range(50))))"
    )
    run = started(["-c", code])
    assert endpoint.connected.wait(120)
    time.sleep(0.2)
    start = time.monotonic()
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert (run.returncode, "Stopped." in err, "Traceback" in err) == (130, True, False), err
    assert time.monotonic() - start < 20
