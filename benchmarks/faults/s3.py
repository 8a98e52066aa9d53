"""An S3 server on loopback (moto), with fault injection between it and the client."""

import logging
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

#: (number of the request, method, path) -> kind of fault; None for no fault.
Fault = Callable[[int, str, str], str | None]
_ERROR = b'<?xml version="1.0"?><Error><Code>%b</Code><Message>injected</Message></Error>'
_STATUS = {
    "403": ("403 Forbidden", b"AccessDenied"),
    "404": ("404 Not Found", b"NoSuchKey"),
    "500": ("500 Internal Server Error", b"InternalError"),
    "503": ("503 Slow Down", b"SlowDown"),
}


class Server:
    """A WSGI application around moto's that injects faults.

    Kinds of fault: a status of `_STATUS`; `lost` (executed, but answered with 500); `cut` (the connection
    closes in the middle of the body); `short` (a truncated body with a matching length); `flip` (one bit of
    the body); `slow` (a delayed answer).
    """

    def __init__(self, application: Any, slow_s: float = 3.0) -> None:
        self._application, self.slow_s = application, slow_s
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self.count, self.log = 0, list[tuple[str, str]]()
        self.fault: Fault = lambda count, method, path: None
        self.url = ""

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            self.count += 1
            count = self.count
            self.log.append((method, path))
        kind = self.fault(count, method, path)
        if kind in _STATUS:
            status, code = _STATUS[kind]
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start(status, [("Content-Type", "application/xml")])
            return [] if method == "HEAD" else [_ERROR % code]
        if kind == "slow":
            threading.Event().wait(self.slow_s)
        return self._spoil(kind, *self._forward(environ), start)

    def _forward(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        answer_parts: list[Any] = []
        # moto checks for an object and then stores it, which S3 does atomically.
        with self._writing if environ["REQUEST_METHOD"] not in ("GET", "HEAD") else self._lock:
            body = b"".join(self._application(environ, lambda *answer: answer_parts.extend(answer)))
        return answer_parts[0], answer_parts[1], body

    def _spoil(
        self, kind: str | None, status: str, headers: list[tuple[str, str]], body: bytes, start: Any
    ) -> Iterable[bytes]:
        if kind == "lost":
            start("500 Internal Server Error", [])
            return [_ERROR % b"InternalError"]
        if kind == "flip" and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 4]) + body[middle + 1 :]
        if kind == "short":
            body = body[: len(body) // 2]
            headers = [(k, v) for k, v in headers if k.lower() != "content-length"]
            headers.append(("Content-Length", str(len(body))))
        start(status, headers)
        return [body[: len(body) // 2]] if kind == "cut" else [body]

    @contextmanager
    def faulty(self, fault: Fault) -> Iterator[None]:
        """Inject faults for the body; requests are counted from 1."""
        self.count, self.log, before, self.fault = 0, [], self.fault, fault
        try:
            yield
        finally:
            self.fault = before


def environment(url: str) -> dict[str, str]:
    """Return environment variables that make S3 clients use `url`."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def serving(bucket: str) -> Iterator[Server]:
    """Serve an empty bucket on a free port while the body runs."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = Server(DomainDispatcherApplication(create_backend_app))
    http = make_server("127.0.0.1", 0, server, threaded=True)
    server.url = f"http://127.0.0.1:{http.port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        for path, method in (
            ("moto-api/reset", "POST"),
            (bucket, "PUT"),
        ):  # one state for all servers of a process
            urllib.request.urlopen(urllib.request.Request(f"{server.url}/{path}", method=method)).read()
        yield server
    finally:
        http.shutdown()
        thread.join()
