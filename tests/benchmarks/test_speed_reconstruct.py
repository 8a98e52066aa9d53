"""The reconstruction benchmark, tiny: it runs, and every way starts from the same losses."""

import json

import pytest

from benchmarks.speed import reconstruct

pytestmark = pytest.mark.slow

TINY = ["--model", "random/resnet18", "--side", "32", "--networks", "2", "--updates", "1", "--rounds", "1"]


def test_command_line_and_agreement(capsys: pytest.CaptureFixture[str]) -> None:
    reconstruct.main([*TINY, "--device", "cpu", "--threads", "1", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert set(result["contenders"]) == {"plain", "one", "embank"}
    assert result["contenders"]["plain"]["over_plain"]["median"] == 1
    assert result["largest_loss_error"] < 1e-2 and result["bytes_of_network"] > 1 << 20
    assert "times as fast as plain" in reconstruct._table(
        {
            **result,
            "contenders": {
                name: {"ms_an_update": row["ms_an_update"]["median"], "over_plain": 1.0}
                for name, row in result["contenders"].items()
            },
        }
    )
