"""The reading benchmark at a tiny size: it runs, compares equals with equals and reports what it should."""

import json
from pathlib import Path

import pytest

from benchmarks.speed import read
from stores.bank import integrity


def test_it_runs_tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "SETTLED_NS", 0)
    result = read.run(rows=500, dim=32, repeats=2, selected=100, folder=tmp_path)
    assert result["equal"] is True
    assert (result["rows"], result["dim"], result["selected"], result["rounds"]) == (500, 32, 100, 2)
    for part, others in (("full", ("npy", "zarr")), ("random", ("npy", "zarr")), ("random_warm", ("npy",))):
        for name in ("bank", *others):
            assert result[part][f"{name}_bytes_per_s"].n == 2
        for name in others:
            spread = result[part][f"over_{name}"]
            assert 0 < spread.min <= spread.median <= spread.max
    assert list(tmp_path.iterdir()) == [], "its files are gone"
    assert "full read" in read._table(result)


def test_the_command_writes_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "SETTLED_NS", 0)
    out = tmp_path / "read.json"
    command = ["read", "--rows", "130", "--dim", "4", "--repeats", "1", "--selected", "7", "-o", str(out)]
    monkeypatch.setattr("sys.argv", command)
    read.main()
    assert json.loads(out.read_text())["random"]["bank_bytes_per_s"]["n"] == 1
