"""The fault script for buckets, in small."""

import pytest

from benchmarks.faults import bucket
from tests.buckets import quick_dispatch

pytestmark = pytest.mark.slow


def test_races_and_bad_answers() -> None:
    with quick_dispatch():
        result = bucket.run(races=6, stride=67)
    assert result["problems"] == []
    assert result["ok"]
    assert all(result["mutants"].values())
    assert result["stopped"] > 0
    assert sum(result["spoilt"].values()) >= 2 * len(bucket.KINDS)
