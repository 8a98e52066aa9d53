"""Where the store tests make their many short-lived banks."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults import banks
from stores.backends import object_requests


@pytest.fixture(scope="module")
def quick_folder() -> Iterator[Path]:
    """A folder for the module: in memory, where there is such a place."""
    with banks.quick_folder() as folder:
        yield folder


@pytest.fixture
def quick_path(quick_folder: Path) -> Iterator[Path]:
    """A folder for the test, likewise."""
    with tempfile.TemporaryDirectory(dir=quick_folder) as name:
        yield Path(name)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No second attempts: each answer is final."""
    monkeypatch.setattr(object_requests, "RETRIES", {"max_retries": 0})
    monkeypatch.setattr(object_requests, "PAUSES", ())
    object_requests.bucket_of.cache_clear()
    yield
    object_requests.bucket_of.cache_clear()
