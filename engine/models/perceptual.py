"""LPIPS, the learned perceptual distance of two images, by the `lpips` package, version 0.1 of its heads.

    R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang: The Unreasonable Effectiveness of Deep Features
    as a Perceptual Metric. CVPR 2018. https://doi.org/10.1109/CVPR.2018.00068, equation 1

The package ships its heads (a weight for each channel of each layer), not the trunks: torchvision's AlexNet,
SqueezeNet 1.1 and VGG-16, supervised on ImageNet. These come from a file, from embank's cache or from
torch.hub's; nothing is downloaded here, and no trunk is left at its random initialisation.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from engine.errors import Refused, WeightsError
from engine.models.backbones import architectures
from engine.models.catalog import lookup
from engine.models.checkpoints import files, weights
from engine.models.checkpoints.checkpoint_cache import Published, cache
from engine.models.checkpoints.sources import LocatedWeights, TorchvisionDefault
from engine.runtime import exact_flags
from stores.json_types import JsonObject

#: Net -> slug of its trunk in the catalogue; the order of nets in results.
SLUGS = {"alex": "supervised-alexnet", "squeeze": "supervised-squeezenet", "vgg": "supervised-vgg16"}
NETS = tuple(SLUGS)
#: Net -> shortest side of an image, in pixels, from which every layer has a feature map.
MIN_SIDE = {"alex": 31, "squeeze": 17, "vgg": 16}
_VERSION = "0.1"


@dataclass(frozen=True)
class Trunk:
    """Weights of a trunk.

    Attributes:
        net: `alex`, `squeeze` or `vgg`.
        text: origin, in words.
        sha256: of the file, hex.
        path: of the file.
        published: whether the file is known to be torchvision's, with which LPIPS is defined; distances by
            another trunk compare with each other alone.
    """

    net: str
    text: str
    sha256: str
    path: Path
    published: bool

    def to_dict(self) -> JsonObject:
        """Return the facts as JSON types, without the path."""
        return {"net": self.net, "text": self.text, "sha256": self.sha256, "published": self.published}


def check_nets(nets: Sequence[str]) -> tuple[str, ...]:
    """Return the nets in the order of `NETS`. Raises Refused: none, an unknown one, or one twice."""
    if not nets or set(nets) - set(NETS) or len(set(nets)) != len(nets):
        raise Refused(
            f"nets {', '.join(nets) or '(none)'}",
            "They are of " + ", ".join(NETS) + ", once",
            "choose of these",
        )
    return tuple(net for net in NETS if net in nets)


def available() -> tuple[str, ...]:
    """Return the nets whose trunk is on this machine, in either cache; opens no connection.

    Raises:
        WeightsError: a trunk in a cache is damaged.
    """
    return tuple(net for net in NETS if _in_cache(net) is not None)


def find_trunks(nets: Sequence[str], own: Mapping[str, Path] | None = None) -> tuple[Trunk, ...]:
    """Find the weights of the nets' trunks: a file, else embank's cache, else torch.hub's.

    Args:
        nets: of `NETS`.
        own: net -> a state dict of the torchvision network, with or without its classifier.

    Raises:
        Refused: a file for a net that is not used.
        WeightsError: some are nowhere (all of these are named), or damaged.
    """
    own = dict(own or {})
    if unused := [net for net in own if net not in nets]:
        raise Refused(f"a trunk for {', '.join(unused)}", "The nets are " + ", ".join(nets), "leave it out")
    trunks = {net: _own(net, own[net]) if net in own else _in_cache(net) for net in nets}
    if missing := [net for net, trunk in trunks.items() if trunk is None]:
        raise _absent(missing)
    return tuple(trunk for trunk in trunks.values() if trunk is not None)


def _own(net: str, file: Path) -> Trunk:
    digest = files.sha256_of(file)
    return Trunk(net, f"file {file.name}", digest, file, digest.startswith(_published(net).expected.sha256))


def _in_cache(net: str) -> Trunk | None:
    located = _cached(net)
    if located is None or located.path is None:
        return None
    return Trunk(net, located.text, located.sha256, located.path, True)


def _absent(nets: Sequence[str]) -> WeightsError:
    """Return the error for trunks that are nowhere."""
    sources = [_published(net) for net in nets]
    steps = ["convert" if source.source.exists() else "fetch" for source in sources]
    commands = [f"`embank models {step} {s.name}`" for step, s in zip(steps, sources, strict=True)]
    return WeightsError(
        f"The trunk of LPIPS {', '.join(nets)} is neither in {cache()} nor in torch's cache",
        "LPIPS needs the ImageNet weights of its trunks, which are fetched once, on request",
        f"{', '.join(commands)}; without a network here, bring {', '.join(s.url for s in sources)} "
        f"and give --trunk {nets[0]}=FILE",
    )


def _published(net: str) -> Published:
    return lookup.published(SLUGS[net])[0]


def _cached(net: str) -> LocatedWeights | None:
    source, architecture = lookup.published(SLUGS[net])
    return source.here(architecture, 0) or TorchvisionDefault().here(architecture, 0)


class PerceptualDistance:
    """LPIPS by several nets, built once; no spatial map, eval mode, float32 without TF32.

    Args:
        nets: of `NETS`.
        device: `cpu` or `cuda:N`.
        trunks: net -> file of its trunk; nets without one are looked for in the caches.

    Attributes:
        nets: in the order of `NETS`.
        device: as given.
        trunks: the weights in use, one a net.

    Raises:
        Refused: an unknown net, or a file for a net that is not used.
        WeightsError: a trunk is nowhere, damaged, or does not fit.
    """

    def __init__(
        self, nets: Sequence[str] = NETS, device: str = "cpu", trunks: Mapping[str, Path] | None = None
    ) -> None:
        self.nets, self.device = check_nets(nets), device
        self.trunks = find_trunks(self.nets, trunks)
        # On the CPU convolutions of few channels are up to twice as fast in this order; not measured on CUDA.
        self._format = torch.channels_last if device == "cpu" else torch.contiguous_format
        self._modules = {trunk.net: self._placed(_build(trunk)) for trunk in self.trunks}

    def distance(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the distances of B pairs of images of one size, as one batch.

        Args:
            a, b: of one kind and shape: uint8 [B, H, W, 3] of 0-255, or floating [B, 3, H, W] of 0-1; RGB.

        Returns:
            net -> float32 [B] on the device; 0 or more, and 0 of identical images.

        Raises:
            Refused: another dtype, shape or range, NaN, or images too small for a net.
        """
        first, second = (self._scaled(images) for images in (a, b))
        if a.dtype != b.dtype or first.shape != second.shape:
            raise Refused(
                f"images {_form(a)} and {_form(b)}", "Both have one dtype and one shape", "make them alike"
            )
        self._check_side(min(first.shape[2:]))
        with torch.inference_mode(), exact_flags():
            return {net: module(first, second).reshape(-1) for net, module in self._modules.items()}

    @staticmethod
    def mean(distances: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the plain mean of the nets' distances, float32 [B]: the study's number for all three."""
        return torch.stack(tuple(distances.values())).mean(0)

    def _placed(self, module: nn.Module) -> nn.Module:
        placed: nn.Module = module.to(self.device, memory_format=self._format)  # type: ignore[call-overload]
        return placed

    def _scaled(self, images: torch.Tensor) -> torch.Tensor:
        """Return images as float32 [B, 3, H, W] of -1 to 1 on the device."""
        images = images.to(self.device)
        if images.dtype == torch.uint8 and images.ndim == 4 and images.shape[3] == 3:
            scaled = images.permute(0, 3, 1, 2).float().div(255).mul(2).sub(1)
            return scaled.contiguous(memory_format=self._format)
        if not (images.is_floating_point() and images.ndim == 4 and images.shape[1] == 3):
            raise Refused(
                f"images {_form(images)}",
                "They are uint8 [B, H, W, 3] or floating [B, 3, H, W]",
                "convert them",
            )
        # Also False for NaN.
        if images.numel() and not bool(((images >= 0) & (images <= 1)).all()):
            low, high = (float(value) for value in images.aminmax())
            raise Refused(f"images with values of {low:g} to {high:g}", "Floating ones are 0-1", "scale them")
        return images.float().mul(2).sub(1).contiguous(memory_format=self._format)

    def _check_side(self, side: int) -> None:
        needed = max(self.nets, key=lambda net: MIN_SIDE[net])
        if side < MIN_SIDE[needed]:
            raise Refused(
                f"images with a side of {side} pixels",
                f"LPIPS {needed} needs {MIN_SIDE[needed]} pixels or more",
                "enlarge them",
            )


def _form(images: torch.Tensor) -> str:
    return f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"


def _build(trunk: Trunk) -> nn.Module:
    """Build the package's own module and fill it with the trunk and the package's heads."""
    import lpips

    # Without values, which the package would draw or download; torchvision calls its arguments outdated.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        module: nn.Module = lpips.LPIPS(
            net=trunk.net, version=_VERSION, pretrained=False, pnet_rand=True, verbose=False
        )
    scaling: nn.Module = lpips.ScalingLayer()
    module.scaling_layer = scaling
    heads = torch.load(
        Path(lpips.__file__).parent / "weights" / f"v{_VERSION}" / f"{trunk.net}.pth",
        map_location="cpu",
        weights_only=True,
    )
    features = _features(trunk)
    state = dict(scaling.state_dict(prefix="scaling_layer."))
    for name in module.state_dict():
        part, _, rest = name.partition(".")
        if part == "net":  # slice2.3.weight is the network's features.3.weight
            state[name] = features["features." + rest.partition(".")[2]]
        elif part == "lins":  # the same modules as lin0, lin1, ...
            state[name] = heads["lin" + rest]
        elif part.startswith("lin"):
            state[name] = heads[name]
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def _features(trunk: Trunk) -> dict[str, torch.Tensor]:
    """Read the trunk's tensors, complete and finite, under torchvision's names."""
    architecture = lookup.published(SLUGS[trunk.net])[1]
    with torch.device("meta"):
        body = architectures.build(architecture)
    body.to_empty(device="cpu")
    loaded = weights.read(trunk.path, trunk.sha256)
    weights.fit(body, loaded, architectures.head_prefixes(architecture), str(trunk.path))
    return {name: tensor.float() for name, tensor in body.state_dict().items()}
