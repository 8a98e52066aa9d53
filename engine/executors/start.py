"""Start private dask workers on this machine, or connect to a running scheduler."""

import contextlib
import ipaddress
import ssl
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from engine.errors import MachineFault, Refused
from engine.executors.dask import DaskExecutor
from stores.limits import check_memory, check_whole

#: Most worker processes of one machine, and the memory that each takes when idle.
MAX_WORKERS, _WORKER_BYTES = 1024, 300 << 20


@contextlib.contextmanager
def local(
    workers: int, *, cuda: bool = False, silence_s: float = 60.0, say: Callable[[str], None] = lambda _: None
) -> Iterator[DaskExecutor]:
    """Start worker processes on this machine, one for each GPU if `cuda`; TLS excludes everybody else.

    Args:
        workers: how many. silence_s: a worker that is not heard of for so long is replaced.

    Raises:
        Refused: dask or cryptography is not installed, or dask-cuda for `cuda`; more workers than GPUs.
    """
    check_whole("workers", workers, 1, MAX_WORKERS)
    check_memory(workers * _WORKER_BYTES, f"{workers} workers", "lower --workers")
    _need_dask()
    import dask
    import distributed  # noqa: F401 - now, as its defaults would otherwise be removed together with the settings

    from engine.executors import cluster as own

    settings = {
        "distributed.scheduler.worker-ttl": f"{silence_s} s",
        "distributed.worker.daemon": True,
        "distributed.logging.distributed": "critical",
    }
    with tempfile.TemporaryDirectory() as scratch, dask.config.set(settings):
        cluster = (own.on_gpus if cuda else own.on_cpu)(workers, scratch)
        with cluster, cluster.get_client() as client:
            cluster.adapt(minimum=workers, maximum=workers)  # replace those that have been given up
            yield DaskExecutor(client, say=say)


@contextlib.contextmanager
def remote(
    address: str, *, timeout_s: float = 20, say: Callable[[str], None] = lambda _: None
) -> Iterator[DaskExecutor]:
    """Connect to the workers of a running scheduler.

    Args:
        address: `tls://HOST:PORT` (certificates by dask's own configuration, `distributed.comm.tls`), or
            `tcp://` on loopback: anybody who reaches a scheduler without TLS can run code on it.

    Raises:
        Refused: dask is not installed, an address that is neither, or certificates are missing.
        MachineFault: no answer.
    """
    _need_dask()
    _check_address(address)
    from distributed import Client

    security = _security(address)
    try:
        client = Client(address, security=security, timeout=timeout_s, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise MachineFault(
            f"No scheduler answers at {address} ({error})",
            "A scheduler must be running there",
            "start one (`dask scheduler --host ...`), check address and firewall",
        ) from error
    with client:
        yield DaskExecutor(client, say=say)


def _check_address(address: str) -> None:
    scheme, _, location = address.partition("://")
    host = location.rpartition(":")[0].strip("[]")
    if scheme == "tls" and host:
        return
    if scheme == "tcp" and host and _is_loopback(host):
        return
    raise Refused(
        f"scheduler {address!r}",
        "It is tls://HOST:PORT, or tcp:// on loopback: whoever reaches one without TLS can run code on it",
        "start it with TLS (`dask scheduler --protocol tls --tls-ca-file ...`), or tunnel to it by ssh",
    )


def _security(address: str) -> Any:
    """Return the certificates that dask's configuration names.

    Raises Refused if TLS is wanted and they are missing.
    """
    from distributed.security import Security

    security = Security()
    try:
        ready = security.get_connection_args("client")["ssl_context"] is not None
        fault = "no certificates"
    except (OSError, ssl.SSLError) as error:
        ready, fault = False, f"certificates that cannot be read ({error})"
    if not ready and address.startswith("tls://"):
        raise Refused(
            f"{address} and {fault}",
            "TLS needs the certificate of the authority, and one's own certificate and key",
            "name them in dask's configuration: distributed.comm.tls.ca-file and distributed.comm.tls.client",
        )
    return security


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _need_dask() -> None:
    import importlib.util

    if importlib.util.find_spec("distributed") is None:
        raise Refused("dask is not installed", "--workers and --scheduler need it", "install embank[dask]")
