"""The benchmark of LPIPS, tiny: it runs, and all ways give the same distances."""

import json

import pytest

from benchmarks.speed import perceptual

pytestmark = pytest.mark.slow

TINY = ["--net", "squeeze", "--pairs", "3", "--batch-size", "2", "--side", "32", "--rounds", "1"]


def test_command_line_and_agreement(capsys: pytest.CaptureFixture[str]) -> None:
    perceptual.main([*TINY, "--device", "cpu", "--threads", "1", "--json"])
    rows = json.loads(capsys.readouterr().out)["contenders"]
    assert set(rows) == {"rebuilt", "single", "embank"}
    assert rows["rebuilt"]["over_rebuilt"]["median"] == 1
    assert all(row["largest_error"] < 1e-4 for row in rows.values())
    perceptual.main([*TINY, "--device", "cpu", "--threads", "1"])
    assert "times as fast as rebuilt" in capsys.readouterr().out
