"""The benchmark of comparisons, tiny: it runs, and its numbers equal those by hand; no time is asserted."""

import json
from pathlib import Path

import pytest

from benchmarks.simulations import comparison
from benchmarks.speed import compare

pytestmark = pytest.mark.slow


def test_runs_tiny_and_agrees_with_scikit_learn() -> None:
    result = compare.run(500, 200, 3, 2, 80, repeats=2, by_hand=10, threads=1)
    assert result["delong"]["largest_difference"] < 1e-10
    assert result["bootstrap"]["largest_difference"] < 1e-6
    assert result["bootstrap"]["pairs"] == 6 and result["bootstrap"]["over_embank"].n == 2


def test_command_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sizes = {"images": 200, "patients": 50, "models": 2, "findings": 1, "resamples": 30, "repeats": 1}
    words = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    compare.main([*words, "--json"])
    assert json.loads(capsys.readouterr().out)["delong"]["over_embank"]["n"] == 1
    compare.main(words)
    assert "DeLong's test of a pair" in capsys.readouterr().out
    sizes = {"patients": 30, "resamples": 20, "nulls": 2, "families": 1, "covered": 1}
    words = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    comparison.main([*words, "--json", str(tmp_path / "result.json")])
    assert "family wise (studies: 1)" in capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result["false_positives"]) >= set(comparison.METRICS)
