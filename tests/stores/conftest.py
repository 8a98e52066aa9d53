"""Where the store tests make their many short-lived banks."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def quick_folder() -> Iterator[Path]:
    """A folder for the module: in memory, where there is such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture
def quick_path(quick_folder: Path) -> Iterator[Path]:
    """A folder for the test, likewise."""
    with tempfile.TemporaryDirectory(dir=quick_folder) as name:
        yield Path(name)
