"""Reconstruction of images: networks several at a time, against the published network in plain torch.

`plain` optimises one network after the other as the study's script does: torch modules, BatchNorm and
upsampling as published, Adam as it comes, an eager backbone. `one` is the evaluation's arithmetic (merged
convolutions, BatchNorm of the backbone folded) on one network at a time; `embank` is the evaluation: networks
side by side on the CPU, one batch on a device. Every way starts from the same parameters and noise. Times are
of an update of one network.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from benchmarks.speed.common import Spread, finish, interleaved, machine, markdown_table, parser, ratio, say
from engine.evals.reconstruction.generator import Architecture, Convolution, Joined, draw_noise
from engine.evals.reconstruction.lane import Lane, Protocol, bytes_of_network
from engine.models import resolve
from engine.models.backbones.feature_maps import spatial_map
from engine.models.forward import windowed_forward
from engine.models.forward.encoder import thread_workers
from engine.models.forward.feature_map import FeatureMap
from engine.normalise import normalise
from engine.recipes import Recipe
from engine.runtime import Runtime, fix_flags, synchronize


def run(
    model: str = "random/resnet50",
    *,
    networks: int = 4,
    updates: int = 3,
    side: int = 224,
    rounds: int = 5,
    device: str = "auto",
    threads: int | None = None,
) -> dict[str, Any]:
    """Time updates of networks by each way.

    Args:
        model: slug.
        networks: optimised. updates: of each, in a round.
        side: of the images, pixels.
        rounds: with each way once.
        device, threads: as for `Runtime.resolve`.

    Returns:
        `{..., bytes_of_network, contenders: {name: {ms_an_update, over_plain}}, largest_loss_error}`; spreads
        {n, median, min, max}; the error is of first losses, relative to `plain`.
    """
    runtime = Runtime.resolve(device, "fp32", threads)
    flags = fix_flags(runtime)
    spec = resolve(model, recipe=Recipe(size=side, crop=side))
    pixels = _images(networks, side)
    encode = FeatureMap(spec, runtime)
    total = updates * (rounds + 1)
    say(f"{model} on {runtime.device}, {networks} networks at {side} pixels")
    plain = _Plain(spec, runtime, pixels)
    ones = [Lane(encode, runtime, Protocol(total), pixels[i : i + 1], [i]) for i in range(networks)]
    ways: dict[str, Callable[[], None]] = {
        "plain": lambda: plain.advance(updates),
        "one": lambda: _advance(ones, updates, runtime),
        "embank": _side_by_side(encode, runtime, pixels, total, updates),
    }
    error = _first_loss_error(plain, ones)
    seconds = interleaved(ways, rounds=rounds)
    a_step = {name: [s / updates / networks for s in times] for name, times in seconds.items()}
    return {
        "model": model,
        "networks": networks,
        "updates": updates,
        "side": side,
        "rounds": rounds,
        "runtime": vars(runtime),
        "flags": flags,
        "machine": machine(),
        "bytes_of_network": bytes_of_network(ones[0]),
        "largest_loss_error": error,
        "contenders": {
            name: {
                "ms_an_update": Spread.of([1e3 * s for s in times]),
                "over_plain": ratio(a_step["plain"], times),
            }
            for name, times in a_step.items()
        },
    }


def _images(count: int, side: int) -> NDArray[np.uint8]:
    """Return smooth images, uint8 [count, side, side, 3]."""
    coarse = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    smooth = functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    images: NDArray[np.uint8] = (
        (smooth * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    )
    return images


def _advance(lanes: Sequence[Lane], updates: int, runtime: Runtime) -> None:
    for lane in lanes:
        for _ in range(updates):
            lane.update()
    synchronize(runtime.device)


def _side_by_side(
    encode: FeatureMap, runtime: Runtime, pixels: NDArray[np.uint8], total: int, updates: int
) -> Callable[[], None]:
    """Return the evaluation's way: one batch on a device, on the CPU as many networks as threads."""
    protocol, count = Protocol(total), len(pixels)
    if runtime.on_cuda:
        batch = Lane(encode, runtime, protocol, pixels, range(count))
        return lambda: _advance([batch], updates, runtime)
    abreast = min(count, runtime.threads)
    lanes = [Lane(encode, runtime, protocol, pixels[i : i + 1], [i]) for i in range(count)]
    pool = thread_workers(abreast, max(1, runtime.threads // abreast))

    def advance() -> None:
        for task in [pool.submit(_advance, [lane], updates, runtime) for lane in lanes]:
            task.result()

    return advance


class _Join(nn.Module):
    """Two branches of one input, joined along channels."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.first(x), self.second(x)], dim=1)


class _Plain:
    """Published networks, one after the other, as a script would have them."""

    def __init__(self, spec: Any, runtime: Runtime, pixels: NDArray[np.uint8]) -> None:
        device, architecture = runtime.torch_device, Architecture()
        backbone = windowed_forward.load(spec).requires_grad_(False).to(device)
        self.runtime, self.side = runtime, pixels.shape[1]
        self._map = spatial_map(spec.architecture, backbone)
        mean, sd = (
            torch.tensor(values).reshape(3, 1, 1).to(device) for values in (spec.recipe.mean, spec.recipe.sd)
        )
        self._mean, self._sd = mean, sd
        seeds, large = range(len(pixels)), architecture.side_for(self.side)
        self._noise = draw_noise(seeds, architecture, large).to(device)
        with torch.no_grad():
            self._targets = self._map(
                normalise(torch.from_numpy(pixels).to(device), spec.recipe).contiguous()
            )
        self._nets = [_published(seed, architecture).to(device) for seed in seeds]
        self._optimizers = [torch.optim.Adam(net.parameters(), lr=1e-3) for net in self._nets]

    def loss(self, network: int) -> torch.Tensor:
        """Compute the loss of one network."""
        image = self._nets[network](self._noise[network : network + 1])[:, :, : self.side, : self.side]
        features = self._map((image - self._mean) / self._sd)
        return functional.mse_loss(features, self._targets[network : network + 1])

    def advance(self, updates: int) -> None:
        """Do some updates of every network."""
        for network, optimizer in enumerate(self._optimizers):
            for _ in range(updates):
                optimizer.zero_grad()
                self.loss(network).backward()
                optimizer.step()
        synchronize(self.runtime.device)


def _published(seed: int, architecture: Architecture) -> nn.Sequential:
    """Build the published network with the parameters that the evaluation draws of this seed."""
    from engine.evals.reconstruction.generator import Generator

    ours = Generator((seed,), architecture)
    convolutions = iter([part for part in ours.modules() if isinstance(part, Convolution | Joined)])
    made: dict[int, nn.Conv2d] = {}

    def block(part: Any, *, pool: bool = False) -> list[nn.Module]:
        own = part.convolution if hasattr(part, "convolution") else part
        _, outputs, inputs, kernel, _ = own.weight.shape
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        with torch.no_grad():
            conv.weight.copy_(own.weight[0])
            conv.bias.copy_(own.bias[0])  # type: ignore[union-attr]
        made[id(own)] = conv
        pooling: list[nn.Module] = [nn.AvgPool2d(2)] if pool else []
        return [conv, *pooling, nn.BatchNorm2d(outputs), nn.LeakyReLU(architecture.slope)]

    def scale(part: Any) -> list[nn.Module]:
        deeper = [] if isinstance(part.deeper, nn.Identity) else scale(part.deeper)
        down = [*block(part.down[0], pool=True), *block(part.down[1]), *deeper, nn.Upsample(scale_factor=2)]
        joined = _Join(nn.Sequential(*block(part.skip)), nn.Sequential(*down))
        channels = part.joined.weight.shape[2]
        return [joined, nn.BatchNorm2d(channels), *block(part.joined), *block(part.up)]

    net = nn.Sequential(*scale(ours.scales), block(ours.last)[0])
    assert all(id(part) in made for part in convolutions)
    return copy.deepcopy(net).train()


def _first_loss_error(plain: _Plain, ones: Sequence[Lane]) -> float:
    with torch.no_grad():
        pairs = [(float(plain.loss(i)), float(lane.loss()[0][0])) for i, lane in enumerate(ones)]
    return max(abs(ours - theirs) / theirs for theirs, ours in pairs)


def _table(result: dict[str, Any]) -> str:
    lines = [
        [name, str(row["ms_an_update"]), str(row["over_plain"])] for name, row in result["contenders"].items()
    ]
    runtime = result["runtime"]
    head = (
        f"{result['model']} on {runtime['device']}, {runtime['threads']} threads; {result['networks']} "
        f"networks at {result['side']} pixels, {result['bytes_of_network'] / 2**20:,.0f} MiB each; "
        f"first losses within {result['largest_loss_error']:.1e}\n\n"
    )
    return head + markdown_table(["how", "ms an update of a network", "times as fast as plain"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parser((__doc__ or "").partition("\n")[0])
    options.add_argument("--model", default="random/resnet50")
    options.add_argument("--networks", type=int, default=4)
    options.add_argument("--updates", type=int, default=3, help="of each network, in a round")
    options.add_argument("--side", type=int, default=224, help="of the images, pixels")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--device", default="auto")
    options.add_argument("--threads", type=int, default=None)
    args = options.parse_args(argv)
    result = run(
        args.model,
        networks=args.networks,
        updates=args.updates,
        side=args.side,
        rounds=args.rounds,
        device=args.device,
        threads=args.threads,
    )
    finish(result, _table(result), args)


if __name__ == "__main__":
    main()
