"""The benchmark of random crops runs, tiny, on generated and on given pictures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.images import PNG, XRAY, write_images
from benchmarks.speed import crops

SMALL = (replace(XRAY, name="jpeg", width=60, height=40), replace(PNG, name="png", width=50, height=50))


def test_generated_sets() -> None:
    result = crops.run(
        classes=[(kind, 3) for kind in SMALL],
        rounds=2,
        epochs=2,
        batch_size=2,
        threads=1,
        workers=0,
        decoders=["turbo", "reference"],
    )
    assert list(result["sets"]) == ["jpeg", "png"]
    for measured in result["sets"].values():
        assert measured["images"] == 3
        assert measured["failed"] == {"turbo": 0, "reference": 0}
        assert measured["contenders"]["turbo"]["gain"].n == 2
    text = crops.table(result)
    assert all(word in text for word in ("jpeg", "png", "turbo", crops.BASELINE))


def test_a_folder_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in SMALL:
        write_images(tmp_path / "data", kind, 3)
    command = [
        "--data",
        str(tmp_path / "data"),
        "--rounds",
        "1",
        "--epochs",
        "1",
        "--workers",
        "0",
        "--decoder",
        "turbo",
    ]
    crops.main([*command, "--most", "4", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["sets"]["data"]["images"] == 4
    assert result["sets"]["data"]["failed"] == {"turbo": 0}
