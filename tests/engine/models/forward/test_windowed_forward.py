"""Features of images that differ in a window: what plain forward passes of the whole images give."""

import copy

import pytest
import torch
from torch import nn

from engine.models.backbones import architectures
from engine.models.forward import fx_fusion, receptive_field, windowed_forward
from engine.runtime import Runtime
from tests.engine.models.plain import settle, trained

pytestmark = pytest.mark.slow

CPU = Runtime("cpu", "fp32", 1)
SIDE = 67  # on the way down 34, 17, 9, 5, 3: even and odd


def _images(side: int = SIDE) -> torch.Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def _patches(image: torch.Tensor, top: int, left: int, size: int) -> torch.Tensor:
    """Three different contents of a window."""
    generator = torch.Generator().manual_seed(top + left)
    patch = image[:, :, top : top + size, left : left + size].expand(3, -1, -1, -1).clone()
    patch[1:] = torch.randn(2, *patch.shape[1:], generator=generator)
    return patch


def _plain(
    module: nn.Module, image: torch.Tensor, top: int, left: int, patches: torch.Tensor
) -> torch.Tensor:
    """One forward pass after the other, in float64."""
    whole = _whole(image, top, left, patches)
    wide = copy.deepcopy(module).double()
    with torch.inference_mode():
        return torch.cat([wide(each[None]) for each in whole.double()])


def _whole(image: torch.Tensor, top: int, left: int, patches: torch.Tensor) -> torch.Tensor:
    whole = image.expand(len(patches), -1, -1, -1).clone()
    whole[:, :, top : top + patches.shape[2], left : left + patches.shape[3]] = patches
    return whole


#: Architecture -> pieces of known reach: counted in the architectures. Swin's patches are one convolution.
PIECES = {
    "torchvision/resnet18": 2 + 8,
    "torchvision/resnet50": 2 + 16,
    "torchvision/densenet121": 9,
    "torchvision/mobilenet_v2": 18,
    "timm/tf_efficientnet_lite0": 17,
    "torchvision/swin_t": 1,
    "torchvision/googlenet": 0,
}


#: Built like another one of these, or by modules that the others have, too.
ALIKE = ("torchvision/resnet50", "torchvision/mobilenet_v2", "torchvision/googlenet")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.thorough if n in ALIKE else ()) for n in PIECES]
)
def test_window_forward_equals_whole_forward_passes(name: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    module = trained(architectures.build_seeded(name, 0), SIDE)
    net, image = windowed_forward.WindowedForward(module, CPU, SIDE), _images()
    assert (len(net._pieces), net.shares) == (PIECES[name], PIECES[name] > 0)
    base = net.base(image)
    scale = float(base.feature.norm())
    places = [(0, 0, 10), (57, 57, 10), (31, 28, 7), (0, 0, SIDE)]
    changed = [_patches(image, *place) for place in places]
    whole = torch.cat(
        [_whole(image, top, left, each) for (top, left, _), each in zip(places, changed, strict=True)]
    )
    with torch.inference_mode():
        truth = copy.deepcopy(module).double()(whole.double())
    for (top, left, _), patches, expected in zip(places, changed, truth.split(3), strict=True):
        found = base.features(top, left, patches.clone()).double()
        assert float((found - expected).norm(dim=1).max()) <= 2e-5 * scale
        # The first patch is the image's own.
        assert float((found[0] - base.feature).norm()) <= 2e-6 * scale
    assert float((net.base(image).feature - base.feature).norm()) == 0  # nothing was written over


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "packed"])
def test_resnet_shares_all_its_blocks(pack: bool) -> None:
    net, _ = fx_fusion.rewrite(settle(architectures.build_seeded("torchvision/resnet18", 0)), pack=pack)
    pieces, _ = receptive_field.split(net)
    if pack and not fx_fusion.can_pack():
        pytest.skip("this torch has no oneDNN convolutions")
    # The stem's convolution and pooling, then eight blocks; the first of each later stage has stride 2.
    assert [piece.field[0].stride for piece in pieces] == [2, 2, 1, 1, 2, 1, 2, 1, 2, 1]


def test_only_the_window_s_reach_is_computed() -> None:
    module = settle(architectures.build_seeded("torchvision/resnet18", 0))
    net, image = windowed_forward.WindowedForward(module, CPU, 242), torch.zeros(1, 3, 242, 242)
    base, seen = net.base(image), []
    for piece in net._pieces:
        piece.module.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    base.features(100, 100, torch.ones(2, 3, 10, 10))
    # conv1's outputs 49 to 56 see pixels 100 to 109 and need 95 to 115, from an even one on; and so forth.
    assert seen[0] == (22, 22)
    # Pooling's outputs 24 to 28; two 3 x 3 convolutions change 2 more on each side and read 2 beyond these.
    assert seen[2] == (5 + 4 + 4,) * 2
    assert max(seen[4]) < 30  # of layer 2's 61 places


def _by_force(module: nn.Module, size: int) -> list[set[int]]:
    """Which inputs each output of a one-dimensional-like layer depends on, by gradients."""
    x = torch.zeros(1, 1, size, 1).normal_(generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = module(x)
    found = []
    for o in range(y.shape[2]):
        (grad,) = torch.autograd.grad(y[0, 0, o, 0], x, retain_graph=True)
        found.append(set(torch.nonzero(grad.flatten()).flatten().tolist()))
    return found


@pytest.mark.parametrize(
    "layers",
    [
        [(3, 1, 1, 1)],
        [(7, 2, 3, 1), (3, 2, 1, 1)],
        [(3, 2, 1, 1), (1, 1, 0, 1), (3, 1, 2, 2), (2, 2, 0, 1)],
        [(5, 3, 0, 1), (3, 1, 1, 1)],
    ],
)
def test_reach_equals_what_gradients_show(layers: list[tuple[int, int, int, int]]) -> None:
    convs = [
        nn.Conv2d(1, 1, (k, 1), (s, 1), (p, 0), (d, 1), bias=False).requires_grad_(False)
        for k, s, p, d in layers
    ]
    for conv in convs:
        conv.weight.fill_(1.0)
    whole = receptive_field.AxisField()
    for conv in convs:
        found = receptive_field.of_module(conv)
        assert found is not None
        whole = whole.then(found[0])
    size = 40
    depends = _by_force(nn.Sequential(*convs), size)
    for o, inputs in enumerate(depends):
        low, high = o * whole.stride - whole.before, o * whole.stride + whole.after
        assert inputs <= set(range(max(low, 0), min(high + 1, size)))
        assert min(inputs) == max(low, 0) or whole.before  # tight where nothing is skipped
    for first, stop in [(0, 1), (5, 9), (38, 40)]:
        low, high = whole.affected_outputs(first, stop, len(depends))
        outside = [o for o in range(len(depends)) if not low <= o < high]
        assert all(depends[o].isdisjoint(range(first, stop)) for o in outside)


def test_batch_norm_of_each_image_equals_train_mode_with_a_batch_of_one() -> None:
    module = trained(architectures.build_seeded("torchvision/resnet18", 0), SIDE)
    net, image = windowed_forward.WindowedForward(module, CPU, SIDE, per_image_norm=True), _images()
    patches = _patches(image, 20, 30, 10)
    expected = _plain(copy.deepcopy(module).train(), image, 20, 30, patches)
    found = net.base(image).features(20, 30, patches).double()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    eval_mode = _plain(module, image, 20, 30, patches)
    assert float((found - eval_mode).abs().max()) > 0.01  # another thing altogether
    assert not net._pieces or net._pieces[0].field[0].stride == 2  # statistics see the whole map


def test_bf16_is_close_and_repeatable() -> None:
    module = trained(architectures.build_seeded("torchvision/resnet18", 0), SIDE)
    net, image = windowed_forward.WindowedForward(module, Runtime("cpu", "bf16", 1), SIDE), _images()
    patches = _patches(image, 20, 30, 10)
    base = net.base(image)
    found = base.features(20, 30, patches.clone())
    assert found.dtype == torch.float32
    assert torch.equal(found, base.features(20, 30, patches.clone()))
    expected = _plain(module, image, 20, 30, patches)
    error = float((found - expected).norm() / expected.norm())
    assert 1e-5 < error < 0.03


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["torchvision/resnet50", "torchvision/densenet121"])
def test_cuda_equals_whole_forward_passes_in_float64(name: str) -> None:
    module = trained(architectures.build_seeded(name, 0), SIDE)
    runtime = Runtime("cuda:0", "fp32", 1)
    net, image = windowed_forward.WindowedForward(module, runtime, SIDE), _images()
    base = net.base(image.cuda())
    for top, left in [(0, 0), (33, 28), (65, 65)]:
        patches = _patches(image, top, left, 10)
        expected = _plain(module, image, top, left, patches)
        found = base.features(top, left, patches.cuda()).cpu().double()
        assert float((found - expected).norm(dim=1).max()) <= 2e-5 * float(expected.norm())
