"""Downloading from a real server on this machine: ranges, broken connections, redirections, refusals."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import MachineFault, WeightsError
from engine.models.checkpoints import download, sources
from engine.models.checkpoints.checkpoint_cache import Expected, Published, bring
from engine.models.checkpoints.readers import TorchFile

CONTENT = np.random.default_rng(0).bytes(3_000_000)
QUICK = download.Patience(attempts=3, wait_s=0.001, timeout_s=5)


@dataclass
class Server:
    """What the server does, and what it was asked.

    `drops`: bytes after which the next answers break off; `statuses`: of the next answers instead of files.
    """

    content: bytes = CONTENT
    etag: str = '"one"'
    ranges: bool = True
    kind: str = "application/octet-stream"
    length: bool = True
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    redirect: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server: Server = self.server.settings
        server.asked.append(dict(self.headers))
        if server.statuses:
            self.send_response(server.statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif server.redirect and self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
        else:
            self._send(server)

    def _send(self, server: Server) -> None:
        start = 0
        asked = self.headers.get("Range")
        if asked and server.ranges and self.headers.get("If-Range") == server.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(server.content) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            end = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Type", server.kind)
        if server.length:
            self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        body = server.content[start:]
        self.wfile.write(body[: server.drops.pop(0)] if server.drops else body)
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    settings = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.settings = settings  # type: ignore[attr-defined]
        settings.url = f"http://127.0.0.1:{running.server_port}/w.pth"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield settings
        running.shutdown()


def _download(server: Server, part: Path, **options: Any) -> None:
    download.download(server.url, part, patience=QUICK, schemes=("http",), **options)


def _is_whole(part: Path) -> bool:
    return hashlib.sha256(part.read_bytes()).digest() == hashlib.sha256(CONTENT).digest()


def test_a_file_and_its_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    _download(server, tmp_path / "w.part", progress=lambda done, total: seen.append((done, total)))
    assert _is_whole(tmp_path / "w.part")
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert [p.name for p in tmp_path.iterdir()] == ["w.part"]


def test_broken_connections_are_continued(server: Server, tmp_path: Path) -> None:
    server.drops = [1_000_000, 500_000, 1]
    _download(server, tmp_path / "w.part")
    assert _is_whole(tmp_path / "w.part")
    assert [a.get("Range") for a in server.asked] == [
        None,
        "bytes=1000000-",
        "bytes=1500000-",
        "bytes=1500001-",
    ]


def test_without_a_length_the_end_is_the_end(server: Server, tmp_path: Path) -> None:
    server.length = False
    _download(server, tmp_path / "w.part")
    assert _is_whole(tmp_path / "w.part")


def test_a_later_run_resumes(server: Server, tmp_path: Path) -> None:
    server.drops = [1_000_000, 0, 0, 0]
    with pytest.raises(MachineFault, match="1000000 bytes are kept"):  # exit 3: the same command goes on
        _download(server, tmp_path / "w.part")
    _download(server, tmp_path / "w.part")
    assert _is_whole(tmp_path / "w.part")
    assert server.asked[-1]["Range"] == "bytes=1000000-"


def test_another_file_on_the_server_starts_over(server: Server, tmp_path: Path) -> None:
    server.content, server.drops = bytes(2_000_000), [1_000_000, 0, 0, 0]
    with pytest.raises(MachineFault):
        _download(server, tmp_path / "w.part")
    server.content, server.etag = CONTENT, '"two"'
    _download(server, tmp_path / "w.part")
    assert _is_whole(tmp_path / "w.part")


@pytest.mark.parametrize("why", ["no ranges", "no etag", "weak etag"])
def test_servers_that_cannot_continue(why: str, server: Server, tmp_path: Path) -> None:
    server.ranges = why != "no ranges"
    server.etag = {"no etag": "", "weak etag": 'W/"one"'}.get(why, server.etag)
    server.drops = [1_000_000]
    _download(server, tmp_path / "w.part")
    assert _is_whole(tmp_path / "w.part")
    assert len(server.asked) == 2


def test_stopped_after_the_last_byte(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(CONTENT)
    (tmp_path / "w.part.etag").write_text(server.etag)
    _download(server, tmp_path / "w.part")
    assert _is_whole(tmp_path / "w.part")
    assert len(server.asked) == 1


def test_a_part_longer_than_the_file_starts_over(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(CONTENT + b"more")
    (tmp_path / "w.part.etag").write_text(server.etag)
    _download(server, tmp_path / "w.part")
    assert _is_whole(tmp_path / "w.part")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_servers_are_asked_again(status: int, server: Server, tmp_path: Path) -> None:
    server.statuses = [status, status]
    _download(server, tmp_path / "w.part")
    assert _is_whole(tmp_path / "w.part")
    server.statuses = [status] * 9
    (tmp_path / "w.part").unlink()
    with pytest.raises(WeightsError, match=f"HTTP {status}"):
        _download(server, tmp_path / "w.part")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_refusals_are_final(status: int, server: Server, tmp_path: Path) -> None:
    server.statuses = [status]
    with pytest.raises(WeightsError, match=f"HTTP {status}") as caught:
        _download(server, tmp_path / "w.part")
    assert "--from-file" in caught.value.remedy
    assert len(server.asked) == 1


@pytest.mark.parametrize("how", ["type", "content"])
def test_a_web_page_is_refused(how: str, server: Server, tmp_path: Path) -> None:
    server.content = b"\n <!doctype html><html>Log in</html>"
    server.kind = "text/html; charset=utf-8" if how == "type" else server.kind
    with pytest.raises(WeightsError, match="web page"):
        _download(server, tmp_path / "w.part")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [True, False])
def test_too_much_is_refused(length: bool, server: Server, tmp_path: Path) -> None:
    server.length = length
    with pytest.raises(WeightsError, match="more than 2000000 bytes"):
        _download(server, tmp_path / "w.part", max_bytes=2_000_000)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_fault_of_the_machine(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(MachineFault, match="1000 bytes free"):
        _download(server, tmp_path / "w.part")


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="could not be fetched"):
        download.download(
            "http://127.0.0.1:9/w", tmp_path / "a" / "w.part", patience=QUICK, schemes=("http",)
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/w", "file:///etc/passwd", "ftp://x/y", "/etc/passwd", "data:,x"]
)
def test_only_https(url: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="https only"):
        download.download(url, tmp_path / "w.part")
    assert list(tmp_path.iterdir()) == []


def test_redirections_stay_within_the_schemes(server: Server, tmp_path: Path) -> None:
    moved = server.url.replace("/w.pth", "/moved")
    server.redirect = server.url
    download.download(moved, tmp_path / "w.part", patience=QUICK, schemes=("http",))
    assert _is_whole(tmp_path / "w.part")
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        server.redirect = target
        with pytest.raises(WeightsError, match=r"http only|not allowed"):
            download.download(moved, tmp_path / "v.part", patience=QUICK, schemes=("http",))


def test_one_process_at_a_time(server: Server, tmp_path: Path) -> None:
    with download._locked(tmp_path / "w.part"), pytest.raises(WeightsError, match="another process"):
        _download(server, tmp_path / "w.part")


@pytest.mark.parametrize("status", [404, 503])
def test_the_cache_is_made_when_something_has_come(
    status: int, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBANK_CACHE", str(tmp_path / "cache"))
    source = Published("tiny", server.url, "w.pth", TorchFile("state_dict", "", ()))
    server.statuses = [status] * 9
    with pytest.raises(WeightsError):
        bring(source, patience=QUICK, schemes=("http",))
    assert list(tmp_path.iterdir()) == []
    server.statuses, server.drops = [], [1_000_000, 0, 0, 0]
    with pytest.raises(MachineFault):
        bring(source, patience=QUICK, schemes=("http",))
    assert (tmp_path / "cache" / "models" / "tiny" / "w.pth.part").stat().st_size == 1_000_000
    bring(source, patience=QUICK, schemes=("http",))
    assert sorted(path.name for path in source.folder.iterdir()) == ["source.json", "w.pth"]


def test_libraries_caches_are_not_made_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(WeightsError, match="cannot be fetched"):
        sources._from_url("http://127.0.0.1:9/net-01234567.pth", "text", "random/net")
    assert list(tmp_path.iterdir()) == []


def test_another_file_than_expected_leaves_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBANK_CACHE", str(tmp_path / "cache"))
    reader = TorchFile("state_dict", "", ())
    source = Published("tiny", server.url, "w.pth", reader, expected=Expected(md5="0" * 8))
    with pytest.raises(WeightsError, match="The catalogue expects"):
        bring(source, patience=QUICK, schemes=("http",))
    assert list(tmp_path.iterdir()) == []
