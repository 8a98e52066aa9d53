"""The benchmark of the report page, tiny: it runs on records of real evaluations; no time is asserted."""

import json
from pathlib import Path

import pytest

from benchmarks.speed import report

pytestmark = pytest.mark.slow


def test_runs_tiny(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--datasets", "1", "--models", "2", "--repeats", "1", "--folder", str(tmp_path)]
    report.main([*words, "-o", str(tmp_path / "result.json")])
    assert "18 cells: 2 models x 1 data sets" in capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    # Two models: few-shot in two modes of two seeds, k-NN, a probe; and a comparison of each of these.
    assert result["cells"] == 2 * 6 + 6
    assert result["bytes"] == (tmp_path / "report.html").stat().st_size
    assert result["seconds"]["n"] == 1
