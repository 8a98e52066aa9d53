"""Recipes: names, files, refusals, digests."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import Refused
from engine.recipes import DEFAULT_RECIPE, RECIPES, Recipe, load_recipe

OTHER = {
    "resize": "exact",
    "size": 300,
    "crop": 200,
    "interpolation": "bilinear",
    "depth": "scale",
    "exif": True,
    "normalise": "none",
    "mean": (0.5, 0.5, 0.5),
    "sd": (0.5, 0.5, 0.5),
    "deep": ("voi", "window:0,4095"),
}


def test_names() -> None:
    assert load_recipe(DEFAULT_RECIPE) == Recipe()
    assert {"imagenet-224", "imagenet-128", "imagenet-256-224-bilinear", "unit-224"} <= set(RECIPES)
    assert [load_recipe(name) for name in RECIPES] == list(RECIPES.values())
    assert len({recipe.digest for recipe in RECIPES.values()}) == len(RECIPES)
    for name, recipe in RECIPES.items():
        assert str(recipe.side) in name


def test_every_field_is_in_the_digest() -> None:
    digests = {Recipe().digest}
    for name, value in OTHER.items():
        digests.add(replace(Recipe(), **{name: value}).digest)
    digests.add(Recipe(depth="window", window=(0, 9)).digest)
    assert {field.name for field in fields(Recipe)} == {*OTHER, "window"}
    assert len(digests) == len(OTHER) + 2


def test_rules_for_deep_images_leave_the_key_alone() -> None:
    """Digests of features made before there were such rules, and of those without, are what they were."""
    assert Recipe().digest == "b2a15f37622616f5e052adaa685bbe4c7ac333f253ecb1ff64dd4f5fee3e9590"
    one = Recipe(deep=("window:0,4095.0", "scale"))
    assert one.deep == ("window:0,4095", "scale")
    assert one.key_digest == Recipe().key_digest == Recipe().digest != one.digest
    assert [(rule.depth, rule.window, rule.deep) for rule in one.rules] == [
        ("window", (0.0, 4095.0), ()),
        ("scale", None, ()),
    ]
    assert [rule.depth for rule in Recipe(depth="voi", deep=("scale",)).rules] == ["voi", "scale"]
    assert Recipe().rules == ()
    assert "deep" not in Recipe().to_dict()
    assert Recipe(deep=("window:-0.5,1e300",)).deep == ("window:-0.5,1e+300",)


def test_equal_recipes_have_equal_digests() -> None:
    one = Recipe(mean=(0, 1, 0), sd=(1, 1, 1), depth="window", window=(0, 4095))
    other = Recipe(mean=[0.0, 1.0, 0.0], sd=[1.0] * 3, depth="window", window=[0.0, 4095.0])  # type: ignore[arg-type]
    assert one == other
    assert one.digest == other.digest


@pytest.mark.parametrize(
    "recipe", [*RECIPES.values(), Recipe(depth="window", window=(-5, 9.5)), Recipe(**OTHER)]
)  # type: ignore[arg-type]
def test_round_trip(recipe: Recipe, tmp_path: Path) -> None:
    text = json.dumps(recipe.to_dict())
    assert Recipe.from_dict(json.loads(text)) == recipe
    (tmp_path / "r.json").write_text(text)
    assert load_recipe(tmp_path / "r.json").digest == recipe.digest


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize": "long"},
        {"interpolation": "nearest"},
        {"normalise": None},
        {"depth": "guess"},
        {"deep": ["guess"]},
        {"deep": ["refuse"]},
        {"deep": ["window"]},
        {"deep": ["window:9,1"]},
        {"deep": ["window:0,nan"]},
        {"deep": ["scale:1"]},
        {"exif": 1},
        {"size": 0},
        {"size": 224.0},
        {"size": True},
        {"size": 10**6},
        {"crop": 225},
        {"crop": 0},
        {"crop": None},
        {"mean": (0.5, 0.5)},
        {"mean": (0.5, 0.5, float("nan"))},
        {"mean": "abc"},
        {"sd": (0.5, 0.0, 0.5)},
        {"sd": 1},
        {"window": (0, 4095)},
        {"depth": "window"},
        {"depth": "window", "window": (5, 5)},
        {"depth": "window", "window": (0, float("inf"))},
        {"colour": "grey"},
    ],
    ids=str,
)
def test_refusals_name_the_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        Recipe.from_dict(wrong)
    assert list(wrong)[-1] in str(caught.value)
    assert "Remedy: " in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"size": "large"}', '{"sizes": 1}'])
def test_files_that_are_no_recipes(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(Refused):
        load_recipe(tmp_path / "r.json")


@pytest.mark.parametrize("name", ["imagenet", "missing.json", ""])
def test_unknown_names(name: str) -> None:
    with pytest.raises(Refused, match=r"imagenet-224|missing"):
        load_recipe(name)


def test_xrv_is_the_packages_own_normalisation() -> None:
    datasets = pytest.importorskip("torchxrayvision.datasets")
    recipe = RECIPES["xrv-224"]
    bytes_ = np.arange(256, dtype=np.float64)
    found = (bytes_ / 255 - recipe.mean[0]) / recipe.sd[0]
    np.testing.assert_allclose(found, datasets.normalize(bytes_, 255), atol=2e-4)  # float32 there
    assert (found[0], found[-1]) == (-1024, 1024)


def test_moco_cxr_constants() -> None:
    for name in ("cxr-320", "cxr-224"):
        assert (RECIPES[name].mean, RECIPES[name].sd) == ((0.502,) * 3, (0.085585,) * 3)
    assert RECIPES["cxr-320"].side == 320


def test_showing_changes_the_depth_alone() -> None:
    recipe = RECIPES["unit-224"]
    assert recipe.showing("scale") == replace(recipe, depth="scale")
    assert recipe.showing("window:-1000,250") == replace(recipe, depth="window", window=(-1000, 250))
    for text in ("", "window", "window:1", "window:2,1", "window:a,b", "scale:1,2", "clip"):
        with pytest.raises(Refused):
            recipe.showing(text)
