"""Transformers from configurations of our own: tiny ones here, built by the library itself."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import ModelError, WeightsError
from engine.models import load, resolve
from engine.models.backbones import architectures, configs
from engine.recipes import Recipe
from engine.runtime import Runtime
from tests.engine.models.plain import cosine, pictures

transformers = pytest.importorskip("transformers")
SIDE = 28
RECIPE = Recipe(size=SIDE, crop=SIDE)
_SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
TINY = {
    "tiny-dinov2": configs.Config("Dinov2", {**_SIZES, "image_size": 56, "patch_size": 14}),
    "tiny-dinov3": configs.Config(
        "DINOv3ViT", {**_SIZES, "intermediate_size": 48, "patch_size": 14, "num_register_tokens": 4}, prefix=5
    ),
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, config in TINY.items():
        monkeypatch.setitem(configs.CONFIGS, name, config)
    architectures._shapes_only.cache_clear()


def _theirs(name: str) -> Any:
    row = TINY[name]
    config = getattr(transformers, f"{row.kind}Config")(**row.values)
    torch.manual_seed(3)
    return getattr(transformers, f"{row.kind}Model")(config).eval()


def _spec(name: str, variant: str, folder: Path) -> Any:
    _theirs(name).save_pretrained(folder)
    return resolve(f"transformers/{name}{variant}", weights=folder, recipe=RECIPE)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("variant", ["", "+cls", "+mean"])
def test_features_are_the_librarys(name: str, variant: str, tmp_path: Path) -> None:
    spec = _spec(name, variant, tmp_path)
    assert (spec.dim, spec.layer) == (24, "mean" if variant == "+mean" else "cls")
    pixels = pictures(5, SIDE)
    x = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(RECIPE.mean).reshape(-1, 1, 1)) / torch.tensor(
        RECIPE.sd
    ).reshape(-1, 1, 1)
    with torch.inference_mode():
        tokens = _theirs(name)(pixel_values=x).last_hidden_state
    expected = tokens[:, -4:].mean(1) if variant == "+mean" else tokens[:, 0]  # 2 x 2 patches, at the end
    encoder = load(spec, Runtime(threads=2))
    found = encoder(pixels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.cat([encoder(pixels[i : i + 1]) for i in range(5)]), found)
    assert cosine(load(spec, Runtime(precision="bf16", threads=1))(pixels), expected) > 0.99


@pytest.mark.parametrize("file", ["model.safetensors", "w.pth"])
def test_weights_files(file: str, tmp_path: Path) -> None:
    theirs = _theirs("tiny-dinov2")
    theirs.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    spec = resolve("transformers/tiny-dinov2", weights=tmp_path / file, recipe=RECIPE)
    assert load(spec, Runtime(threads=1))(pictures(2, SIDE)).shape == (2, 24)


@pytest.mark.parametrize("fault", ["missing", "extra", "shape"])
def test_files_that_do_not_fit_are_refused(fault: str, tmp_path: Path) -> None:
    theirs = _theirs("tiny-dinov2")
    theirs.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = next(n for n in state if n.endswith("norm1.bias"))
    if fault == "missing":
        del state[name]
    else:
        state["extra" if fault == "extra" else name] = torch.zeros(3)
    save_file(state, tmp_path / "model.safetensors")
    spec = resolve("transformers/tiny-dinov2", weights=tmp_path, recipe=RECIPE)
    with pytest.raises(WeightsError, match="does not fit"):
        load(spec, Runtime(threads=1))


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    _theirs("tiny-dinov2").save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**told, "num_attention_heads": 4}))
    with pytest.raises(WeightsError, match="num_attention_heads 4 instead of 3"):
        resolve("transformers/tiny-dinov2", weights=tmp_path, recipe=RECIPE)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(missing: str, tmp_path: Path) -> None:
    _theirs("tiny-dinov2").save_pretrained(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(WeightsError, match=missing):
        resolve("transformers/tiny-dinov2", weights=tmp_path, recipe=RECIPE)


def test_without_weights_there_are_none() -> None:
    with pytest.raises(WeightsError, match="no weights of its own"):
        resolve("transformers/tiny-dinov2", recipe=RECIPE)


def test_unknown_names_and_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="dinov2-base"):
        architectures.build("transformers/nothing")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r"embank\[hf\]"):
        architectures.build("transformers/tiny-dinov2")


@pytest.mark.parametrize("name", ["dinov2-small", "dinov3-vits16"])
def test_sizes_are_the_papers(name: str) -> None:
    """About 22 million parameters each (DINOv2, table of the model card; DINOv3, table 2)."""
    with torch.device("meta"):
        module = architectures.build(f"transformers/{name}")
    assert 21e6 < sum(p.numel() for p in module.parameters()) < 22.5e6
