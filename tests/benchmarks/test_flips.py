"""Flipped bits (`benchmarks.faults.flips`, small) are found, not read; the script sees it if they are."""

from typing import Any

import pytest

from benchmarks.faults import flips
from stores.bank import integrity

pytestmark = pytest.mark.slow


def test_flips_are_found_and_never_read() -> None:
    result = flips.run(runs=50, say=lambda _: None)
    assert result["problems"] == []
    assert result["ok"] and result["flips"] == sum(result["by_kind"].values()) == 50
    assert result["refused"] + result["harmless"] == 50
    assert result["refused"] > 25 and result["evaluations"] == 2
    assert {"embedding", "marker", "seal.json", "zarr metadata"} <= set(result["by_kind"])


@pytest.mark.parametrize(
    ("name", "mutant", "says"),
    [
        ("ensure", lambda *_: None, "read without an error"),
        ("find_broken", lambda *_: {}, "verify reports"),
    ],
)
def test_a_careless_reader_is_caught(
    name: str, mutant: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, name, mutant)
    result = flips.run(runs=20, say=lambda _: None)
    assert not result["ok"]
    assert any(says in problem for problem in result["problems"])
