"""The catalogue's facts, against the study's table and the libraries' own."""

import re

import pytest
from torchvision import models

from engine.errors import ModelError
from engine.models.backbones import architectures
from engine.models.catalog import lookup
from engine.models.catalog.entry import Row
from engine.models.catalog.families import BEYOND, ROWS, STUDY
from engine.models.checkpoints.checkpoint_cache import Published
from engine.recipes import Recipe, load_recipe

#: The study's table: slug -> architecture, feature, top-1.
TABLE = {
    "supervised-r50": ("resnet50", 2048, 76.130),
    "supervised-r18": ("resnet18", 512, 69.758),
    "supervised-d121": ("densenet121", 1024, 74.434),
    "simclr-v1": ("resnet50", 2048, 69.1),
    "moco-v2": ("resnet50", 2048, 71.1),
    "swav": ("resnet50", 2048, 75.3),
    "byol": ("resnet50", 2048, 74.3),
    "pirl": ("resnet50", 2048, 61.7),
    "mimic-chexpert-lr0.01": ("densenet121", 1024, None),
    "mimic-chexpert-lr0.1": ("densenet121", 1024, None),
    "mimic-chexpert-lr1.0": ("densenet121", 1024, None),
    "moco-cxr-r18": ("resnet18", 512, None),
    "moco-cxr-d121": ("densenet121", 1024, None),
    "random-r50": ("resnet50", 2048, None),
}
PUBLISHED = [row for row in ROWS if isinstance(row.source, Published)]


def test_the_study_is_there() -> None:
    assert {row.slug for row in STUDY} == set(TABLE)
    for row in STUDY:
        name, dim, top1 = TABLE[row.slug]
        assert row.architecture == f"torchvision/{name}"
        assert row.facts.top1 == top1
        assert architectures.dimension(row.architecture, 224) == dim


def test_preprocessing_of_the_study() -> None:
    recipes = {row.slug: row.recipe for row in STUDY}
    assert recipes["simclr-v1"] == load_recipe("unit-224")
    for rate in ("0.01", "0.1", "1.0"):
        assert recipes[f"mimic-chexpert-lr{rate}"] == load_recipe("histogram-224")
    others = {s: r for s, r in recipes.items() if s != "simclr-v1" and not s.startswith("mimic")}
    assert set(others.values()) == {Recipe()}


def test_moco_cxr_has_two_ways() -> None:
    for slug in ("moco-cxr-r18", "moco-cxr-d121"):
        paper, native = (lookup.find(f"{slug}+{v}").recipe for v in ("paper", "native"))
        assert paper == lookup.find(slug).recipe == Recipe()
        assert (native.side, native.mean, native.sd) == (320, (0.502,) * 3, (0.085585,) * 3)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.slug)
def test_every_published_row_says_all(row: Row) -> None:
    source = row.source
    assert isinstance(source, Published)
    assert source.url.startswith("https://")
    assert source.name == row.slug
    assert row.facts.paper.startswith("https://")
    assert row.facts.licence
    assert {"url", "recipe"} <= set(row.facts.sources)
    status = re.compile(r"(confirmed|inferred|unverified|unknown): ")
    assert all(status.match(text) for text in row.facts.sources.values())
    assert source.reader.describe()["container"]
    for end in (source.expected.sha256, source.expected.md5):
        assert re.fullmatch("[0-9a-f]*", end)


def test_cache_folders_are_apart() -> None:
    names = [row.source.name for row in PUBLISHED if isinstance(row.source, Published)]
    assert len(set(names)) == len(names)
    assert len({row.slug for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("slug", "published"),
    [
        ("supervised-r50", models.ResNet50_Weights.IMAGENET1K_V1),
        ("supervised-r18", models.ResNet18_Weights.IMAGENET1K_V1),
        ("supervised-d121", models.DenseNet121_Weights.IMAGENET1K_V1),
        ("supervised-alexnet", models.AlexNet_Weights.IMAGENET1K_V1),
        ("supervised-squeezenet", models.SqueezeNet1_1_Weights.IMAGENET1K_V1),
        ("supervised-vgg16", models.VGG16_Weights.IMAGENET1K_V1),
    ],
)
def test_supervised_facts_are_torchvisions(slug: str, published: models.WeightsEnum) -> None:
    row = lookup.find(slug).row
    assert isinstance(row.source, Published)
    assert row.source.url == published.url
    assert row.source.expected.sha256 in published.url
    assert len(row.source.expected.sha256) == 8
    assert row.facts.top1 == published.meta["_metrics"]["ImageNet-1K"]["acc@1"]


def test_torchxrayvisions_address_is_its_own() -> None:
    xrv = pytest.importorskip("torchxrayvision")
    row = lookup.find("xrv-densenet121").row
    assert isinstance(row.source, Published)
    assert row.source.url == xrv.models.model_urls["densenet121-res224-all"]["weights_url"]


@pytest.mark.parametrize("slug", [row.slug for row in BEYOND])
def test_models_beyond_the_study_can_be_described(slug: str) -> None:
    found = lookup.find(slug)
    library = found.architecture.partition("/")[0]
    pytest.importorskip(library)
    if library == "transformers" and slug != "dinov2-small":
        pytest.skip("large; one of them is enough")
    told = lookup.describe(slug)
    assert told["source"]["present"] in ("yes", "no")
    assert told["layer"] in ("cls", "gap")


@pytest.mark.parametrize("slug", ["byol+mean", "moco-v2+same", "byol+", "torchvision/resnet18+same", "+same"])
def test_unknown_variants_are_refused(slug: str) -> None:
    with pytest.raises(ModelError) as caught:
        lookup.find(slug)
    assert caught.value.remedy


@pytest.mark.parametrize("slug", ["timm/vit_tiny_patch16_224+mean", "byol+same", "simclr-v1+same"])
def test_variants_are_in_the_architecture(slug: str) -> None:
    assert "+" in lookup.find(slug).architecture
