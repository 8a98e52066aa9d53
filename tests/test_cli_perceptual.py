"""`embank perceptual` as a user types it."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import embank as public
from tests.command import embank
from tests.engine.models.plain import pictures
from tests.perceptual_trunks import saved


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("perceptual")
    for folder, seed in (("a", 1), ("b", 2)):
        (place / folder).mkdir()
        for i, pixels in enumerate(pictures(3, 40, seed).numpy()):
            Image.fromarray(pixels).save(place / folder / f"{i}.png")
    (place / "b" / "1.png").write_bytes(b"no image")
    for net in ("alex", "squeeze"):
        saved(net, place)
    return place


def run(place: Path, *more: object, nets: tuple[str, ...] = ("alex", "squeeze")) -> object:
    own = [word for net in nets for word in ("--net", net, "--trunk", f"{net}={place / net}.pth")]
    return embank(
        "perceptual", place / "a", place / "b", *own, "--side", 32, "--device", "cpu", "--threads", 1, *more
    )


def test_json_has_the_promised_keys(place: Path) -> None:
    ran = run(place, "--json")
    assert ran.code == 1, "more than 1 % of the pairs failed"
    document = ran.json
    good, bad, _ = document["pairs"]
    assert {"a", "b", "lpips", "reason"} <= good.keys()
    assert (good["a"], good["b"], good["reason"]) == ("0.png", "0.png", "")
    assert good["lpips"].keys() == document["mean"].keys() == {"alex", "squeeze", "mean"}
    assert bad["reason"].startswith("B: unknown_format") and set(bad["lpips"].values()) == {None}
    means = [pair["lpips"]["mean"] for pair in document["pairs"] if not pair["reason"]]
    assert document["mean"]["mean"] == pytest.approx(np.mean(means)) and document["failed"] == 1
    assert [trunk["published"] for trunk in document["trunks"]] == [False, False]


def test_table_for_people_fits_80_columns(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = run(place, "--max-failed", 0.5)
    assert ran.code == 0
    table = ran.out.split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert {"alex", "squeeze", "mean", "reason"} <= set(ran.out.split())
    assert "mean of 2" in ran.out and "3 pairs, 1 failed" in ran.out
    assert "not LPIPS as published" in ran.out


def test_the_table_of_pairs_as_csv(place: Path, tmp_path: Path) -> None:
    ran = run(place, "-o", tmp_path / "new" / "t.csv", "--json", nets=("squeeze",))
    with (tmp_path / "new" / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["a"] for row in rows] == ["0.png", "1.png", "2.png"]
    for row, pair in zip(rows, ran.json["pairs"], strict=True):
        assert row["reason"] == pair["reason"]
        if not pair["reason"]:
            assert float(row["squeeze"]) == pytest.approx(pair["lpips"]["squeeze"], abs=1e-9)
    assert rows[1]["squeeze"] == ""


def test_two_images_and_python(place: Path) -> None:
    a, b = place / "a" / "0.png", place / "b" / "2.png"
    own = ("--net", "squeeze", "--trunk", f"squeeze={place / 'squeeze.pth'}", "--own-size")
    ran = embank("perceptual", a, b, *own, "--json", "--device", "cpu", "--threads", 1)
    assert ran.code == 0
    options = public.PerceptualOptions(("squeeze",), None, trunks={"squeeze": place / "squeeze.pth"})
    result = public.perceptual(a, b, options, device="cpu", threads=1)
    assert result.to_dict()["pairs"] == ran.json["pairs"]


def test_missing_trunks_are_refused_with_commands_that_exist(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBANK_CACHE", str(tmp_path / "embank"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    ran = embank("perceptual", place / "a", place / "b")
    assert ran.code == 2 and ran.out == ""
    for net in ("alexnet", "squeezenet", "vgg16"):
        assert f"embank models fetch supervised-{net}" in ran.err
        assert embank("models", "show", f"supervised-{net}").code == 0
