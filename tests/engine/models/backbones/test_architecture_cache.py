"""Facts that are kept: the same as those that are found, never stale, done without where they cannot be."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.errors import ModelError, WeightsError
from engine.models import load, resolve
from engine.models.backbones import architecture_cache, architectures
from engine.models.checkpoints import sources
from engine.recipes import Recipe
from engine.runtime import Runtime
from tests.engine.models.plain import saved

NAME = "torchvision/shufflenet_v2_x0_5"
SLUG = "random/shufflenet_v2_x0_5"
SMALL = replace(Recipe(), size=32, crop=32)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of the facts that this test keeps."""
    monkeypatch.setenv("EMBANK_CACHE", str(tmp_path / "cache"))
    architecture_cache._surroundings.cache_clear()
    yield tmp_path / "cache" / "facts"
    architecture_cache._surroundings.cache_clear()


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Facts that were found by building; those that were recalled are not among them."""
    asked: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(architectures, name)
        return lambda *given: (asked.append(name), original(*given))[1]

    for name in ("layer", "dimension", "default_recipe", "default_weights", "build_seeded"):
        monkeypatch.setattr(architectures, name, counted(name))
    return asked


def rewrite(folder: Path, fact: str, value: Any) -> None:
    """Change a kept fact, and its file's digest with it, as only somebody who means it does."""
    (file,) = folder.iterdir()
    told = json.loads(file.read_text())["facts"]
    assert fact in told
    told[fact] = value
    file.write_text(json.dumps({"facts": told, "sha256": architecture_cache._sha256(told)}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slug", "seed"), [(SLUG, 0), (SLUG, 3), ("efficientnet-lite0", 0), ("random/vit_b_16", 0)]
)
def test_what_is_recalled_is_what_was_found(kept: Path, builds: list[str], slug: str, seed: int) -> None:
    if slug == "efficientnet-lite0":
        pytest.importorskip("timm")
    found = resolve(slug, seed=seed)
    assert builds
    builds.clear()
    recalled = resolve(slug, seed=seed)
    assert builds == []
    assert (recalled, recalled.recipe.digest) == (found, found.recipe.digest)
    assert {type(getattr(recalled, name)) for name in ("dim", "layer", "notes")} == {int, str}


def test_every_fact(kept: Path, builds: list[str]) -> None:
    def all_of(name: str) -> list[Any]:
        architecture = f"torchvision/{name}"
        return [
            architecture_cache.layer(architecture),
            architecture_cache.dimension(architecture, 224),
            architecture_cache.dimension(architecture, 64),
            architecture_cache.default_recipe(architecture),
            architecture_cache.default_weights(architecture),
            architecture_cache.drawn_sha256(architecture, 0),
            architecture_cache.drawn_sha256(architecture, 1),
        ]

    found = [all_of("resnet18"), all_of("shufflenet_v2_x0_5")]
    assert len(builds) == 14
    assert [all_of("resnet18"), all_of("shufflenet_v2_x0_5")] == found
    assert len(builds) == 14
    assert found[0][4] == {
        "text": "torchvision ResNet18_Weights.IMAGENET1K_V1",
        "url": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    }
    assert len(list(kept.iterdir())) == 2


def test_timm_says_where_its_weights_are(kept: Path) -> None:
    pytest.importorskip("timm")
    for _ in range(2):
        told = architecture_cache.default_weights("timm/resnet18")
        assert (told["text"], told["hf_hub_id"]) == ("timm resnet18", "timm/resnet18.a1_in1k")


@pytest.mark.parametrize("where", ["versions", "_installation", "_processor", "_source"])
def test_other_surroundings_are_other_facts(
    kept: Path, builds: list[str], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture_cache.layer(NAME)
    original = getattr(architecture_cache, where)
    monkeypatch.setattr(architecture_cache, where, lambda *given: [original(*given), "changed"])
    architecture_cache._surroundings.cache_clear()
    builds.clear()
    architecture_cache.layer(NAME)
    assert builds == ["layer"]


def test_surroundings_are_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        architecture_cache.versions(architecture_cache.LIBRARIES)["torch"].partition("+")[0]
        == torch.__version__.partition("+")[0]
    )
    origin, size, _ = architecture_cache._installation("torch")
    assert (origin, size) == (torch.__file__, Path(torch.__file__).stat().st_size)
    assert architecture_cache._installation("no_such_module") == []
    before = architecture_cache._processor()
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert architecture_cache._processor() != before
    # A change in one file, in one byte, is another source.
    for name in ("facts.py", "names.py"):
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(architecture_cache, "__file__", str(tmp_path / "backbones" / "facts.py"))
    first = architecture_cache._source()
    (tmp_path / "names.py").write_text("x = 2\n")
    assert architecture_cache._source() != first


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"1024", b"1025"),
        lambda data: b"\xff" * 50,
        lambda data: b"[]",
        lambda data: b"null",
        lambda data: b'{"facts": []}',
    ],
)
def test_a_damaged_file_is_found_again(
    kept: Path, builds: list[str], damage: Callable[[bytes], bytes]
) -> None:
    assert architecture_cache.dimension(NAME, 32) == 1024
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert architecture_cache.dimension(NAME, 32) == 1024
    assert len(builds) == 2
    assert file.read_bytes() == whole


def test_files_are_private_and_nothing_is_left_beside_them(kept: Path) -> None:
    resolve(SLUG)
    assert kept.stat().st_mode & 0o777 == 0o700
    (file,) = kept.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("where", ["a file", "a file within", "read-only", "none"])
def test_without_a_folder_facts_are_found(
    where: str, tmp_path: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("EMBANK_CACHE", "" if where == "none" else str(cache))
    if where == "a file":
        cache.write_text("")
    if where == "a file within":
        cache.mkdir()
        (cache / "facts").write_text("")
    if where == "read-only":
        if os.geteuid() == 0:
            pytest.skip("root writes everywhere")
        cache.mkdir(mode=0o500)
    assert resolve(SLUG) == resolve(SLUG)
    assert builds.count("layer") == 2


def test_a_full_disk_is_no_error(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert architecture_cache.dimension(NAME, 32) == 1024
    assert list(kept.iterdir()) == []


def test_errors_are_not_kept(kept: Path) -> None:
    for _ in range(2):
        with pytest.raises(ModelError):
            architecture_cache.layer("torchvision/nothing")
    assert not kept.exists()


# --- a fact that is wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fact", "value", "says"),
    [("dimension at 32", 1, r"shape \(1024,\)"), ("layer", ["cls", ""], "gives the layer gap")],
)
def test_another_feature_is_refused_and_forgotten(
    kept: Path, tmp_path: Path, fact: str, value: Any, says: str
) -> None:
    def spec() -> Any:
        return resolve("torchvision/shufflenet_v2_x0_5", weights=file, recipe=SMALL)

    file = saved(architectures.build_seeded(NAME, 0), tmp_path)
    truth = spec()
    rewrite(kept, fact, value)
    with pytest.raises(ModelError, match=says):
        load(spec(), Runtime.resolve("cpu", threads=1))
    assert spec() == truth


def test_other_drawn_weights_are_refused_and_forgotten(kept: Path) -> None:
    truth = resolve(SLUG)
    rewrite(kept, "drawn from 0", "0" * 64)
    with pytest.raises(WeightsError, match="0000 was expected"):
        load(resolve(SLUG), Runtime.resolve("cpu", threads=1))
    assert resolve(SLUG) == truth


# --- torch's own folder -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"TORCH_HOME": "/t"},
        {"XDG_CACHE_HOME": "/x"},
        {"TORCH_HOME": "~/t", "XDG_CACHE_HOME": "/x"},
        {"XDG_CACHE_HOME": ""},
        {"TORCH_HOME": ""},
    ],
)
def test_the_hub_is_where_torch_says(told: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    asked = Path(torch.hub.get_dir())
    assert sources._hub() == asked
    monkeypatch.setattr(sources, "sys", SimpleNamespace(modules={}))
    assert sources._hub() == asked
