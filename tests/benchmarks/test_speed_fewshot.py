"""The few-shot benchmark, tiny: it runs, the kernel answers as the loop does, the parts add up."""

import json

import pytest

from benchmarks.speed import fewshot

pytestmark = pytest.mark.slow


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--rows 300 --dim 32 --classes 4 --repeats 2 --n-way 3 --n-shot 5 --n-query 4 --episodes 20"
    fewshot.main([*words.split(), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["same"] > 0.99
    assert result["command"]["n"] == result["seconds"]["loop"]["n"] == 2
    parts = {name: spread["median"] for name, spread in result["parts"].items()}
    assert {"start of Python", "import numpy", "open", "pools", "sampling", "kernel", "record"} <= set(parts)
    assert all(value >= 0 for value in parts.values())
    assert sum(parts.values()) < 3 * 1e3 * result["command"]["max"]


def test_table_with_faiss(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("faiss")
    words = "--rows 100 --dim 8 --classes 2 --repeats 1 --n-way 2 --n-shot 3 --n-query 2 --episodes 5 --faiss"
    fewshot.main(words.split())
    out = capsys.readouterr().out
    assert "kernel / gather float16" in out and "| faiss |" in out
