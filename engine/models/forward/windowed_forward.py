"""Features of many images that differ from one image inside a window only.

An early layer sees little of the image at a time, so outside the window's reach its output is the one
image's own. Each piece of the network is run on the part that may have changed, with the margin it needs,
and the result is put into the one image's feature map. Where the reach covers the whole map, and in networks
of which the reach is not known (attention, squeeze and excitation), this is the plain forward pass.

Exact up to rounding: every value is computed from the same numbers by the same operations, but a library may
sum a convolution in another order for another size of map.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.models.catalog.lookup import ModelSpec
from engine.models.forward import encoder, fx_fusion, receptive_field
from engine.runtime import Runtime, autocast

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Window:
    """A rectangle of a feature map: rows from `top` up to `bottom`, columns from `left` up to `right`."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def empty(self) -> bool:
        return self.top >= self.bottom or self.left >= self.right

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """The part of x [B, C, H, W] inside, as a view."""
        return x[:, :, self.top : self.bottom, self.left : self.right]

    def seen_from(self, top: int, left: int) -> "Window":
        """The same rectangle, counted from another corner."""
        return Window(self.top - top, self.bottom - top, self.left - left, self.right - left)

    def covers(self, other: "Window") -> bool:
        rows = self.top <= other.top and other.bottom <= self.bottom
        return rows and self.left <= other.left and other.right <= self.right


def load(spec: ModelSpec) -> nn.Module:
    """A backbone with its weights, as `LocalForward` takes it.

    Raises:
        ModelError, WeightsError: as `encoder.load`.
    """
    return encoder._with_weights(spec)[0].eval()


class LocalForward:
    """A frozen backbone, cut into pieces.

    Args:
        module: headless backbone in eval mode, float32 [B, 3, S, S] -> [B, d]; left alone.
        runtime: where and how precisely.
        side: S.
        per_image_norm: BatchNorm takes each image's own statistics, as in train mode with a batch of one.
        whole: do not cut: every call is the plain forward pass (the oracle).
    """

    def __init__(
        self,
        module: nn.Module,
        runtime: Runtime,
        side: int,
        *,
        per_image_norm: bool = False,
        whole: bool = False,
    ) -> None:
        self.runtime = runtime
        module = _static_padding(copy.deepcopy(module).requires_grad_(False), side)
        if per_image_norm:
            module = _normalise_each(module)
        reduced = runtime.precision != "fp32"
        net, self._rewrites = fx_fusion.rewrite(module, pack=not runtime.on_cuda, float_pool=reduced)
        net.to(runtime.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if reduced:
            encoder._round_weights(net, _DTYPES[runtime.precision])
        net.eval().requires_grad_(False)
        self._pieces, self._rest = ([], net) if whole else receptive_field.split(net)

    @property
    def shares(self) -> bool:
        """Whether any layer's reach is known, so that images can share it."""
        return bool(self._pieces)

    def base(self, image: torch.Tensor) -> "Base":
        """Run the one image and keep its feature maps.

        Args:
            image: float32 [1, 3, S, S], normalised, on the runtime's device.
        """
        maps = [_dense(image)]
        with autocast(self.runtime):
            for piece in self._pieces:
                # A copy: a sum may be written into a piece's input.
                maps.append(piece.module(maps[-1].clone(memory_format=torch.channels_last)))
            feature = self._rest(maps[-1].clone(memory_format=torch.channels_last)).float()[0]
        return Base(self, maps, feature)

    def describe(self) -> dict[str, Any]:
        """What was done to the backbone: JSON types."""
        return {**vars(self._rewrites), "pieces": len(self._pieces)}


@dataclass(frozen=True)
class Base:
    """The one image, run.

    Attributes:
        net: what ran it.
        maps: its feature maps [1, C, H, W] at the cuts; the image itself comes first.
        feature: float32 [d].
    """

    net: LocalForward
    maps: list[torch.Tensor]
    feature: torch.Tensor

    def features(self, top: int, left: int, patches: torch.Tensor) -> torch.Tensor:
        """Features of images that equal the one image but for a window.

        Args:
            top, left: where the window begins, pixels.
            patches: float32 [B, 3, h, w], what stands in the window of each image; may be overwritten.

        Returns:
            float32 [B, d].
        """
        height, width = patches.shape[-2:]
        window, x = Window(top, top + height, left, left + width), patches
        with autocast(self.net.runtime):
            for piece, before, after in zip(self.net._pieces, self.maps, self.maps[1:], strict=False):
                changed = _changed(piece.reach, window, after)
                if changed.empty:
                    return self.feature.expand(len(patches), -1)
                needed = _needed(piece.reach, changed, before)
                y = piece.module(_put(before, needed, window, x))
                corner = needed.top // piece.reach[0].stride, needed.left // piece.reach[1].stride
                window, x = changed, changed.seen_from(*corner).of(y)
            last = self.maps[-1]
            everything = Window(0, last.shape[2], 0, last.shape[3])
            features: torch.Tensor = self.net._rest(_put(last, everything, window, x)).float()
        return features


def _changed(reaches: receptive_field.Reaches, window: Window, after: torch.Tensor) -> Window:
    rows = reaches[0].changed(window.top, window.bottom, after.shape[2])
    return Window(*rows, *reaches[1].changed(window.left, window.right, after.shape[3]))


def _needed(reaches: receptive_field.Reaches, changed: Window, before: torch.Tensor) -> Window:
    rows = reaches[0].needed(changed.top, changed.bottom, before.shape[2])
    return Window(*rows, *reaches[1].needed(changed.left, changed.right, before.shape[3]))


def _put(base: torch.Tensor, part: Window, window: Window, x: torch.Tensor) -> torch.Tensor:
    """The one image's map inside `part`, with x in the place of `window`: dense [B, C, ...]."""
    if window.covers(part):
        return _dense(part.seen_from(window.top, window.left).of(x))
    size = (len(x), base.shape[1], part.bottom - part.top, part.right - part.left)
    full = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    full.copy_(part.of(base))
    # A change may reach beyond the part: then only what lies inside is put there.
    inside = Window(
        max(window.top, part.top),
        min(window.bottom, part.bottom),
        max(window.left, part.left),
        min(window.right, part.right),
    )
    if not inside.empty:
        inside.seen_from(part.top, part.left).of(full).copy_(inside.seen_from(window.top, window.left).of(x))
    return full


def _dense(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


# --- the module, made ready to be cut ---------------------------------------------------------------------


def _static_padding(module: nn.Module, side: int) -> nn.Module:
    """Give TensorFlow-like "same" convolutions the numbers that they compute from the size of their input.

    On a part of the map they would compute others.
    """
    same = {name: m for name, m in module.named_modules() if type(m).__name__ == "Conv2dSame"}
    if not same:
        return module
    sizes = _input_sizes(module, side)
    for name, conv in same.items():
        module.set_submodule(name, _padded(conv, sizes[name]))
    return module


def _input_sizes(module: nn.Module, side: int) -> dict[str, tuple[int, int]]:
    """Height and width that each "same" convolution is given, from the shapes alone."""
    shapes = copy.deepcopy(module).to("meta")
    sizes: dict[str, tuple[int, int]] = {}
    for name, part in shapes.named_modules():
        if type(part).__name__ == "Conv2dSame":
            part.register_forward_pre_hook(
                lambda _, given, name=name: sizes.update({name: tuple(given[0].shape[-2:])})
            )
    with torch.inference_mode():
        shapes(torch.empty(1, 3, side, side, device="meta"))
    return sizes


def _padded(conv: nn.Conv2d, size: tuple[int, int]) -> nn.Module:
    ends = []
    for axis in (0, 1):
        stride, reach_ = conv.stride[axis], conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
        total = max((-(-size[axis] // stride) - 1) * stride + reach_ - size[axis], 0)
        ends.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = ends
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        (top, left) if (top, left) == (bottom, right) else 0,
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        conv.bias is not None,
    )
    plain.weight, plain.bias = conv.weight, conv.bias
    if (top, left) == (bottom, right):
        return plain
    return nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), plain)


def _normalise_each(module: nn.Module) -> nn.Module:
    """BatchNorm in train mode with a batch of one takes the statistics of that image: instance normalisation.

    For a batch it does so for each image alone. Nothing else is put into train mode.
    """
    for name, norm in [(n, m) for n, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)]:
        each = nn.InstanceNorm2d(norm.num_features, norm.eps, affine=norm.affine)
        each.weight, each.bias = norm.weight, norm.bias
        act = getattr(norm, "act", None)  # timm's has the activation inside
        module.set_submodule(name, nn.Sequential(each, act) if isinstance(act, nn.Module) else each)
    return module
