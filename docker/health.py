"""Whether what this container runs is well: 0, or 1 with the reason on stderr. Needs nothing but Python.

EMBANK_HEALTH names what must answer, separated by spaces: `http://HOST:PORT/health`, which dask's scheduler
and workers serve on loopback; `tls://HOST:PORT`, a scheduler, which must accept this container's certificate.
Unset, nothing has to: a single command is well while it runs.
"""

import os
import socket
import ssl
import sys
import urllib.parse
import urllib.request

TIMEOUT_S = 5


def ask(address: str) -> None:
    """Raises OSError or ValueError if nobody answers as they should."""
    found = urllib.parse.urlsplit(address)
    if found.scheme == "http":
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=TIMEOUT_S).close()
    elif found.scheme == "tls" and found.hostname and found.port:
        _shake_hands(found.hostname, found.port)
    else:
        raise ValueError("neither http://HOST:PORT/PATH nor tls://HOST:PORT")


def _shake_hands(host: str, port: int) -> None:
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    context = ssl.create_default_context(cafile=os.environ[f"{tls}CA_FILE"])
    context.check_hostname = False  # as dask: whoever holds a certificate of this authority belongs to us
    context.load_cert_chain(os.environ[f"{tls}CLIENT__CERT"], os.environ[f"{tls}CLIENT__KEY"])
    with (
        socket.create_connection((host, port), timeout=TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        # Only its first words tell that the other side took our certificate (TLS 1.3).
        if not secure.recv(1):
            raise ConnectionError("the connection was closed")


def main() -> int:
    for address in os.environ.get("EMBANK_HEALTH", "").split():
        try:
            ask(address)
        except (OSError, ValueError, KeyError) as error:
            print(f"{address}: {error!r}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
