"""Shared fixtures. Tests marked `gpu` are skipped, visibly, where there is no CUDA device."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# An example may be slow because the machine is: no test is about time.
hypothesis.settings.register_profile("embank", deadline=None)
hypothesis.settings.load_profile("embank")


@pytest.fixture(scope="session", autouse=True)
def no_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache or state: what it finds there would depend on earlier runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBANK_CACHE", "")
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu = [item for item in items if "gpu" in item.keywords]
    if not gpu:
        return
    from engine.runtime import cuda_available

    if cuda_available():
        return
    for item in gpu:
        item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def xrays() -> Path:
    """Real chest X-rays, a folder for each of three classes; they lie beside a checkout, not in it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "cxr3"
    if not folder.is_dir():
        pytest.skip(f"no real X-rays at {folder}")
    return folder
