"""The benchmark of many findings, tiny: it runs, and its cells are what they are said to be."""

import json

import numpy as np
import pytest

from benchmarks.speed import findings
from benchmarks.speed.probe import made_features

pytestmark = pytest.mark.slow


def test_runs_tiny() -> None:
    result = findings.run(300, 24, 3, 5, repeats=2, threads=1)
    assert result["converged"] == result["fits"] == 15
    assert result["times_as_fast"].n == 2
    assert result["excess"] < 1e-6


def test_cells_have_their_shares_and_masks() -> None:
    features, _ = made_features(4000, 32, 2)
    cells = findings.made_findings(features, 5)
    assert cells.dtype == np.int8 and cells.shape == (4000, 5)
    assert (cells == -1).mean() == pytest.approx(0.2, abs=0.02)
    shares = [column[column >= 0].mean() for column in cells.T]
    np.testing.assert_allclose(shares, np.linspace(0.02, 0.3, 5), atol=0.02)


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"rows": 100, "dim": 8, "findings": 2, "values": 3, "repeats": 1, "threads": 1}
    words = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    findings.main([*words, "--no-sklearn", "--no-alone", "--json"])
    assert not {"sweep_seconds", "times_as_fast"} & set(json.loads(capsys.readouterr().out))
    findings.main(words)
    assert capsys.readouterr().out.count("that / in one run") == 2
