"""The generator of a deep image prior: several independent networks, computed as one.

Encoder and decoder with skip connections, as Ulyanov et al. invert features with it (Deep Image Prior, CVPR
2018, doi:10.1109/CVPR.2018.00984), and Anton et al. after them (J. Imaging 2022, 8, 320,
doi:10.3390/jimaging8120320). A network has one input, and BatchNorm always takes the statistics of it.

N networks are one module: activations are [N, C, H, W], each convolution has N groups, and BatchNorm sees one
image of N x C channels, so that no number of one network depends on another network.
"""

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

#: Side of a kernel from which it is merged with the pooling after it, or the enlargement before it.
MERGED = 5
#: Upper end of the noise that a network makes an image of.
NOISE = 0.1


@dataclass(frozen=True)
class Architecture:
    """Sizes of a network; the defaults are the study's.

    Attributes:
        channels: of the scales, downwards and upwards. kernels: sides of the convolutions of the scales.
        skip: channels of the skip connections. depth: channels of the input.
        slope: of the leaky ReLU below 0.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128, 128, 128)
    kernels: tuple[int, ...] = (7, 7, 5, 5, 3, 3)
    skip: int = 4
    depth: int = 32
    slope: float = 0.2

    @property
    def multiple(self) -> int:
        """The side of an input is a multiple of this, because each scale halves it."""
        return 1 << len(self.channels)

    def side_for(self, side: int) -> int:
        """Return the side of the input for an output that covers `side` pixels: 256 for 224.

        The deepest maps are at least 2 x 2, because BatchNorm needs more than one value.
        """
        return max(2, -(-side // self.multiple)) * self.multiple


class Convolution(nn.Module):
    """N convolutions of their own, zero padded, with bias; perhaps followed by 2 x 2 average pooling.

    The mean of four neighbours of a convolution is one convolution of stride 2, whose kernel is the mean of
    four shifted kernels: at 7 x 7 it multiplies 64 times for a pixel instead of 4 x 49 times.
    """

    def __init__(self, networks: int, inputs: int, outputs: int, kernel: int, *, pool: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(networks, outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(networks, outputs))
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute [N, C, H, W] -> [N, D, H, W], or half of both sides with pooling."""
        kernel = self.weight.shape[-1]
        if self.pool and kernel >= MERGED:
            return grouped(x, pooling_kernel(self.weight), self.bias, padding=kernel // 2, stride=2)
        y = grouped(x, self.weight, self.bias, padding=kernel // 2)
        return functional.avg_pool2d(y, 2) if self.pool else y


class Joined(nn.Module):
    """N convolutions of a skip connection [N, A, H, W] beside deeper maps [N, B, H / 2, W / 2] made larger.

    Nearest neighbours repeat each value in a 2 x 2 square, of whose four pixels each sees a fixed set of
    deeper values: one convolution of the deeper maps with four times the outputs gives all of them. At 7 x 7
    it multiplies 25 times for a pixel instead of 49 times, and the larger maps are never made.
    """

    def __init__(self, networks: int, skip: int, deeper: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(networks, outputs, skip + deeper, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(networks, outputs))
        self.skip = skip

    def forward(self, skip: torch.Tensor, deeper: torch.Tensor) -> torch.Tensor:
        """Compute [N, D, H, W]."""
        kernel = self.weight.shape[-1]
        if kernel < MERGED:
            larger = functional.interpolate(deeper, scale_factor=2.0, mode="nearest")
            return grouped(torch.cat([skip, larger], 1), self.weight, self.bias, padding=kernel // 2)
        here, below = self.weight[:, :, : self.skip], phase_kernels(self.weight[:, :, self.skip :])
        phases = grouped(deeper, below, None, padding=below.shape[-1] // 2)
        return functional.pixel_shuffle(phases, 2) + grouped(skip, here, self.bias, padding=kernel // 2)


def grouped(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, padding: int, stride: int = 1
) -> torch.Tensor:
    """Convolve each network's [C, H, W] with its own kernel.

    Args:
        x: [N, C, H, W]. weight: [N, D, C, k, k]. bias: [N, D].

    Returns:
        [N, D, H', W'].
    """
    networks, outputs = weight.shape[:2]
    merged, kernels = x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1)
    y = functional.conv2d(
        merged, kernels, None if bias is None else bias.flatten(), stride, padding, groups=networks
    )
    return y.reshape(networks, outputs, *y.shape[2:])


def pooling_kernel(weight: torch.Tensor) -> torch.Tensor:
    """Return the kernels [..., k + 1, k + 1] of stride 2 that convolve and average 2 x 2 pixels at once."""
    wide = functional.pad(weight, (1, 1, 1, 1))
    rows = wide[..., 1:, :] + wide[..., :-1, :]
    return (rows[..., 1:] + rows[..., :-1]) * 0.25


def phase_kernels(weight: torch.Tensor) -> torch.Tensor:
    """Return kernels on maps before they are doubled by nearest neighbours.

    Pixel 2 i + p of the doubled map has value floor((2 i + p) / 2) of the map, so that tap d of a kernel at
    this pixel sees value i + floor((p + d) / 2).

    Args:
        weight: [N, D, C, k, k], k odd.

    Returns:
        [N, 4 D, C, m, m], outputs in the order of `torch.nn.functional.pixel_shuffle`.
    """
    networks, outputs, inputs, kernel, _ = weight.shape
    place = _places(kernel).to(weight)
    phases = torch.einsum("noiab,pac,qbd->nopqicd", weight, place, place)
    return phases.reshape(networks, 4 * outputs, inputs, *phases.shape[-2:])


@functools.lru_cache(maxsize=8)
def _places(kernel: int) -> torch.Tensor:
    """Return where each tap of a kernel lands, one-hot float32 [2 phases, k, m]."""
    before = kernel // 2
    reach = (before + 1) // 2
    place = torch.zeros(2, kernel, 2 * reach + 1)
    for phase in (0, 1):
        for tap in range(kernel):
            place[phase, tap, (phase + tap - before) // 2 + reach] = 1
    return place


class Norm(nn.Module):
    """BatchNorm in train mode of N networks with one image each: statistics over the pixels of a channel."""

    def __init__(self, networks: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(networks, channels))
        self.bias = nn.Parameter(torch.zeros(networks, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise [N, C, H, W]."""
        merged = x.reshape(1, -1, *x.shape[2:])
        scale, shift = self.weight.flatten(), self.bias.flatten()
        return functional.batch_norm(merged, None, None, scale, shift, training=True).reshape(x.shape)


class Block(nn.Module):
    """Convolution, BatchNorm and leaky ReLU."""

    def __init__(
        self, networks: int, inputs: int, outputs: int, kernel: int, slope: float, *, pool: bool = False
    ) -> None:
        super().__init__()
        self.convolution = Convolution(networks, inputs, outputs, kernel, pool=pool)
        self.norm, self.slope = Norm(networks, outputs), slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute [N, C, H, W] -> [N, D, H, W]."""
        return functional.leaky_relu(self.norm(self.convolution(x)), self.slope)


class Scale(nn.Module):
    """One scale: down, whatever is deeper, up by nearest neighbours, joined with the skip connection.

    BatchNorm comes after the maps are made larger in the published network. Repeated values change no mean
    and no variance of a channel, so that it is computed before.
    """

    def __init__(self, networks: int, architecture: Architecture, position: int) -> None:
        super().__init__()
        channels, kernel, slope = architecture.channels, architecture.kernels[position], architecture.slope
        inputs = channels[position - 1] if position else architecture.depth
        outputs, last = channels[position], position == len(channels) - 1
        below = outputs if last else channels[position + 1]
        self.slope = slope
        self.skip = Block(networks, inputs, architecture.skip, 1, slope)
        self.down = nn.Sequential(
            Block(networks, inputs, outputs, kernel, slope, pool=True),
            Block(networks, outputs, outputs, kernel, slope),
        )
        self.deeper = nn.Identity() if last else Scale(networks, architecture, position + 1)
        self.skip_norm, self.deeper_norm = Norm(networks, architecture.skip), Norm(networks, below)
        self.joined = Joined(networks, architecture.skip, below, outputs, kernel)
        self.joined_norm = Norm(networks, outputs)
        self.up = Block(networks, outputs, outputs, 1, slope)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute [N, C, H, W] -> [N, D, H, W]."""
        deeper = self.deeper_norm(self.deeper(self.down(x)))
        joined = self.joined_norm(self.joined(self.skip_norm(self.skip(x)), deeper))
        result: torch.Tensor = self.up(functional.leaky_relu(joined, self.slope))
        return result


class Generator(nn.Module):
    """N networks from noise to images; parameters are [N, ...], those of network i at position i.

    Args:
        seeds: of the networks' first parameters, one each; convolutions are drawn as torch draws them,
            uniform within 1 / sqrt(fan in), BatchNorm starts as the identity.
        architecture: their sizes.
    """

    def __init__(self, seeds: Sequence[int], architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.scales = Scale(len(seeds), architecture, 0)
        self.last = Convolution(len(seeds), architecture.channels[0], 3, 1)
        for position, seed in enumerate(seeds):
            self._draw(position, stream("parameters", seed))

    def _draw(self, position: int, numbers: torch.Generator) -> None:
        with torch.no_grad():
            for part in self.modules():
                if isinstance(part, Convolution | Joined):
                    weight = part.weight[position]
                    bound = 1 / math.sqrt(weight[0].numel())
                    weight.uniform_(-bound, bound, generator=numbers)
                    part.bias[position].uniform_(-bound, bound, generator=numbers)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """Compute images, float [N, 3, H, W] without bounds, of noise [N, depth, H, W]."""
        images: torch.Tensor = self.last(self.scales(noise))
        return images


def draw_noise(seeds: Sequence[int], architecture: Architecture, side: int) -> torch.Tensor:
    """Draw the fixed inputs of networks, uniform in [0, `NOISE`): float32 [N, depth, side, side]."""
    noise = torch.empty(len(seeds), architecture.depth, side, side)
    for position, seed in enumerate(seeds):
        noise[position].uniform_(0, NOISE, generator=stream("noise", seed))
    return noise


def stream(purpose: str, seed: int) -> torch.Generator:
    """Return random numbers that depend on their purpose and a seed alone, always on the CPU."""
    digest = hashlib.sha256(f"embank reconstruction 1 {purpose} {seed}".encode("ascii")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
