"""Own worker processes serve nobody but their run: TLS with their own certificate, loopback, no HTTP."""

import asyncio
import os
import socket
import ssl
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine import executors
from engine.errors import Refused
from tests.engine.dask_tasks import sleep, square

pytestmark = pytest.mark.slow

WORKERS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where this process and its workers put temporary files."""
    folder = tmp_path_factory.mktemp("temporary")
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    yield folder
    tempfile.tempdir = before
    if variable is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = variable


@pytest.fixture(scope="module")
def own(folder: Path) -> Iterator[executors.DaskExecutor]:
    with executors.local(WORKERS, silence_s=60) as executor:
        assert executor.ask(square, 3) == 9
        yield executor


def processes() -> list[psutil.Process]:
    mine = psutil.Process()
    return [mine, *mine.children(recursive=True)]


def listeners() -> set[tuple[str, int]]:
    """Address and port of every TCP socket on which this process or one of its children listens."""
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in processes()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def answer(port: int, words: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """What a port says to a stranger's words; nothing if it hangs up."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            link = context.wrap_socket(plain) if context else plain
            with link:
                link.sendall(words)
                return link.recv(4096)
    except (ssl.SSLError, ConnectionError):
        return b""


def anonymous() -> ssl.SSLContext:
    """A stranger who trusts everybody and has no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def impostor() -> Any:
    """A stranger with a certificate that he made himself, who trusts everybody."""
    from distributed.security import Security

    return Security.temporary()


def test_every_port_is_on_loopback_and_demands_a_certificate(own: executors.DaskExecutor) -> None:
    """Scanned while work is under way: scheduler, and a nanny and a worker each."""
    during = set()
    for _ in own.run(sleep, [(0.3,)] * 4):
        during |= listeners()
    assert len(during) == 1 + 2 * WORKERS
    assert {ip for ip, _ in during} == {"127.0.0.1"}
    ours, forged = (
        security.get_connection_args("client")["ssl_context"]
        for security in (own.client.security, impostor())
    )
    forged.verify_mode = ssl.CERT_NONE
    for _, port in during:
        with socket.create_connection(("127.0.0.1", port), 10) as plain, ours.wrap_socket(plain) as link:
            assert link.version() in ("TLSv1.2", "TLSv1.3")
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"GET /info/main/workers.html HTTP/1.0\r\n\r\n"):
            assert b"HTTP" not in answer(port, words)
            assert answer(port, words, anonymous()) == b""
            assert answer(port, words, forged) == b""
    assert own.ask(square, 4) == 16


def test_no_http_server_anywhere(own: executors.DaskExecutor) -> None:
    assert own.client.scheduler_info()["services"] == {}
    for worker in own.client.scheduler_info(n_workers=-1)["workers"].values():
        assert worker["services"] == {}
    assert 8787 not in {port for _, port in listeners()}


def test_a_strangers_client_is_refused(own: executors.DaskExecutor) -> None:
    """In clear, with no certificate, with one of his own; at the scheduler and at every other port."""
    from distributed import Client

    address = own.client.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    clear = address.replace("tls://", "tcp://")
    for where, security in ((clear, None), (address, impostor())):
        with pytest.raises(OSError):
            Client(where, security=security, timeout=3, set_as_default=False)
    with pytest.raises((TypeError, ValueError, OSError)):
        Client(address, timeout=3, set_as_default=False)
    with pytest.raises(Refused, match="no certificates"), executors.remote(address):
        pass
    assert own.ask(square, 5) == 25


def test_the_protocol_in_clear_is_not_spoken(own: executors.DaskExecutor) -> None:
    """dask's own connection without TLS gets no greeting from any port: not even the version is told."""
    from distributed.comm import connect

    async def greet(port: int) -> None:
        with pytest.raises(OSError):
            comm = await connect(f"tcp://127.0.0.1:{port}", timeout=2)
            await comm.write({"op": "identity", "reply": True})
            await comm.read()

    async def all_of_them() -> None:
        await asyncio.gather(*(greet(port) for _, port in listeners()))

    asyncio.run(all_of_them())


def test_the_key_is_nowhere_to_be_read(own: executors.DaskExecutor, folder: Path) -> None:
    """Neither in a file, nor in a command line or environment."""
    assert own.client.security.tls_client_key.startswith("-----BEGIN PRIVATE KEY")
    assert any(folder.rglob("*"))
    for path in folder.rglob("*"):
        assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes()
    for process in processes():
        assert "PRIVATE KEY" not in " ".join((*process.cmdline(), *process.environ().values()))


def test_two_runs_do_not_know_each_other(own: executors.DaskExecutor) -> None:
    from engine.executors import cluster

    other = cluster._certificate()
    assert other.tls_client_key != own.client.security.tls_client_key


def test_without_cryptography_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(Refused, match=r"install embank\[dask\]"), executors.local(1):
        pass


@pytest.mark.parametrize(("gpus", "said"), [("0,1", "8 workers and 2 GPUs"), ("0", "8 workers and 1 GPU.")])
def test_more_workers_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch, gpus: str, said: str) -> None:
    """dask-cuda needs a GPU to be imported: what it says of their number stands in for it."""
    package, utils = types.ModuleType("dask_cuda"), types.ModuleType("dask_cuda.utils")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    utils.get_n_gpus = lambda: len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))  # type: ignore[attr-defined]
    package.LocalCUDACluster = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_cuda", package)
    monkeypatch.setitem(sys.modules, "dask_cuda.utils", utils)
    with pytest.raises(Refused, match=said) as caught, executors.local(8, cuda=True):
        pass
    assert f"--workers {len(gpus.split(','))}" in caught.value.remedy
