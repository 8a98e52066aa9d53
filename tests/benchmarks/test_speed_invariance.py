"""The invariance benchmark, tiny: it runs, and the study's loop finds the same cosines."""

import json

import pytest

from benchmarks.speed import invariance


def test_runs_tiny() -> None:
    result = invariance.run(300, 24, 6, 8, looped=30, repeats=2)
    for arithmetic in ("float64", "float32"):
        assert result["covariance"][arithmetic]["of_peak"].median > 0
        assert result["whitening"][arithmetic]["times_as_fast"].median > 0
        assert result["whitening"][arithmetic]["largest_difference"] < 1e-4


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--rows",
        "200",
        "--dim",
        "8",
        "--images",
        "2",
        "--views",
        "3",
        "--looped",
        "4",
        "--repeats",
        "1",
    ]
    invariance.main([*words, "--json"])
    assert json.loads(capsys.readouterr().out)["dim"] == 8
    invariance.main(words)
    assert "the study's loop" in capsys.readouterr().out
