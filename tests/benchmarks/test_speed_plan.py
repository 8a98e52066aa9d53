"""The benchmark of planning, once: every cell is planned, and the finished study is a finished one."""

import json
from pathlib import Path

import pytest

from benchmarks.speed import plan

pytestmark = pytest.mark.slow


def test_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan.main(["--repeats", "1", "-o", str(tmp_path / "result.json")])
    assert "plan 1,144 cells" in capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["cells"] == 13 * 11 * 8
    assert result["plan"]["n"] == result["again"]["n"] == 1
