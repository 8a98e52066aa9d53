"""The scale script runs, tiny, on whole commands; its verdict follows from its numbers; no time is judged."""

from typing import Any

import pytest

from benchmarks.speed import scale
from benchmarks.speed.common import Spread

pytestmark = pytest.mark.slow


def test_sizes_are_embedded_resumed_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "SHARES", (1,))  # Starting the command is most of the time.
    result = scale.run(rows=120, manifest_rows=40, files=5, batch_size=16)
    assert [each["rows"] for each in result["embed"]] == [120]
    assert [each["rows"] for each in result["manifest"]] == [10, 40]
    assert all(
        each["resume_seconds"].median > 0 and each["peak_bytes"].min > 2**20 for each in result["embed"]
    )
    assert "from linear" in scale.table(result)


def one(rows: int, seconds: float, peak: float, resume: float = 1.0) -> dict[str, Any]:
    values = {"seconds": seconds, "cpu_seconds": seconds, "peak_bytes": peak, "resume_seconds": resume}
    return {"rows": rows} | {name: Spread.of([value]) for name, value in values.items()}


@pytest.mark.parametrize(
    ("last", "departure", "ok"),
    [
        (one(400, 4.0, 1e9), 0.0, True),
        (one(400, 5.0, 1e9), 0.2, False),
        (one(400, 3.2, 1e9), 0.25, False),
        (one(400, 4.0, 2e9), 0.0, False),
        (one(400, 4.0, 1e9, resume=3.0), 0.0, False),
    ],
)
def test_the_verdict_follows_from_the_numbers(last: dict[str, Any], departure: float, ok: bool) -> None:
    few = one(4, 1.0, 1e9)  # mostly starting: its seconds are not judged
    found = scale._judged([few, one(100, 1.0, 1e9), one(200, 2.0, 1e9), last], [])
    assert found["departure"] == pytest.approx(departure)
    assert found["ok"] == ok
