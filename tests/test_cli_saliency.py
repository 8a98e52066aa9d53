"""`embank saliency` as a user types it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import embank as public
from engine.evals.saliency.options import SaliencyOptions
from engine.models.backbones import architectures
from stores.bank.records import read_all
from tests.command import embank
from tests.engine.models.plain import pictures, saved, trained

NAME = "torchvision/mnasnet0_5"
TINY = ("--stride", 10, "--threads", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("saliency")
    root = folder / "images"
    for i, picture in enumerate(pictures(3, 64)):
        path = root / ("normal" if i else "opacity") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.numpy()).save(path)
    assert embank("manifest", "folder", root, "-o", folder / "m.parquet").code == 0
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps({"size": 16, "crop": 16}))
    weights = saved(trained(architectures.build_seeded(NAME, 0), 64), folder)
    return {"manifest": folder / "m.parquet", "recipe": recipe, "weights": weights, "root": root}


def _on_manifest(files: dict[str, Path], out: Path, *more: object) -> object:
    return embank(
        "saliency", files["manifest"], "--model", NAME, "--weights", files["weights"], "--recipe",
        files["recipe"], "-o", out, *TINY, *more,
    )  # fmt: skip


def test_json_has_the_promised_keys(files: dict[str, Path], tmp_path: Path) -> None:
    ran = _on_manifest(files, tmp_path / "out", "--images", 2, "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    assert found["model"] == NAME and len(found["items"]) == 2
    for item in found["items"]:
        assert {"image_id", "attentive_diffusion"} <= item.keys() and 0 < item["attentive_diffusion"] < 1
    values = [item["attentive_diffusion"] for item in found["items"]]
    assert found["mean"] == pytest.approx(np.mean(values)) and found["sd"] == pytest.approx(
        np.std(values, ddof=1)
    )
    assert found["interval"]["low"] <= found["mean"] <= found["interval"]["high"]
    assert all(Path(path).exists() for path in found["files"]) and len(found["files"]) == 5
    assert "places/s" in ran.err
    again = _on_manifest(files, tmp_path / "out", "--images", 2, "--json").json
    assert again["computed"] == 0 and again["items"] == found["items"]


def test_table_for_people(files: dict[str, Path], tmp_path: Path) -> None:
    ran = _on_manifest(files, tmp_path / "out", "--id", "normal/1.png", "--precision", "bf16")
    assert ran.code == 0 and "attentive diffusion" in ran.out and "sheet.png" in ran.out
    assert "bf16" in ran.out and "normal/1.png" in ran.out


@pytest.mark.slow
def test_a_bank_s_own_weights_and_recipe_are_used(files: dict[str, Path], tmp_path: Path) -> None:
    bank = tmp_path / "b"
    given = ("--model", NAME, "--weights", files["weights"], "--recipe", files["recipe"], "--device", "cpu")
    assert embank("embed", files["manifest"], *given, "--bank", bank, "--threads", 1).code == 0
    found = embank("saliency", bank, "--model", NAME, "--images", 2, *TINY, "--json")
    assert found.code == 0, found.err
    other = _on_manifest(files, tmp_path / "out", "--images", 2, "--json").json
    assert found.json["items"] == other["items"] and found.json["key"] == other["key"]
    assert (bank / found.json["items"][0]["map"]).exists()
    assert [record.kind for record in read_all(bank)] == ["embed", "saliency"]
    made, scored = embank("records", "ls", bank, "--json").json["records"]
    assert (made["metric"], made["value"], made["text"]) == ("ok", 3, "3 of 3 images ok")
    bounds = found.json["interval"]
    assert [scored[name] for name in ("model", "value")] == [NAME, found.json["mean"]]
    assert [scored[name] for name in ("low", "high")] == [bounds["low"], bounds["high"]]
    again = public.saliency(bank, NAME, SaliencyOptions(stride=10, images=2), device="cpu", threads=1)
    assert again["items"] == found.json["items"] and again["computed"] == 0
    assert [record.kind for record in read_all(bank)] == ["embed", "saliency", "saliency"]
    assert embank("bank", "verify", bank).code == 0


def test_failed_images_are_counted_and_decide_the_exit_code(files: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    Image.new("RGB", (8, 8)).save(root / "small.png")
    Image.fromarray(pictures(1, 64)[0].numpy()).save(root / "good.png")
    assert embank("manifest", "folder", root, "-o", tmp_path / "m.parquet").code == 0
    words = ("saliency", tmp_path / "m.parquet", "--model", NAME, "--weights", files["weights"], "--recipe",
             files["recipe"], "-o", tmp_path / "out", *TINY, "--images", 2)  # fmt: skip
    ran = embank(*words, "--json")
    assert ran.code == 1 and ran.json["failures"] == {"too_small": 1}
    bad = next(item for item in ran.json["items"] if item["image_id"] == "small.png")
    assert bad["attentive_diffusion"] is None and "8 x 8" in bad["detail"]
    assert embank(*words, "--max-failed", 0.5).code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--id", "nobody"), "nobody"),
        (("--size", 3, "--stride", 4), "stride 4"),
        (("--fill", "red"), "R,G,B"),
        (("--batch-norm", "train"), "as-published"),
        (("--mode", "as-published"), "stride 10"),
    ],
)
def test_refusals_name_rule_and_remedy(
    files: dict[str, Path], tmp_path: Path, words: tuple[object, ...], says: str
) -> None:
    ran = _on_manifest(files, tmp_path / "out", *words)
    assert ran.code == 2 and says in ran.err and "remedy" in ran.err


@pytest.mark.slow
def test_a_manifest_needs_a_folder_and_an_architecture_its_size(
    files: dict[str, Path], tmp_path: Path
) -> None:
    ran = embank("saliency", files["manifest"], "--model", "random/resnet18")
    assert ran.code == 2 and "-o DIR" in ran.err
    ran = embank("saliency", files["manifest"], "--model", "random/vit_b_16", "-o", tmp_path / "out")
    assert ran.code == 2 and "242" in ran.err
