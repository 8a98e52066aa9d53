"""Downloading one large file over https: resumed, bounded, and never taken for whole too soon.

Bytes go to `NAME.part`; beside it, `NAME.part.etag` keeps the server's validator, so that a later run
continues (RFC 9110, Range and If-Range) only where the server still has the same file.
"""

import contextlib
import fcntl
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.errors import EmbankError, MachineFault, WeightsError
from engine.models.checkpoints import files

#: (bytes there, bytes in all or None where the server does not say)
Progress = Callable[[int, int | None], None]

_BLOCK = 1 << 20
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Patience:
    """When to give up.

    Attributes:
        attempts: in a row that bring the file no further.
        wait_s: before the first repetition; doubled each time.
        timeout_s: of a silent connection.
    """

    attempts: int = 6
    wait_s: float = 1.0
    timeout_s: float = 60.0


class _Interrupted(Exception):
    """Worth another try.

    Args:
        wait_s: what the server asked for.
        size: of the server's file, where ours is as long or longer; -1 where it does not say.
    """

    def __init__(self, reason: str, wait_s: float = 0.0, size: int | None = None) -> None:
        super().__init__(reason)
        self.wait_s, self.size = wait_s, size


class _SameSchemes(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not out of the allowed schemes."""

    def __init__(self, schemes: tuple[str, ...]) -> None:
        self._schemes = schemes

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        demand_scheme(newurl, self._schemes)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def demand_scheme(url: str, schemes: tuple[str, ...] = ("https",)) -> None:
    """Raise WeightsError where the URL has another scheme."""
    if urllib.parse.urlsplit(url).scheme not in schemes:
        raise WeightsError(
            f"The address {url}",
            f"Weights are fetched by {' or '.join(schemes)} only",
            "give --from-file FILE",
        )


def download(
    url: str,
    part: Path,
    *,
    progress: Progress | None = None,
    max_bytes: int = files.MAX_BYTES,
    patience: Patience | None = None,
    schemes: tuple[str, ...] = ("https",),
) -> None:
    """Bring all of a URL into `part`, continuing what an earlier run left there.

    Args:
        url: address of the file.
        part: where its bytes go; locked while this runs. It and its folders are made, and removed again if
            it is refused or not a byte has come.
        progress: called now and then.
        max_bytes: refuse more.
        patience: when to give up.
        schemes: allowed ones, redirections included.

    Raises:
        WeightsError: the server refuses, sends a web page, too much, or nothing more after several tries.
        MachineFault: the disk does not take it.
    """
    demand_scheme(url, schemes)
    patience = patience or Patience()
    opener = urllib.request.build_opener(_SameSchemes(schemes))
    with made_for(part), _locked(part) as file:
        furthest = _size(file)
        failures = 0
        while True:
            try:
                _attempt(opener, url, file, part, patience, progress, max_bytes)
                break
            except _Interrupted as error:
                if error.size is not None:
                    if error.size == _size(file):  # stopped after the last byte
                        break
                    file.truncate(0)
                failures = 0 if _size(file) > furthest else failures + 1
                furthest = max(furthest, _size(file))
                if failures >= patience.attempts:
                    raise _given_up(url, part, _size(file), error) from error
                time.sleep(min(max(error.wait_s, patience.wait_s * 2**failures), _LONGEST_WAIT_S))
        with disk(part):
            os.fsync(file.fileno())
    etag_file(part).unlink(missing_ok=True)


def _given_up(url: str, part: Path, have: int, error: Exception) -> EmbankError:
    """Nothing has come: refused. Some of it has: a fault that the same command goes on from."""
    found = f"{url} could not be fetched ({error})"
    if not have:
        return _refuse(
            url, f"could not be fetched ({error})", "mend the network; without one, give --from-file FILE"
        )
    return MachineFault(
        f"{found}; {have} bytes are kept in {part}",
        "The address must give the weights file itself",
        "the same command continues there; without a network, give --from-file FILE",
    )


@contextlib.contextmanager
def made_for(part: Path) -> Iterator[None]:
    """Make the folders of a file for the body; where it is refused, or nothing has come, all is as before."""
    missing = [folder for folder in part.absolute().parents if not folder.exists()]
    with disk(part):
        part.absolute().parent.mkdir(parents=True, exist_ok=True)
    new = not part.exists()
    try:
        yield
    except BaseException as error:
        refused = isinstance(error, WeightsError)
        with contextlib.suppress(OSError):
            if new and part.exists() and (refused or part.stat().st_size == 0):
                part.unlink()
                etag_file(part).unlink(missing_ok=True)
            for folder in missing:  # the innermost first; those that hold something stay
                folder.rmdir()
        raise


def etag_file(part: Path) -> Path:
    """Where the server's validator of a partial file is kept."""
    return part.with_name(part.name + ".etag")


def _attempt(
    opener: urllib.request.OpenerDirector,
    url: str,
    file: IO[bytes],
    part: Path,
    patience: Patience,
    progress: Progress | None,
    max_bytes: int,
) -> None:
    """One request: continue or start over, and read to the end."""
    have = _size(file)
    validator = _read_text(etag_file(part)) if have else ""
    headers = {"Accept-Encoding": "identity", "User-Agent": "embank"}
    if have and validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    request = urllib.request.Request(url, headers=headers)
    with _network(url), opener.open(request, timeout=patience.timeout_s) as response:
        start, total = _span(response, url, have if validator else 0)
        _demand_size(url, total, max_bytes, part, start)
        with disk(part):
            file.truncate(start)
            file.seek(start)
            if start == 0:
                etag_file(part).write_text(_validator(response))
        _receive(response, file, part, start, total, url, max_bytes, progress)


def _receive(
    response: Any,
    file: IO[bytes],
    part: Path,
    start: int,
    total: int | None,
    url: str,
    max_bytes: int,
    progress: Progress | None,
) -> None:
    done = start
    while block := response.read1(_BLOCK):
        if done == 0:
            files.refuse_impostors(Path(url), block[:512])
        done += len(block)
        _demand_size(url, done, max_bytes, part, done)
        with disk(part):
            file.write(block)
            file.flush()
        if progress:
            progress(done, total)
    if total is not None and done != total:
        raise _Interrupted(f"the connection ended after {done} of {total} bytes")
    if done == 0:
        raise _Interrupted("the server sent nothing")


def _span(response: Any, url: str, have: int) -> tuple[int, int | None]:
    """Where the answer's bytes begin, and how many there are in all."""
    if response.headers.get_content_type() == "text/html":
        raise _refuse(
            url, "answers with a web page", "open it in a browser, save the file, and give --from-file FILE"
        )
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _Interrupted("the server changed the file's encoding")
    length = response.headers.get("Content-Length")
    if response.status == 200:
        return 0, int(length) if length is not None else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if response.status != 206 or not found or int(found[1]) != have:
        raise _Interrupted(f"the server answered {response.status} with another range")
    return have, int(found[2])


def _validator(response: Any) -> str:
    """What If-Range may hold: a strong ETag, else the date of the last change."""
    etag: str = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    date: str = response.headers.get("Last-Modified", "")
    return date


@contextlib.contextmanager
def _network(url: str) -> Iterator[None]:
    """Errors of the connection: which are worth another try, and which are final."""
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code in _TEMPORARY:
            after = error.headers.get("Retry-After", "")
            raise _Interrupted(f"HTTP {error.code}", float(after) if after.isdigit() else 0.0) from error
        if error.code == 416:
            found = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
            raise _Interrupted("the server has fewer bytes", size=int(found[1]) if found else -1) from error
        raise _refuse(
            url,
            f"is refused by its server (HTTP {error.code} {error.reason})",
            "if it wants a login or a licence to be accepted, do that in a browser and give --from-file FILE",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise _refuse(
                url,
                f"has no certificate that can be trusted ({reason.verify_message})",
                "mend the machine's clock, certificates or proxy, or give --from-file FILE",
            ) from error
        raise _Interrupted(f"{type(error).__name__}: {reason}") from error


def _demand_size(url: str, total: int | None, max_bytes: int, part: Path, have: int) -> None:
    if total is None:
        return
    if total > max_bytes:
        raise _refuse(url, f"has more than {max_bytes} bytes", "check the address")
    free = shutil.disk_usage(part.parent).free
    if total - have > free:
        raise MachineFault(
            f"{part.parent} has {free} bytes free",
            f"{total - have} more are needed",
            "free space, or set EMBANK_CACHE to another folder, and run the same command again",
        )


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    with disk(part):
        file = part.open("a+b")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WeightsError(
                f"{part} is being written by another process", "One process fetches a file", "wait for it"
            ) from error
        yield file


@contextlib.contextmanager
def disk(part: Path) -> Iterator[None]:
    """MachineFault for errors of the disk, told apart from those of the network, which are OSErrors too."""
    try:
        yield
    except OSError as error:
        raise MachineFault(
            f"{part}: {error.strerror or error}",
            "The cache must take the file",
            "free space or set EMBANK_CACHE to a writable folder, and run the same command again",
        ) from error


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _refuse(url: str, found: str, remedy: str) -> WeightsError:
    return WeightsError(f"{url} {found}", "The address must give the weights file itself", remedy)
