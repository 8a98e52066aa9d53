"""The rewrites: exact where they apply, absent where they must not."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.ops.misc import FrozenBatchNorm2d

from engine.models.backbones import architectures
from engine.models.forward import fx_fusion
from tests.engine.models.plain import settle

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
needs_packing = pytest.mark.skipif(not fx_fusion.can_pack(), reason="this torch has no oneDNN convolutions")


def _run(module: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    with torch.inference_mode():
        return module(x.contiguous(memory_format=torch.channels_last))


def _exact(module: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    with torch.inference_mode():
        return copy.deepcopy(module).double()(x.double())


def _same(module: nn.Module, pack: bool, x: torch.Tensor = X) -> fx_fusion.Rewrites:
    module = settle(module)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    found, rewrites = fx_fusion.rewrite(module, pack=pack)
    expected = _exact(module, x)
    for _ in range(2):  # in-place sums must not change a second call
        result = _run(found, x).double()
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max() + 1))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    return rewrites


def test_folding_equals_the_two_steps_in_float64() -> None:
    conv = nn.Conv2d(3, 8, 3, bias=True, groups=1)
    norm = settle(nn.BatchNorm2d(8))
    pair = nn.Sequential(conv, norm).eval()
    expected = _exact(pair)
    fx_fusion.fold_pair(conv, norm)  # type: ignore[arg-type]
    torch.testing.assert_close(_run(conv).double(), expected, rtol=1e-6, atol=1e-6)


#: name -> batch norms folded, convolutions, activations fused, sums fused; counted in the architectures
COUNTS = {
    "resnet18": (20, 20, 17, 8),
    "resnet50": (53, 53, 49, 16),
    "densenet121": (59, 120, 59, 0),
    "mobilenet_v2": (52, 52, 35, 10),
    "vgg11_bn": (8, 8, 8, 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("pack", [False, pytest.param(True, marks=needs_packing)], ids=["fold", "pack"])
@pytest.mark.parametrize("name", COUNTS)
def test_real_architectures(name: str, pack: bool) -> None:
    module = architectures.build_seeded(f"torchvision/{name}", 0)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    rewrites = _same(module, pack, x)
    folded, *rest = COUNTS[name]
    assert rewrites.folded == folded
    assert (rewrites.packed, rewrites.activations, rewrites.sums) == (tuple(rest) if pack else (0, 0, 0))
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())
    assert rewrites.kept == norms - folded


@pytest.mark.slow
@needs_packing
def test_timm_modules_fold() -> None:
    pytest.importorskip("timm")
    module = architectures.build_seeded("timm/tf_efficientnet_lite0", 0)
    rewrites = _same(module, True, torch.randn(2, 3, 65, 65, generator=torch.Generator().manual_seed(2)))
    assert (rewrites.folded, rewrites.kept, rewrites.sums) == (49, 0, 9)


class _Twice(nn.Module):
    """One convolution called twice: folding either BatchNorm would change the other path."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(self.conv(x)) + self.b(self.conv(x * 2))


class _Shared(nn.Module):
    """The convolution's own output is used besides its BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) * y


class _Later(nn.Module):
    """The other summand is read again after the sum: it must not be overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        other = self.a(x)
        summed = torch.relu(self.b(x) + other)
        return summed * other


class _LaterConv(nn.Module):
    """The other summand is read again by a convolution after the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        other = self.a(x)
        summed = torch.relu(self.b(x) + other)
        return summed * self.c(other)


class _Input(nn.Module):
    """The other summand is the caller's tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.a(x) + x)


class _Chain(nn.Module):
    """A convolution summed with itself, a scaled sum, and a sum of three."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.a(x)
        doubled = a + a
        scaled = torch.add(self.b(doubled), doubled, alpha=3)
        return self.c(scaled) + doubled + scaled


class _Strange(nn.Module):
    """Paddings that are words, and another border."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 3, 3, padding="same")
        self.b = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
        self.c = nn.Conv2d(3, 4, (3, 1), stride=(2, 1), dilation=(1, 2), padding=(1, 0), bias=False)
        self.norm = nn.BatchNorm2d(4, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.norm(self.c(self.b(self.a(x)))))


class _Aliased(nn.Module):
    """A view of the other summand is read after the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        other = self.a(x)
        view = other[:, :1]
        summed = self.b(x) + other
        return summed * view


class _Itself(nn.Module):
    """The other summand is the convolution's input as well."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.a(x))
        return torch.relu(self.b(y) + y)


class _Block(nn.Module):
    """Two residual blocks, in which writing in place is right."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.a(x))
        y = torch.relu(self.c(torch.relu(self.b(y))) + y)
        return torch.relu(y + self.d(torch.relu(self.b(y))))


class _Branch(nn.Module):
    """Control flow on the values, which no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        return y if y.sum() > 0 else -y


@pytest.mark.parametrize("pack", [False, pytest.param(True, marks=needs_packing)], ids=["fold", "pack"])
@pytest.mark.parametrize(
    ("module", "folded"),
    [
        (_Twice, 0),
        (_Shared, 0),
        (_Later, 0),
        (_LaterConv, 0),
        (_Input, 0),
        (_Chain, 0),
        (_Strange, 1),
        (_Aliased, 0),
        (_Itself, 0),
        (_Block, 0),
        (_Branch, 0),
    ],
)
def test_awkward_modules_keep_their_meaning(module: type[nn.Module], folded: int, pack: bool) -> None:
    x = X.clone()
    rewrites = _same(module(), pack, x)
    assert rewrites.folded == folded
    assert torch.equal(x, X)
    assert bool(rewrites.untraceable) == (module is _Branch)


@pytest.mark.slow
@needs_packing
def test_sums_are_written_in_place_where_that_is_safe() -> None:
    resnet, _ = fx_fusion.rewrite(architectures.build_seeded("torchvision/resnet18", 0), pack=True)
    convs = [m for m in resnet.modules() if isinstance(m, fx_fusion.PackedConv) and m.adds]
    # The first block adds the max-pool's result, which is not a convolution's.
    assert [m.adds_in_place for m in convs] == [False] + [True] * 7
    later, _ = fx_fusion.rewrite(_Later().eval(), pack=True)
    assert not any(m.adds_in_place for m in later.modules() if isinstance(m, fx_fusion.PackedConv))


def test_frozen_norms_of_other_kinds_stay() -> None:
    assert _same(nn.Sequential(nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4)), False).folded == 0


def test_the_last_pooling_runs_in_float32() -> None:
    plain = settle(models.resnet18(weights=None))
    plain.fc = nn.Identity()
    found, rewrites = fx_fusion.rewrite(plain, float_pool=True)
    assert rewrites.float_pool
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert plain(torch.randn(1, 3, 32, 32)).dtype == torch.bfloat16
        assert found(torch.randn(1, 3, 32, 32)).dtype == torch.float32
