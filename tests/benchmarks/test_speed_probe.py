"""The probe benchmark, tiny: it runs, its features are what they are said to be, and ours is never higher."""

import json

import numpy as np
import pytest

from benchmarks.speed import probe

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("classes", [2, 5])
def test_runs_tiny(classes: int) -> None:
    result = probe.run(300, 24, classes, 9, repeats=2, threads=1)
    assert result["converged"] == 9
    assert len(result["iterations"]) == len(result["sweep_iterations"]) == 9
    assert result["excess"] < 1e-6
    assert result["sweep_over_batched"].n == 2
    assert 0 < result["share_of_peak"].median < 1


def test_features_are_like_pooled_relu_features() -> None:
    features, targets = probe.made_features(2000, 128, 5)
    assert features.dtype == np.float16
    assert features.min() == 0
    assert np.bincount(targets)[0] / 2000 == pytest.approx(0.73, abs=0.03)
    centred = features - features.mean(0, dtype=np.float64)
    spectrum = np.linalg.eigvalsh(centred.T @ centred)
    assert 1e-6 < spectrum[0] / spectrum[-1] < 1e-2


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--rows",
        "100",
        "--dim",
        "8",
        "--classes",
        "3",
        "--values",
        "3",
        "--repeats",
        "1",
        "--threads",
        "1",
    ]
    probe.main([*words, "--no-sklearn", "--json"])
    assert "sweep_seconds" not in json.loads(capsys.readouterr().out)
    probe.main(words)
    assert "sweep / embank" in capsys.readouterr().out
