"""The lineage of finetuned weights: written into their file, shown, and part of what is made with them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from engine.errors import WeightsError
from engine.models import resolve
from engine.models.backbones import architectures
from engine.models.catalog.lookup import find
from engine.models.checkpoints.lineage import KEY, Lineage, lineage_of
from stores.bank.reader import Bank
from stores.bank.records import read_all
from tests.command import embank
from tests.engine.models.plain import settle
from tests.studies import make_study

SLUG = "torchvision/shufflenet_v2_x0_5"
LINEAGE = Lineage(
    base=SLUG,
    architecture=SLUG,
    base_weights_source="published by torchvision",
    base_weights_sha256="ab" * 32,
    manifest_digest="cd" * 32,
    image_digest="ef" * 32,
    label="label",
    classes=("c0", "c1"),
    options={"mode": "default", "lr": 0.01, "class_weights": None, "crop": {"area": [0.08, 1.0]}},
    step=400,
    seed=7,
    recipe=find(SLUG).recipe.to_dict(),
)


def _body() -> torch.nn.Module:
    return settle(architectures.body(architectures.build_seeded(SLUG, 3)))


def _save(folder: Path, metadata: dict[str, str], name: str = "best.safetensors") -> Path:
    tensors = {name: tensor.contiguous() for name, tensor in _body().state_dict().items()}
    save_file(tensors, folder / name, metadata)
    return folder / name


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as finetuning writes it: the backbone's own names, and the lineage."""
    return _save(tmp_path_factory.mktemp("finetuned"), LINEAGE.metadata())


def test_any_reader_of_the_format_finds_it(finetuned: Path) -> None:
    with safe_open(finetuned, framework="pt") as file:
        body = json.loads(file.metadata()["embank"])["lineage"]
    assert (body["base"], body["step"], body["seed"]) == (SLUG, 400, 7)
    assert body["options"]["crop"] == {"area": [0.08, 1.0]}
    assert lineage_of(finetuned) == LINEAGE


def test_finetuned_weights_are_embedded_at_once_and_their_lineage_stays(
    finetuned: Path, tmp_path: Path
) -> None:
    study = make_study(tmp_path, 8)
    words = ("--weights", finetuned, "--recipe", study / "recipe.json", "--dtype", "float32")
    machine = ("--device", "cpu", "--threads", 1)
    bank = tmp_path / "finetuned.bank"
    ran = embank("embed", study / "m.parquet", "--model", SLUG, *words, "--bank", bank, *machine)
    assert ran.code == 0, ran.err
    (record,) = read_all(bank)
    assert record.used["lineage"] == json.loads(json.dumps(LINEAGE.to_dict()))
    shown = embank("bank", "show", bank, "--json").json["features"][0]["provenance"]
    assert shown["lineage"]["base_weights_sha256"] == "ab" * 32
    assert shown["weights_source"] == f"file best.safetensors, finetuned from {SLUG}, step 400"
    # Each image through the network as torchvision builds it, with the finetuned numbers.
    features = Bank.open(bank).features(SLUG)
    files = [study / "images" / uri for uri in Bank.open(bank).manifest().uris]
    pixels = np.stack(
        [np.asarray(Image.open(file).resize((32, 32), Image.Resampling.BICUBIC)) for file in files]
    )
    recipe = find(SLUG).recipe
    x = torch.tensor((pixels / 255 - recipe.mean) / recipe.sd, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = _body()(x)
    torch.testing.assert_close(torch.from_numpy(np.array(features.array)), expected, rtol=0.01, atol=0.01)


def test_models_show_prints_it(finetuned: Path) -> None:
    ran = embank("models", "show", SLUG, "--weights", finetuned, "--json")
    assert ran.json["lineage"] == json.loads(json.dumps(LINEAGE.to_dict()))
    lines = embank("models", "show", SLUG, "--weights", finetuned).out.splitlines()
    start = lines.index("lineage")
    assert f"  base           {SLUG}" in lines[start:]
    assert "    lr             0.01" in lines[start:]
    assert "lineage" not in embank("models", "show", SLUG, "--json").json


def test_weights_without_lineage_have_none(tmp_path: Path) -> None:
    plain = _save(tmp_path, {"format": "pt"})
    converted = _save(tmp_path, {KEY: '{"model": "byol"}'}, "converted.safetensors")
    assert resolve(SLUG, weights=converted).lineage is None
    torch.save(_body().state_dict(), tmp_path / "w.pth")
    assert resolve(SLUG, weights=plain).lineage is None
    assert resolve(SLUG, weights=tmp_path / "w.pth").lineage is None
    assert resolve(SLUG, weights=plain).weights_source == "file best.safetensors"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"lineage": []}',
        '{"lineage": {}}',
        "[" * 100_000,
        json.dumps({"lineage": {**LINEAGE.to_dict(), "step": "400"}}),
        json.dumps({"lineage": {**LINEAGE.to_dict(), "options": None}}),
        json.dumps({"lineage": {**LINEAGE.to_dict(), "base": 1}}),
        json.dumps({"lineage": {**LINEAGE.to_dict(), "classes": "ab"}}),
        json.dumps({"lineage": {n: value for n, value in LINEAGE.to_dict().items() if n != "options"}}),
    ],
    ids=["no JSON", "list", "empty", "deep", "step", "options", "base", "classes", "options missing"],
)
def test_a_lineage_that_cannot_be_understood_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="lineage that cannot be understood") as caught:
        resolve(SLUG, weights=_save(tmp_path, {KEY: text}))
    # The remedy: the same tensors without it.
    assert KEY in caught.value.remedy
    assert resolve(SLUG, weights=_save(tmp_path, {}, "again.safetensors")).lineage is None


def test_members_of_later_versions_are_left_out(tmp_path: Path) -> None:
    body = {"lineage": {**LINEAGE.to_dict(), "of_a_later_version": 1}, "more": 1}
    assert lineage_of(_save(tmp_path, {KEY: json.dumps(body)})) == LINEAGE


def test_control_characters_of_a_file_reach_no_terminal(tmp_path: Path) -> None:
    hostile = replace(LINEAGE, base="\x1b[31m" + SLUG)
    spec = resolve(SLUG, weights=_save(tmp_path, hostile.metadata()))
    assert "\x1b" not in spec.weights_source


def test_weights_bring_the_preprocessing_they_were_finetuned_with(tmp_path: Path) -> None:
    """It belongs to the weights; --recipe says that another one is meant."""
    other, third = replace(find(SLUG).recipe, normalise="none"), replace(find(SLUG).recipe, crop=192)
    path = _save(tmp_path, replace(LINEAGE, recipe=other.to_dict()).metadata())
    assert resolve(SLUG, weights=path).recipe == other != find(SLUG).recipe
    assert resolve(SLUG, weights=path, recipe=third).recipe == third
    unknown = _save(tmp_path, replace(LINEAGE, recipe={"of_a_later_version": 1}).metadata(), "u.safetensors")
    with pytest.raises(WeightsError, match="preprocessing that is not known here") as caught:
        resolve(SLUG, weights=unknown)
    assert "--recipe" in caught.value.remedy
    assert resolve(SLUG, weights=unknown, recipe=third).recipe == third


def test_equal_lineages_give_equal_files(tmp_path: Path) -> None:
    again = Lineage.from_dict(json.loads(LINEAGE.metadata()[KEY])["lineage"])
    first, second = (
        _save(tmp_path, a.metadata(), f"{i}.safetensors") for i, a in enumerate((LINEAGE, again))
    )
    assert first.read_bytes() == second.read_bytes()


def test_a_number_that_json_cannot_say_is_an_error() -> None:
    with pytest.raises(ValueError, match="JSON"):
        replace(LINEAGE, options={"lr": float("nan")}).metadata()


def test_reading_it_imports_no_torch(finetuned: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from engine.models.checkpoints.lineage import lineage_of; "
        f"assert lineage_of(Path({str(finetuned)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
