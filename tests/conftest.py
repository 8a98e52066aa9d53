"""Shared fixtures. Tests marked `gpu` are skipped, visibly, where there is no CUDA device.

There each of them that needs torch alone has a twin on a pretended device, see `tests.pretended.items`.
"""

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.pretended.items import runs_on_pretended, twins

# xdist starts a worker a core: with more threads than one each, they would spin for each other's cores.
# Read when torch and OpenBLAS are imported, here and in the tests' child processes.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# An example may be slow because the machine is: no test is about time.
hypothesis.settings.register_profile("embank", deadline=None)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=500)
hypothesis.settings.load_profile("embank")


@pytest.fixture(scope="session", autouse=True)
def no_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache or state: what it finds there would depend on earlier runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBANK_CACHE", "")
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Interrupts act as at a terminal, also where the tests run in the background and shells ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """No test cuts the power (`benchmarks.faults.power` models that): fsync checks its descriptor alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", _check_descriptor)
        yield


def _check_descriptor(descriptor: Any) -> None:
    os.fstat(descriptor)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu = [item for item in items if "gpu" in item.keywords]
    if not gpu:
        return
    from engine.runtime import cuda_available

    if cuda_available():
        return
    items.extend(twins(gpu))
    for item in gpu:
        item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fixtures and body of a twin, on the pretended device."""
    if not runs_on_pretended(item):
        return (yield)
    from tests.pretended.session import pretend

    with pretend():
        return (yield)


@pytest.fixture(scope="session")
def xrays() -> Path:
    """Real chest X-rays, a folder for each of three classes; they lie beside a checkout, not in it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "cxr3"
    if not folder.is_dir():
        pytest.skip(f"no real X-rays at {folder}")
    return folder
