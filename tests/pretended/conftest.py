"""The pretended device as a fixture."""

from collections.abc import Iterator

import pytest

from engine.runtime import cuda_available
from tests.pretended.session import pretend
from tests.pretended.streams import Device


@pytest.fixture
def device() -> Iterator[Device]:
    """A pretended CUDA device for the test; a machine with a real one tests that."""
    if cuda_available():
        pytest.skip("a CUDA device is here")
    with pretend() as found:
        yield found
