"""The decode benchmark runs, tiny, on generated and on given pictures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.images import PNG, XRAY, write_images
from benchmarks.speed import decode

SMALL = (replace(XRAY, name="jpeg", width=260, height=240), replace(PNG, name="png", width=250, height=250))


def test_generated_classes() -> None:
    result = decode.run(
        classes=[(kind, 5) for kind in SMALL],
        rounds=2,
        batch_size=2,
        threads=2,
        workers=0,
        decoders=["turbo", "turbo-dct"],
    )
    for one in result["classes"].values():
        assert one["images"] == 5
        for name in ("turbo", "turbo-dct"):
            numbers = one["contenders"][name]
            assert numbers["failed"] == 0
            assert numbers["mean_difference"] <= 0.5
            assert numbers["gain"].n == 2
    text = decode.table(result)
    assert all(word in text for word in ("jpeg", "png", "turbo-dct", decode.BASELINE))


def test_folders_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path, SMALL[0], 4)
    (tmp_path / "jpeg" / "notes.txt").write_text("no picture")
    decode.main(
        ["--data", str(tmp_path), "--rounds", "1", "--workers", "0", "--decoder", "reference", "--json"]
    )
    result = json.loads(capsys.readouterr().out)
    assert result["classes"]["jpeg"]["images"] == 4
    assert result["classes"]["jpeg"]["contenders"]["reference"]["worst_image"] == 0
