"""Padding, input and pooling modifiers against explicit computations, and through the encoder's rewriting."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torchvision import models

from engine.errors import ModelError
from engine.models import resolve
from engine.models.backbones import architectures, modifiers
from engine.models.forward import fx_fusion
from engine.recipes import Recipe
from tests.engine.models import foreign
from tests.engine.models.plain import settle

pytestmark = pytest.mark.slow


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 4))
def test_same_padding_is_tensorflows(length: int, kernel: int, stride: int) -> None:
    before, after = modifiers.same_padding(length, kernel, stride)
    assert after - before in (0, 1)
    if kernel >= stride:  # else places fall beyond the image without any padding
        assert (length + before + after - kernel) // stride + 1 == -(-length // stride)
        assert (before, after) == foreign.pads(length, kernel, stride)


def test_the_places_on_224_pixels() -> None:
    """The reference's: the stem 2 before and 3 after; strided 3x3 and the pool 0 and 1."""
    assert modifiers.same_padding(224, 7, 2) == (2, 3)
    assert modifiers.same_padding(112, 3, 2) == (0, 1)
    assert modifiers.same_padding(56, 1, 2) == (0, 0)
    assert modifiers.same_padding(56, 3, 1) == (1, 1)


@settings(deadline=None, max_examples=20)
@given(st.integers(5, 20), st.sampled_from([1, 3, 5, 7]), st.integers(1, 3))
def test_layers_equal_explicit_padding(side: int, kernel: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(side)
    x = torch.randn(2, 3, side, side, generator=generator)
    before, after = foreign.pads(side, kernel, stride) if kernel >= stride else (0, 0)
    conv = modifiers.SameConv2d(3, 4, kernel, stride, padding=9)
    padded = functional.pad(x, (before, after, before, after))
    expected = functional.conv2d(padded, conv.weight, conv.bias, stride)
    torch.testing.assert_close(conv(x), expected)
    pool = modifiers.SameMaxPool2d(kernel, stride)
    padded = functional.pad(x - 9, (before, after, before, after), value=-torch.inf)
    torch.testing.assert_close(pool(x - 9), functional.max_pool2d(padded, kernel, stride))


def test_which_layers_change() -> None:
    same = architectures.build_seeded("torchvision/resnet50+same", 0)
    pool = architectures.build_seeded("torchvision/resnet50+samepool", 0)
    kinds = [type(m) for m in same.modules()]
    # The stem; in three stages the strided 3x3 and the shortcut, which needs no padding.
    assert kinds.count(modifiers.SameConv2d) == 1 + 3 * 2
    assert kinds.count(modifiers.SameMaxPool2d) == 1
    assert not any(isinstance(m, modifiers.SameConv2d) for m in pool.modules())
    assert sum(isinstance(m, modifiers.SameMaxPool2d) for m in pool.modules()) == 1
    assert (
        same.state_dict().keys() == architectures.build_seeded("torchvision/resnet50", 0).state_dict().keys()
    )


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        ("torchvision/resnet18+same", 64),
        ("torchvision/resnet18+samepool", 63),
        ("torchvision/densenet121+grey", 64),
    ],
)
@pytest.mark.parametrize("pack", [False, True])
def test_rewriting_keeps_the_feature(architecture: str, size: int, pack: bool) -> None:
    """Folded, packed and fused as the plain architectures are; the same numbers."""
    module = settle(architectures.build_seeded(architecture, 1))
    x = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(2))
    rewritten, said = fx_fusion.rewrite(module, pack=pack and fx_fusion.can_pack())
    assert said.untraceable == ""
    _, plain = fx_fusion.rewrite(settle(architectures.build_seeded(architecture.partition("+")[0], 1)))
    assert said.folded == plain.folded > 0
    with torch.inference_mode():
        expected = module.double()(x.double())
        torch.testing.assert_close(rewritten(x).double(), expected, rtol=1e-4, atol=1e-4)


def test_grey_is_the_mean_of_the_channels() -> None:
    grey = settle(architectures.build_seeded("torchvision/densenet121+grey", 1))
    plain = settle(architectures.build_seeded("torchvision/densenet121", 2))
    state = grey.state_dict()
    # A third of the weights on each channel is the same linear map.
    state["features.conv0.weight"] = (state["features.conv0.weight"] / 3).repeat(1, 3, 1, 1)
    plain.load_state_dict(state)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)).double()
    with torch.inference_mode():
        torch.testing.assert_close(grey.double()(x), plain.double()(x))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_tokens_of_timm(name: str, pooling: str) -> None:
    timm = pytest.importorskip("timm")
    side = 32 if "16" in name else 28
    full = timm.create_model(name, num_classes=0, img_size=side).eval()
    found = modifiers.apply(full, pooling)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        tokens = full.forward_features(x)
        expected = tokens[:, 0] if pooling == "cls" else tokens[:, -4:].mean(1)  # 2 x 2 patches, at the end
        torch.testing.assert_close(found(x), expected)
    assert architectures.layer(f"timm/{name}+{pooling}")[0] == pooling
    assert architectures.body(found) is full


@pytest.mark.parametrize(
    "architecture",
    [
        "torchvision/resnet18+mean",
        "torchvision/resnet18+cls",
        "torchvision/resnet18+nothing",
        "timm/resnet18+mean",
    ],
)
def test_what_does_not_suit_is_refused(architecture: str) -> None:
    if architecture.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(ModelError):
        architectures.build(architecture)


def test_a_transformer_without_class_token_has_none_to_give() -> None:
    timm = pytest.importorskip("timm")
    with pytest.raises(ModelError, match="no class token"):
        modifiers.apply(
            timm.create_model("vit_tiny_patch16_224", class_token=False, global_pool="avg"), "cls"
        )


def test_variants_have_keys_of_their_own(tmp_path: Path) -> None:
    net = models.resnet50(weights=None)
    path = tmp_path / "w.pth"
    torch.save(net.state_dict(), path)
    small = replace(Recipe(), size=64, crop=64)
    plain, same = (resolve(slug, weights=path, recipe=small) for slug in ("byol", "byol+same"))
    assert plain.weights_sha256 == same.weights_sha256
    assert (plain.architecture, same.architecture) == ("torchvision/resnet50", "torchvision/resnet50+same")
    assert resolve("simclr-v1+same", weights=path).architecture == "torchvision/resnet50+samepool"
    assert isinstance(net.fc, nn.Linear)
