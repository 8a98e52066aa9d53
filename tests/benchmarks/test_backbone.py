"""The backbone benchmark at a tiny size: its shape, and that every contender computes the same features."""

import json
from pathlib import Path

import pytest

from benchmarks.speed import backbone
from benchmarks.speed.common import write_json

pytestmark = pytest.mark.slow


def test_tiny_run(tmp_path: Path) -> None:
    result = backbone.run(["resnet18"], batch=5, rounds=2, side=32, device="cpu", threads=2)
    rows = result["models"]["resnet18"]
    assert next(iter(rows)) == "eager"
    assert {"encoder", "encoder bf16", "channels_last, folded"} <= set(rows)
    for label, row in rows.items():
        assert row["img_per_s"].n == 2
        assert 0 < row["over_eager"].min <= row["over_eager"].median <= row["over_eager"].max
        assert row["cosine"] > (0.99 if "bf16" in label else 1 - 1e-8)
    assert rows["eager"]["over_eager"].median == 1
    write_json(result, tmp_path / "r.json")
    assert (
        json.loads((tmp_path / "r.json").read_text())["models"]["resnet18"]["encoder"]["over_eager"]["n"] == 2
    )
    assert "encoder bf16" in backbone._table(result)
