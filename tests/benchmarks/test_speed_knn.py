"""The k-NN benchmark, tiny: it runs, and all contenders give the same neighbours."""

import json

import pytest

from benchmarks.speed import knn

pytestmark = pytest.mark.slow

pytest.importorskip("faiss")


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_runs_tiny(distance: str) -> None:
    result = knn.run(20, 300, 32, 5, repeats=2, distance=distance)
    assert set(result["seconds"]) == {"hand", "faiss", "array"}
    assert result["over_hand"]["hand"].median == 1
    assert min(result["same_rows"].values()) > 0.98


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    knn.main(["--queries", "5", "--base", "100", "--dim", "8", "-k", "3", "--repeats", "1", "--json"])
    assert json.loads(capsys.readouterr().out)["base"] == 100
    knn.main(["--queries", "5", "--base", "100", "--dim", "8", "-k", "3", "--repeats", "1"])
    assert "FAISS by hand" in capsys.readouterr().out
