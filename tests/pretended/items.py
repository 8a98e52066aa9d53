"""Tests marked `gpu` a second time, on the pretended device.

A machine without CUDA skips such a test, visibly; beside it stands a twin, `test_name@pretended`, that runs
the same body on the pretended device. `pytest.mark.gpu(needs="dali")` says what else a test needs that no
pretended device has: such a test has no twin, nor has one marked `slow`.
"""

from collections.abc import Iterable, Iterator

import pytest

SUFFIX = "@pretended"


def twins(items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
    """A twin for each test marked `gpu` that needs nothing but torch on the device."""
    for item in items:
        if item.get_closest_marker("slow") or not isinstance(item, pytest.Function):
            continue
        marks = list(item.iter_markers("gpu"))
        if marks and not any(mark.kwargs.get("needs") for mark in marks):
            yield _twin(item)


def _twin(item: pytest.Function) -> pytest.Function:
    name = item.originalname + SUFFIX
    twin = pytest.Function.from_parent(
        item.parent,
        name=name + item.name.removeprefix(item.originalname),
        callspec=getattr(item, "callspec", None),
        callobj=item.obj,
        fixtureinfo=item._fixtureinfo,
        originalname=name,
    )
    twin.add_marker(pytest.mark.pretended)
    return twin


def runs_on_pretended(item: pytest.Item) -> bool:
    return item.get_closest_marker("pretended") is not None
