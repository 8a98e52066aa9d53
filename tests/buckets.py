"""The S3 server of `benchmarks.faults.s3`, without what moto does anew at every request."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.faults import s3


@contextmanager
def serving(bucket: str) -> Iterator[s3.Server]:
    """As `s3.serving`, in two thirds of the time a request."""
    with quick_dispatch(), s3.serving(bucket) as server:
        yield server


@contextmanager
def quick_dispatch() -> Iterator[None]:
    """Let moto list the folders of its services once, not at every request."""
    from moto import backends

    services = tuple(backends.list_of_moto_modules())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "list_of_moto_modules", lambda: services)
        yield
