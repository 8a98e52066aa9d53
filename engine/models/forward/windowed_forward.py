"""Features of many images that differ from a base image inside a window only.

Early layers have small receptive fields, so that their outputs far from the window equal the base image's.
Each piece of the network is run only on the part of its input that affects changed outputs, and the result
is pasted into the base image's feature map. Where receptive fields cover the complete map, and in networks
for which they are unknown (attention, squeeze and excitation), this is the plain forward pass.

Results are exact up to rounding: every value is computed from the same numbers by the same operations, but a
library may sum a convolution in another order for another size of map.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from engine.models.catalog.lookup import ModelSpec
from engine.models.forward import encoder, fx_fusion, receptive_field
from engine.runtime import Runtime, autocast
from stores.json_types import JsonObject

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
        """Whether it contains no pixel."""
        return self.top >= self.bottom or self.left >= self.right

    def crop(self, x: torch.Tensor) -> torch.Tensor:
        """Return the part of x [B, C, H, W] inside the window, as a view."""
        return x[:, :, self.top : self.bottom, self.left : self.right]

    def relative_to(self, top: int, left: int) -> "Window":
        """Return the same rectangle in coordinates that start at another corner."""
        return Window(self.top - top, self.bottom - top, self.left - left, self.right - left)

    def covers(self, other: "Window") -> bool:
        """Return whether another window lies inside."""
        rows = self.top <= other.top and other.bottom <= self.bottom
        return rows and self.left <= other.left and other.right <= self.right


def load(spec: ModelSpec) -> nn.Module:
    """Build a backbone with its weights, as `WindowedForward` takes it.

    Raises:
        ModelError, WeightsError: as `encoder.load`.
    """
    return encoder.build_with_weights(spec)[0].eval()


class WindowedForward:
    """A frozen backbone, cut into pieces with known receptive fields.

    Args:
        module: headless backbone in eval mode, float32 [B, 3, S, S] -> [B, d]; not changed.
        runtime: device, precision and threads.
        side: S.
        per_image_norm: BatchNorm takes each image's own statistics, as in train mode with a batch of one.
        whole: do not cut the network, so that every call is the plain forward pass (the oracle).
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
            module = _instance_norms(module)
        reduced = runtime.precision != "fp32"
        net, self._rewrites = fx_fusion.rewrite(module, pack=not runtime.on_cuda, float_pool=reduced)
        net.to(runtime.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if reduced:
            encoder.round_weights(net, _DTYPES[runtime.precision])
        net.eval().requires_grad_(False)
        self._pieces, self._rest = ([], net) if whole else receptive_field.split(net)

    @property
    def shares(self) -> bool:
        """Whether the network is cut, so that images share parts of the base image's feature maps."""
        return bool(self._pieces)

    def base(self, image: torch.Tensor) -> "Base":
        """Run the base image and keep its feature maps.

        Args:
            image: float32 [1, 3, S, S], normalised, on the runtime's device.
        """
        maps = [_dense(image)]
        with autocast(self.runtime):
            for piece in self._pieces:
                # A copy, because a packed convolution may write a sum into its input.
                maps.append(piece.module(maps[-1].clone(memory_format=torch.channels_last)))
            feature = self._rest(maps[-1].clone(memory_format=torch.channels_last)).float()[0]
        return Base(self, maps, feature)

    def describe(self) -> JsonObject:
        """Return how the backbone was changed, as JSON types."""
        return {**vars(self._rewrites), "pieces": len(self._pieces)}


@dataclass(frozen=True)
class Base:
    """The base image after its forward pass.

    Attributes:
        net: the network.
        maps: feature maps [1, C, H, W] at the cuts; the image itself comes first.
        feature: float32 [d].
    """

    net: WindowedForward
    maps: list[torch.Tensor]
    feature: torch.Tensor

    def features(self, top: int, left: int, patches: torch.Tensor) -> torch.Tensor:
        """Compute the features of images that equal the base image outside a window.

        Args:
            top, left: corner of the window, in pixels.
            patches: float32 [B, 3, h, w], content of the window of each image; may be overwritten.

        Returns:
            float32 [B, d].
        """
        height, width = patches.shape[-2:]
        window, x = Window(top, top + height, left, left + width), patches
        with autocast(self.net.runtime):
            for piece, before, after in zip(self.net._pieces, self.maps, self.maps[1:], strict=False):
                changed = _affected_outputs(piece.field, window, after)
                if changed.empty:
                    return self.feature.expand(len(patches), -1)
                required = _required_inputs(piece.field, changed, before)
                y = piece.module(_paste(before, required, window, x))
                corner = required.top // piece.field[0].stride, required.left // piece.field[1].stride
                window, x = changed, changed.relative_to(*corner).crop(y)
            last = self.maps[-1]
            full_map = Window(0, last.shape[2], 0, last.shape[3])
            features: torch.Tensor = self.net._rest(_paste(last, full_map, window, x)).float()
        return features


def _affected_outputs(field: receptive_field.Field, window: Window, after: torch.Tensor) -> Window:
    rows = field[0].affected_outputs(window.top, window.bottom, after.shape[2])
    return Window(*rows, *field[1].affected_outputs(window.left, window.right, after.shape[3]))


def _required_inputs(field: receptive_field.Field, changed: Window, before: torch.Tensor) -> Window:
    rows = field[0].required_inputs(changed.top, changed.bottom, before.shape[2])
    return Window(*rows, *field[1].required_inputs(changed.left, changed.right, before.shape[3]))


def _paste(base: torch.Tensor, part: Window, window: Window, x: torch.Tensor) -> torch.Tensor:
    """Return the base image's map inside `part`, with x in the place of `window`: dense [B, C, ...]."""
    if window.covers(part):
        return _dense(part.relative_to(window.top, window.left).crop(x))
    size = (len(x), base.shape[1], part.bottom - part.top, part.right - part.left)
    full = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    full.copy_(part.crop(base))
    # The window may extend beyond the part.
    inside = Window(
        max(window.top, part.top),
        min(window.bottom, part.bottom),
        max(window.left, part.left),
        min(window.right, part.right),
    )
    if not inside.empty:
        target = inside.relative_to(part.top, part.left).crop(full)
        target.copy_(inside.relative_to(window.top, window.left).crop(x))
    return full


def _dense(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


# --- preparing the module to be cut -----------------------------------------------------------------------


def _static_padding(module: nn.Module, side: int) -> nn.Module:
    """Replace TensorFlow-like "same" convolutions by convolutions with fixed padding.

    They compute their padding from the size of the input, and would compute another one on a part of the map.
    """
    same_convs = {name: part for name, part in module.named_modules() if type(part).__name__ == "Conv2dSame"}
    if not same_convs:
        return module
    sizes = _input_sizes(module, side)
    for name, conv in same_convs.items():
        module.set_submodule(name, _with_fixed_padding(conv, sizes[name]))
    return module


def _input_sizes(module: nn.Module, side: int) -> dict[str, tuple[int, int]]:
    """Return the input height and width of each "same" convolution, from a forward pass of shapes alone."""
    shapes = copy.deepcopy(module).to("meta")
    sizes: dict[str, tuple[int, int]] = {}
    for name, part in shapes.named_modules():
        if type(part).__name__ == "Conv2dSame":
            part.register_forward_pre_hook(
                lambda _, inputs, name=name: sizes.update({name: tuple(inputs[0].shape[-2:])})
            )
    with torch.inference_mode():
        shapes(torch.empty(1, 3, side, side, device="meta"))
    return sizes


def _with_fixed_padding(conv: nn.Conv2d, size: tuple[int, int]) -> nn.Module:
    ends = []
    for axis in (0, 1):
        stride, extent = conv.stride[axis], conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
        total = max((-(-size[axis] // stride) - 1) * stride + extent - size[axis], 0)
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


def _instance_norms(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm by an instance normalisation with the same weights, in place.

    This equals BatchNorm in train mode with a batch of one, for each image of a batch; nothing else is put
    into train mode.
    """
    for name, norm in [(n, m) for n, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)]:
        instance_norm = nn.InstanceNorm2d(norm.num_features, norm.eps, affine=norm.affine)
        instance_norm.weight, instance_norm.bias = norm.weight, norm.bias
        act = getattr(norm, "act", None)  # timm's BatchNormAct2d has the activation inside
        replacement = nn.Sequential(instance_norm, act) if isinstance(act, nn.Module) else instance_norm
        module.set_submodule(name, replacement)
    return module
