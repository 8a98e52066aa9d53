"""Shared fixtures. Tests marked `gpu` are skipped, visibly, where there is no CUDA device."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu = [item for item in items if "gpu" in item.keywords]
    if not gpu:
        return
    from engine.runtime import cuda_available

    if cuda_available():
        return
    for item in gpu:
        item.add_marker(pytest.mark.skip(reason="no CUDA device"))
