"""Each family's feature against a forward hook on the untouched classifier."""

import pytest
import torch
from torch import nn
from torchvision import models

from engine.errors import ModelError
from engine.models.backbones import architectures
from engine.models.checkpoints import weights
from tests.engine.models.plain import Shape, hooked, settle


def _mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3))


def _relu_mean(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(min=0).mean((2, 3))


def _mean_last(x: torch.Tensor) -> torch.Tensor:
    return x.mean((1, 2))


def _token(x: torch.Tensor) -> torch.Tensor:
    return x[:, 0]


#: architecture, layer whose output is the last feature map, how it becomes a feature, image side
ORACLES = [
    ("resnet18", "layer4", _mean, 64),
    ("resnext50_32x4d", "layer4", _mean, 64),
    ("regnet_x_400mf", "trunk_output", _mean, 64),
    ("regnet_y_400mf", "trunk_output", _mean, 64),
    ("shufflenet_v2_x0_5", "conv5", _mean, 64),
    ("densenet121", "features", _relu_mean, 64),
    ("mobilenet_v2", "features", _mean, 64),
    ("mobilenet_v3_small", "features", _mean, 64),
    ("mnasnet0_5", "layers", _mean, 64),
    ("efficientnet_b0", "features", _mean, 64),
    ("efficientnet_v2_s", "features", _mean, 64),
    ("convnext_tiny", "features", _mean, 64),
    ("vgg11_bn", "features", _mean, 64),
    ("alexnet", "features", _mean, 96),
    ("squeezenet1_1", "features", _mean, 64),
    ("googlenet", "inception5b", _mean, 64),
    ("inception_v3", "Mixed_7c", _mean, 96),
    ("swin_t", "norm", _mean_last, 64),
    ("swin_v2_t", "norm", _mean_last, 64),
    ("maxvit_t", "blocks.3", _mean, 224),
    ("vit_b_32", "encoder.ln", _token, 224),
]


@pytest.fixture(autouse=True)
def quick_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncated normal numbers take most of a builder's time, and these tests need any numbers."""
    monkeypatch.setattr(
        nn.init, "trunc_normal_", lambda t, mean=0.0, std=1.0, *a, **k: t.data.normal_(mean, std)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "shape", "side"), [pytest.param(*row, id=row[0]) for row in ORACLES]
)
def test_the_feature_is_the_pooled_last_map(name: str, layer: str, shape: Shape, side: int) -> None:
    options = architectures.family(name).options
    plain = settle(models.get_model(name, weights=None, **options))
    headless = architectures.build_seeded(f"torchvision/{name}", 5)
    weights.fit(headless, plain.state_dict(), architectures.head_prefixes(f"torchvision/{name}"))
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    expected = hooked(plain, layer, x, shape)
    with torch.inference_mode():
        found = headless(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found.shape[1] == architectures.dimension(f"torchvision/{name}", side)


def test_every_family_has_an_oracle() -> None:
    tested = {architectures.family(name).names for name, *_ in ORACLES}
    assert tested == {row.names for row in architectures.FAMILIES}


@pytest.mark.parametrize("name", models.list_models(module=models))
def test_every_classifier_of_torchvision_has_a_family(name: str) -> None:
    assert architectures.family(name).head


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_100"])
def test_timm_features_are_pooled_maps(name: str) -> None:
    timm = pytest.importorskip("timm")
    full = settle(timm.create_model(name))
    headless = architectures.build_seeded(f"timm/{name}", 5)
    weights.fit(headless, full.state_dict(), architectures.head_prefixes(f"timm/{name}"))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = full.forward_head(full.forward_features(x), pre_logits=True)
        found = headless(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert architectures.layer(f"timm/{name}")[0] == "gap"


def test_a_token_model_says_so() -> None:
    pytest.importorskip("timm")
    assert architectures.layer("timm/vit_tiny_patch16_224")[0] == "cls"
    assert architectures.layer("torchvision/vit_b_16")[0] == "cls"


@pytest.mark.parametrize(
    "architecture", ["torchvision/resnet19", "timm/resnet19", "keras/resnet18", "resnet18", ""]
)
def test_an_unknown_architecture_is_refused(architecture: str) -> None:
    with pytest.raises(ModelError) as caught:
        architectures.build(architecture)
    assert caught.value.remedy


def test_an_impossible_image_size_is_refused() -> None:
    with pytest.raises(ModelError, match="32 x 32"):
        architectures.dimension("torchvision/vit_b_16", 32)


def test_building_leaves_the_random_state_alone() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = architectures.build_seeded("torchvision/resnet18", 3)
    assert torch.equal(torch.get_rng_state(), before)
    second, other = (architectures.build_seeded("torchvision/resnet18", s) for s in (3, 4))
    assert torch.equal(first.conv1.weight, second.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    assert not any(module.training for module in first.modules())
    assert isinstance(first.fc, nn.Identity)
