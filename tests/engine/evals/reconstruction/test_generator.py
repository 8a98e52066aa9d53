"""The generator, N networks as one, against the published network in plain torch, one at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from engine.evals.reconstruction.generator import (
    NOISE,
    Architecture,
    Generator,
    draw_noise,
    phase_kernels,
    pooling_kernel,
)
from tests.engine.evals.reconstruction.networks import SMALL, backbone, fill
from tests.oracles.skip_network import skip_network

SEEDS = (3, 11)


def plain_of(generator: Generator, network: int) -> torch.nn.Sequential:
    own = generator.architecture
    plain = skip_network(own.channels, own.kernels, own.skip, own.depth).double()
    fill(plain, generator, network)
    return plain


def test_each_network_follows_a_plain_one_step_for_step_under_adam() -> None:
    side, encode = 24, backbone().double()
    noise = draw_noise(SEEDS, SMALL, SMALL.side_for(side)).double()
    generator = Generator(SEEDS, SMALL).double()
    # Targets of different sizes: a gradient that leaked from one network to the other would show.
    targets = torch.rand(2, 12, 5, 5, dtype=torch.float64) * torch.tensor([1.0, 30.0])[:, None, None, None]
    plain = [plain_of(generator, network) for network in range(2)]
    ours = torch.optim.Adam(generator.parameters(), lr=1e-3)
    theirs = [torch.optim.Adam(net.parameters(), lr=1e-3) for net in plain]
    for _ in range(6):
        losses = (encode(generator(noise)[:, :, :side, :side]) - targets).square().flatten(1).mean(1)
        ours.zero_grad()
        losses.sum().backward()
        ours.step()
        for network, (net, optimizer) in enumerate(zip(plain, theirs, strict=True)):
            image = net(noise[network : network + 1])[:, :, :side, :side]
            loss = functional.mse_loss(encode(image), targets[network : network + 1])
            assert losses[network].item() == pytest.approx(loss.item(), rel=1e-7)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        for network, net in enumerate(plain):
            torch.testing.assert_close(
                generator(noise)[network : network + 1],
                net(noise[network : network + 1]),
                rtol=1e-6,
                atol=1e-8,
            )


def test_the_published_network_has_the_published_sizes() -> None:
    plain, ours = skip_network(), Generator((0,), Architecture())
    fill(plain, ours, 0)  # every shape agrees
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in plain.parameters())
    assert [Architecture().side_for(side) for side in (224, 256, 32, 320, 518)] == [256, 256, 128, 320, 576]
    noise = draw_noise((0,), Architecture(), 128)
    assert noise.shape == (1, 32, 128, 128) and noise.min() >= 0 and noise.max() < NOISE
    assert noise.mean() == pytest.approx(NOISE / 2, rel=0.01)
    with torch.no_grad():
        torch.testing.assert_close(ours.double()(noise.double()), plain.double()(noise.double()))


def test_parameters_start_as_torch_draws_them_and_depend_on_their_seed_alone() -> None:
    together, alone = Generator((4, 9), SMALL), Generator((9,), SMALL)
    for ours, theirs in zip(together.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours[1], theirs[0])
    published = Generator((0,), Architecture())
    weight = published.scales.deeper.down[1].convolution.weight.detach().flatten()
    bound = 1 / math.sqrt(32 * 49)  # torch.nn.Conv2d: kaiming_uniform_ with a = sqrt(5)
    assert weight.abs().max() <= bound and weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert torch.equal(draw_noise((4, 9), SMALL, 16)[1], draw_noise((9,), SMALL, 16)[0])
    assert not torch.equal(together.last.weight[0], together.last.weight[1])


@given(kernel=st.sampled_from([1, 3, 5, 7, 9]), height=st.integers(1, 6), width=st.integers(1, 6))
@settings(max_examples=25)
def test_merged_kernels_equal_pooling_after_and_enlarging_before(
    kernel: int, height: int, width: int
) -> None:
    numbers = torch.Generator().manual_seed(kernel * 100 + height * 10 + width)
    weight = torch.randn(1, 3, 2, kernel, kernel, generator=numbers, dtype=torch.float64)
    x = torch.randn(1, 2, 2 * height, 2 * width, generator=numbers, dtype=torch.float64)
    pooled = functional.avg_pool2d(functional.conv2d(x, weight[0], padding=kernel // 2), 2)
    merged = functional.conv2d(x, pooling_kernel(weight)[0], padding=kernel // 2, stride=2)
    torch.testing.assert_close(merged, pooled)
    low = torch.randn(1, 2, height, width, generator=numbers, dtype=torch.float64)
    larger = functional.interpolate(low, scale_factor=2.0, mode="nearest")
    phases = phase_kernels(weight)[0]
    found = functional.pixel_shuffle(functional.conv2d(low, phases, padding=phases.shape[-1] // 2), 2)
    torch.testing.assert_close(found, functional.conv2d(larger, weight[0], padding=kernel // 2))
