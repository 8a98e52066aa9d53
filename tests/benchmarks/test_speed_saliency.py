"""The saliency benchmark, tiny: it runs, and all contenders find the loop's scores."""

import json

import pytest

from benchmarks.speed import saliency

pytestmark = pytest.mark.slow

TINY = [
    "--model",
    "random/mnasnet0_5",
    "--inner",
    "14",
    "--places",
    "8",
    "--loop-places",
    "3",
    "--rounds",
    "1",
]


def test_command_line_and_agreement(capsys: pytest.CaptureFixture[str]) -> None:
    saliency.main([*TINY, "--device", "cpu", "--threads", "1", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["all_places"] == 23**2
    rows = result["contenders"]
    assert set(rows) == {"loop", *(f"{how} {p}" for how in ("batched", "shared") for p in ("fp32", "bf16"))}
    assert rows["loop"]["over_loop"]["median"] == 1
    assert all(rows[f"{how} fp32"]["largest_error"] < 1e-4 for how in ("batched", "shared"))
    saliency.main([*TINY, "--device", "cpu", "--threads", "1", "--precision", "fp32"])
    assert "times the loop" in capsys.readouterr().out
