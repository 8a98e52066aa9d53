"""The benchmark of keeping contents runs, tiny."""

from dataclasses import replace

from benchmarks.images import XRAY
from benchmarks.speed import contents


def test_tiny_run() -> None:
    result = contents.run(classes=[(replace(XRAY, name="jpeg", width=260, height=240), 5)], rounds=2)
    one = result["classes"]["jpeg"]
    assert (one["images"], one["cost"].n, one["rate"].n) == (5, 2, 2)
    assert "jpeg" in contents.table(result)
