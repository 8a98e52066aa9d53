"""A private dask cluster of processes on this machine.

Anyone who can connect to a scheduler's or worker's port can run code as its owner, and on loopback that is
every user of the machine. So all connections use TLS, with a certificate made for this cluster that exists in
memory only and that every peer must show. The HTTP servers, which dask starts even without a dashboard, are
left out, since they would serve anybody.
"""

from typing import Any, TypedDict

from distributed import LocalCluster, Nanny, Scheduler, Worker
from distributed.security import Security

from engine.errors import Refused

_HOST = "127.0.0.1"


class _Settings(TypedDict):
    """Settings with which both kinds of cluster are started."""

    threads_per_worker: int
    host: str
    protocol: str
    security: Security
    dashboard_address: None
    worker_class: type[Nanny]
    local_directory: str
    silence_logs: int


class _Unserved:
    """A dask node without an HTTP server."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        return None


class QuietScheduler(_Unserved, Scheduler):
    """A scheduler without an HTTP server."""


class QuietWorker(_Unserved, Worker):
    """A worker without an HTTP server."""


class QuietNanny(Nanny):
    """A nanny that starts a `QuietWorker`, and a new one when that ends."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "worker_class": QuietWorker})


class _Quiet:
    """A cluster whose scheduler is a `QuietScheduler`; dask's clusters have no option for that."""

    scheduler_spec: dict[str, object]

    async def _start(self) -> None:
        self.scheduler_spec = {**self.scheduler_spec, "cls": QuietScheduler}
        await super()._start()  # type: ignore[misc]


class _CpuCluster(_Quiet, LocalCluster):
    pass


def on_cpu(workers: int, scratch: str) -> Any:
    """Start a cluster of `workers` processes; `scratch` is a folder for their files.

    Raises:
        Refused: cryptography, which makes certificates, is not installed.
    """
    start: Any = _CpuCluster
    return start(n_workers=workers, processes=True, **_settings(scratch))


def on_gpus(workers: int, scratch: str) -> Any:
    """Start a cluster of `workers` processes with a GPU each; `scratch` is a folder for their files.

    Raises:
        Refused: cryptography or dask-cuda is not installed, or there are fewer GPUs.
    """
    try:
        from dask_cuda import LocalCUDACluster
        from dask_cuda.utils import get_n_gpus
    except ImportError as error:
        raise Refused(
            "dask-cuda is not installed",
            "Workers on several GPUs need it",
            "install embank[rapids], or leave --workers out to use one GPU",
        ) from error

    class CudaCluster(_Quiet, LocalCUDACluster):  # type: ignore[misc]
        pass

    _refuse_more_than(get_n_gpus(), workers)
    return CudaCluster(n_workers=workers, **_settings(scratch))


def _settings(scratch: str) -> _Settings:
    return {
        "threads_per_worker": 1,
        "host": _HOST,
        "protocol": "tls",
        "security": _certificate(),
        "dashboard_address": None,
        "worker_class": QuietNanny,
        "local_directory": scratch,
        "silence_logs": 50,
    }


def _certificate() -> Security:
    """Make a certificate that only this cluster has, and which every peer must show."""
    try:
        security: Security = Security.temporary()
    except ImportError as error:
        raise Refused(
            "cryptography is not installed",
            "Worker processes speak TLS, for which it makes the certificate",
            "install embank[dask], or leave --workers out",
        ) from error
    return security


def _refuse_more_than(gpus: int, workers: int) -> None:
    if workers > gpus:
        raise Refused(
            f"{workers} workers and {gpus} GPU{'' if gpus == 1 else 's'}",
            "Each worker has a GPU of its own",
            f"use --workers {gpus}, or --device cpu",
        )
