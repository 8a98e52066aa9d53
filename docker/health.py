"""Health check of a container: exit code 0, or 1 with the reason on stderr. Needs only Python.

EMBANK_HEALTH lists the addresses that must answer, separated by spaces: `http://HOST:PORT/health`, served by
dask's scheduler and workers on loopback, or `tls://HOST:PORT`, a scheduler that must accept this container's
certificate. If it is unset, the container is healthy: a single command is healthy while it runs.
"""

import os
import socket
import ssl
import sys
import urllib.parse
import urllib.request

TIMEOUT_S = 5


def ask(address: str) -> None:
    """Raise OSError or ValueError unless the address answers as expected."""
    url = urllib.parse.urlsplit(address)
    if url.scheme == "http":
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=TIMEOUT_S).close()
    elif url.scheme == "tls" and url.hostname and url.port:
        _shake_hands(url.hostname, url.port)
    else:
        raise ValueError("neither http://HOST:PORT/PATH nor tls://HOST:PORT")


def _shake_hands(host: str, port: int) -> None:
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    context = ssl.create_default_context(cafile=os.environ[f"{tls}CA_FILE"])
    context.check_hostname = False  # as in dask: any certificate of this authority is trusted
    context.load_cert_chain(os.environ[f"{tls}CLIENT__CERT"], os.environ[f"{tls}CLIENT__KEY"])
    with (
        socket.create_connection((host, port), timeout=TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        # In TLS 1.3 only the first data received show that the server has accepted our certificate.
        if not secure.recv(1):
            raise ConnectionError("the connection was closed")


def main() -> int:
    """Check every address; return the exit code."""
    for address in os.environ.get("EMBANK_HEALTH", "").split():
        try:
            ask(address)
        except (OSError, ValueError, KeyError) as error:
            print(f"{address}: {error!r}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
