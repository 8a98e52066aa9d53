"""What is no number stays none: rewritten and compiled backbones lose no NaN that the plain module gives."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional

from engine.embed.run import embed
from engine.models import Encoder, resolve
from engine.models.backbones import architectures
from engine.models.checkpoints import weights
from engine.models.forward import fx_fusion, inductor
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank.reader import Bank
from stores.manifest.manifest import Manifest
from tests.engine.models.plain import pictures, settle, trained

pytestmark = pytest.mark.slow

NAN, INF = float("nan"), float("inf")
SIDE = 64
#: Architecture -> side; ReLU, ReLU6, hard swish and sigmoid, sums, concatenations, attention.
ARCHITECTURES = {
    "torchvision/resnet18": SIDE,
    "torchvision/densenet121": SIDE,
    "torchvision/mobilenet_v2": SIDE,
    "torchvision/mobilenet_v3_small": SIDE,
    "torchvision/squeezenet1_1": SIDE,
    "torchvision/vgg11_bn": SIDE,
    "timm/tf_efficientnet_lite0": SIDE,
    "timm/vit_tiny_patch16_224": 224,
}
#: torchvision's VGG has many weights, and no activation or order of layers that the others lack.
NAMES = [
    pytest.param(name, marks=pytest.mark.thorough if name == "torchvision/vgg11_bn" else ())
    for name in ARCHITECTURES
]
#: Every other one of them.
FEWER = [
    pytest.param(name, marks=pytest.mark.thorough if at % 2 else ()) for at, name in enumerate(ARCHITECTURES)
]
needs_packing = pytest.mark.skipif(not fx_fusion.can_pack(), reason="this torch has no oneDNN convolutions")
_built: dict[str, nn.Module] = {}


def _built_once(name: str) -> nn.Module:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    if name not in _built:
        module = architectures.build_seeded(name, 0)
        _built[name] = settle(module) if name.startswith("timm/vit") else trained(module, ARCHITECTURES[name])
    return _built[name]


@contextmanager
def _poisoned(tensor: torch.Tensor, channel: int, value: float) -> Iterator[None]:
    """One channel (the first axis) of a tensor replaced for the body."""
    before = tensor.detach().clone()
    with torch.no_grad():
        tensor.view(len(tensor), -1)[channel % len(tensor)] = value
    try:
        yield
    finally:
        with torch.no_grad():
            tensor.copy_(before)


def _eager(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return module(x.contiguous())


def _rewritten(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    net, _ = fx_fusion.rewrite(module, pack=True)
    with torch.inference_mode():
        return net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))


def _images(side: int) -> torch.Tensor:
    return pictures(2, side).permute(0, 3, 1, 2).float() / 64 - 2


# --- the packed graph -------------------------------------------------------------------------------


@needs_packing
@pytest.mark.parametrize("name", FEWER)
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # a smaller example costs seconds and says no more
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_a_poisoned_channel_spoils_what_it_spoils_in_the_plain_module(name: str, data: st.DataObject) -> None:
    """NaN or infinity in a channel of any tensor, or a variance below zero: the same values are lost."""
    module = _built_once(name)
    tensors = {n: t for n, t in module.state_dict().items() if t.is_floating_point() and t.ndim and t.numel()}
    variances = [n for n in tensors if n.endswith("running_var")]
    kind = data.draw(st.sampled_from(["nan", "inf", "variance"] if variances else ["nan", "inf"]))
    target = data.draw(st.sampled_from(variances if kind == "variance" else sorted(tensors)))
    value = {"nan": NAN, "inf": INF, "variance": -1.0}[kind]
    x = _images(ARCHITECTURES[name])
    with _poisoned(tensors[target], data.draw(st.integers(0, 4095)), value):
        expected, found = _eager(module, x), _rewritten(module, x)
    assert torch.equal(found.isfinite(), expected.isfinite()), (target, kind)


@needs_packing
@pytest.mark.parametrize("name", [n for n in NAMES if n.values[0].startswith("torchvision/")])
def test_the_poison_of_the_issue(name: str) -> None:
    """A variance below zero in the first BatchNorm, or in all: NaN in every feature, as eager says."""
    module = copy.deepcopy(_built_once(name))
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        pytest.skip("no BatchNorm")
    x = _images(SIDE)
    norms[0].running_var[0] = -1
    assert _eager(module, x).isnan().all()
    assert _rewritten(module, x).isnan().all()
    for norm in norms:
        norm.running_var.fill_(-1)
    assert _rewritten(module, x).isnan().all()


@needs_packing
@pytest.mark.parametrize("name", ["torchvision/resnet18", "torchvision/mobilenet_v2"])
def test_finite_numbers_are_those_that_onednn_clips(name: str) -> None:
    """Bit for bit as with the activation inside oneDNN, which banks of earlier versions were made with."""
    module = _built_once(name)
    net, _ = fx_fusion.rewrite(module, pack=True)
    net.to(memory_format=torch.channels_last)
    x = _images(SIDE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = net(x)
        for part in net.modules():
            if isinstance(part, fx_fusion.PackedConv) and part.activation is not None:
                _fuse_within(part)
        assert torch.equal(net(x).view(torch.int32), found.view(torch.int32))


def _fuse_within(part: fx_fusion.PackedConv) -> None:
    relu = part.activation is torch.relu_
    name, scalars = ("relu", []) if relu else ("hardtanh", [0.0, 6.0])
    part.activation = None

    def convolve(x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
        ops, numbers = torch.ops.mkldnn, (part.packed, part.bias, *part.geometry)
        if other is None:
            return ops._convolution_pointwise(x, *numbers, name, scalars, "")
        return ops._convolution_pointwise.binary(x, other, *numbers, "add", 1.0, name, scalars, "")

    part._convolve = convolve  # type: ignore[method-assign]


def test_a_fold_that_leaves_float32_is_not_made() -> None:
    """The convolution gives 1e-5, BatchNorm makes 1e5 of it; folded, the weight would be 1e40."""
    pair = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=1e-20)).eval()
    with torch.no_grad():
        pair[0].weight.fill_(1e30)
        pair[1].running_var.fill_(0)
    x = torch.full((1, 1, 2, 2), 1e-35)
    expected = _eager(pair, x)
    assert expected.isfinite().all()
    net, rewrites = fx_fusion.rewrite(pair)
    assert (rewrites.folded, rewrites.kept) == (0, 1)
    torch.testing.assert_close(_eager(net, x), expected)


# --- the encoder ------------------------------------------------------------------------------------


def _overflowing(name: str) -> nn.Module:
    """All weights are finite. A channel that is bright where the image is, and zero elsewhere, meets numbers
    of both signs that are too large."""
    module = copy.deepcopy(_built_once(name))
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    # ReLU6 clips what overflows before it: there, the layer without an activation must do it.
    last = 2 if name in ("torchvision/mobilenet_v2", "timm/tf_efficientnet_lite0") else 1
    with torch.no_grad():
        for conv, norm in zip(convs[:last], norms[:last], strict=True):
            conv.weight[0] = 1.0
            norm.running_mean[0], norm.running_var[0], norm.weight[0], norm.bias[0] = 0, 1, 1, 0
        part = convs[last].weight[:, 0] if convs[last].groups == 1 else convs[last].weight[0]
        signs = torch.arange(part.numel()) % 2 * 2.0 - 1
        part.copy_(3e38 * signs.reshape(part.shape))
    return module


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "name", [n for n in ARCHITECTURES if n not in ("torchvision/squeezenet1_1", "timm/vit_tiny_patch16_224")]
)
def test_an_image_that_overflows_is_not_finite_and_its_neighbours_are(name: str, precision: str) -> None:
    module = _overflowing(name)
    assert all(t.isfinite().all() for t in module.state_dict().values())
    bright = torch.tensor([0, 1, 0, 0, 1, 0, 1, 0], dtype=torch.bool)
    pixels = torch.where(bright.reshape(-1, 1, 1, 1), 255, 0) * torch.ones(8, SIDE, SIDE, 3)
    pixels = pixels.to(torch.uint8)
    recipe = replace(Recipe(), size=SIDE, crop=SIDE)
    spec = resolve("random/resnet18", recipe=recipe)
    spec = replace(spec, architecture=name, dim=architectures.dimension(name, SIDE))
    encoder = Encoder(spec, Runtime(precision=precision, threads=2), module, weights.LoadReport())  # type: ignore[arg-type]
    found = encoder(pixels)
    x = ((pixels.double() / 255 - torch.tensor(recipe.mean)) / torch.tensor(recipe.sd)).permute(0, 3, 1, 2)
    expected = _eager(module, x.float())
    assert torch.equal((~expected.isfinite()).any(1), bright)
    assert torch.equal((~found.isfinite()).any(1), bright)
    if precision == "fp32":
        assert torch.equal(found.isfinite(), expected.isfinite())


def test_a_run_marks_them_failed(tmp_path: Path) -> None:
    """From weights file to bank: the bright images fail, the dark ones keep their features."""
    path = tmp_path / "w.pth"
    torch.save(_overflowing("torchvision/resnet18").state_dict(), path)
    (tmp_path / "images").mkdir()
    for i in range(6):
        Image.new("RGB", (SIDE, SIDE), "white" if i in (1, 4) else "black").save(
            tmp_path / "images" / f"{i}.png"
        )
    recipe = replace(Recipe(), size=SIDE, crop=SIDE)
    spec = resolve("torchvision/resnet18", weights=path, recipe=recipe)
    (report,) = embed(Manifest.from_folder(tmp_path / "images"), [spec], tmp_path / "bank", runtime=Runtime())
    assert (report.ok, report.failed, report.failures) == (4, 2, {"non_finite": 2})
    features = Bank.open(tmp_path / "bank").features("torchvision/resnet18")
    assert [f.row for f in features.failures()] == [1, 4]


def test_a_dead_network_is_degenerate(tmp_path: Path) -> None:
    """All weights finite, and no image gets through: every feature is zero."""
    module = copy.deepcopy(_built_once("torchvision/resnet18"))
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.bias.data.fill_(-1e6)
    torch.save(module.state_dict(), tmp_path / "w.pth")
    (tmp_path / "images").mkdir()
    Image.fromarray(pictures(1, SIDE)[0].numpy()).save(tmp_path / "images" / "0.png")
    recipe = replace(Recipe(), size=SIDE, crop=SIDE)
    spec = resolve("torchvision/resnet18", weights=tmp_path / "w.pth", recipe=recipe)
    (report,) = embed(Manifest.from_folder(tmp_path / "images"), [spec], tmp_path / "bank", runtime=Runtime())
    assert report.failures == {"degenerate": 1}


# --- compiled ---------------------------------------------------------------------------------------


class _Clips(nn.Module):
    """Every clip that Inductor would give to oneDNN: in convolutions, with a sum, in a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(8 if i else 3, 8, 3, padding=1) for i in range(5))
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c, d, e = self.convs
        y = torch.relu(a(x))
        y = torch.relu(b(y) + y)
        outs = [torch.relu(c(y)), functional.relu6(d(y)), functional.hardsigmoid(e(y))]
        means = [out.mean((2, 3)) for out in outs]
        return torch.cat([*means, torch.relu(self.linear(means[0]))], 1)


def _nan_in_one_branch(net: _Clips, branch: int) -> None:
    with torch.no_grad():
        net.convs[branch].bias[0] = NAN


@pytest.mark.parametrize(
    "spoil",
    [lambda net: None, lambda net: _nan_in_one_branch(net, 0), lambda net: _nan_in_one_branch(net, 3)],
    ids=["sound", "trunk", "relu6"],
)
def test_compiled_graphs_keep_nan(spoil: Callable[[_Clips], None]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _Clips().eval().requires_grad_(False)
    spoil(net)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    x[1, 0, 3, 3] = NAN
    x[2] *= 1e38
    net = net.to(memory_format=torch.channels_last)
    torch._dynamo.reset()
    run = inductor.compile_frozen(net)
    with torch.inference_mode():
        expected = net(x)
        found = run(x.contiguous(memory_format=torch.channels_last))
    assert torch.equal(found.isnan(), expected.isnan())
    assert expected[1].isnan().all()
    torch.testing.assert_close(found, expected, equal_nan=True)
