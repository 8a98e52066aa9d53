"""Rewriting a frozen backbone so that it computes the same feature with less work.

Three rewrites, each exact up to rounding: BatchNorm folded into the convolution before it; on the CPU,
convolutions that keep their weights in oneDNN's own layout, add a residual sum as they compute, and apply
the activation in place; under reduced precision, the last pooling in float32. All of them need the graph of
operations, which torch.fx gets by running the module on symbols; what it cannot trace stays as it is.

None of them hides a number that is none: oneDNN would apply ReLU as well, but clips NaN to a bound, and a
broken feature would look sound. torch's own ReLU on the same result keeps NaN, and costs 1 to 3 %.
"""

import copy
import functools
import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

#: What computes a ReLU.
_RELU: tuple[Any, ...] = (functional.relu, torch.relu, "relu", "relu_")
_SUMS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_POOLS: tuple[Any, ...] = (functional.adaptive_avg_pool2d, torch.mean, "mean")


#: Convolutions that are linear in weight and bias whatever they do to their input; `Conv2dSame` is timm's.
_LINEAR = ("Conv2d", "Conv2dSame", "SameConv2d", "GreyConv2d")

_Operator = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Rewrites:
    """What was changed.

    Attributes:
        folded: BatchNorms folded; kept: BatchNorms that stay (no convolution directly before them).
        packed: convolutions in oneDNN's layout; activations, sums: done by them, in place.
        float_pool: whether the last pooling runs in float32 under reduced precision.
        untraceable: why no graph was to be had; empty if there is one.
    """

    folded: int = 0
    kept: int = 0
    packed: int = 0
    activations: int = 0
    sums: int = 0
    float_pool: bool = False
    untraceable: str = ""


def rewrite(module: nn.Module, *, pack: bool = False, float_pool: bool = False) -> tuple[nn.Module, Rewrites]:
    """A rewritten copy of a backbone in eval mode; the original is left alone.

    Args:
        module: [B, 3, S, S] -> [B, d].
        pack: use oneDNN's packed convolutions where its operators exist (CPU only).
        float_pool: pool in float32.
    """
    module = copy.deepcopy(module)
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())
    try:
        graph = _Tracer().trace(module)
    except Exception as error:  # tracing runs foreign code on symbols; whatever it raises means the same
        return module, Rewrites(
            kept=norms, untraceable=f"{type(error).__name__}: {str(error).splitlines()[0]}"
        )
    traced = fx.GraphModule(module, graph)
    _drop_idle(traced)
    folded = _fold(traced)
    packed, activations, sums = _pack(traced) if pack and can_pack() else (0, 0, 0)
    pooled = float_pool and _pool_in_float(traced)
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    return traced, Rewrites(folded, norms - folded, packed, activations, sums, pooled)


class _Tracer(fx.Tracer):
    """Keeps convolutions, BatchNorms and max-pools whole, also subclasses of torch's, here and in timm."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d))
        return whole or super().is_leaf_module(m, module_qualified_name)


def _drop_idle(traced: fx.GraphModule) -> None:
    """Remove what does nothing in eval mode, so that neighbours in the graph are neighbours in fact."""
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if isinstance(_module(node, modules), (nn.Identity, nn.Dropout)) and isinstance(
            node.args[0], fx.Node
        ):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)


def _fold(traced: fx.GraphModule) -> int:
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    folded = 0
    for node in list(traced.graph.nodes):
        norm = _module(node, modules)
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
            continue
        before = node.args[0]
        conv = _module(before, modules)
        rest = _after_norm(norm)
        alone = conv is not None and len(before.users) == calls[before.target] == calls[node.target] == 1
        if not alone or type(conv).__name__ not in _LINEAR or rest is None:
            continue
        if not fold_pair(conv, norm):  # type: ignore[arg-type]
            continue
        if isinstance(rest, nn.Identity):
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
        else:
            traced.set_submodule(node.target, rest)
        folded += 1
    return folded


def _after_norm(norm: nn.BatchNorm2d) -> nn.Module | None:
    """What a BatchNorm module does after normalising; None for a subclass not known here."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    if (
        type(norm).__name__ == "BatchNormAct2d"
    ):  # timm: normalisation, dropout (nothing in eval mode), activation
        act: nn.Module = norm.act  # type: ignore[assignment]
        return act
    return None


def fold_pair(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Put an eval-mode BatchNorm into the convolution before it, in place.

    In float64, rounded once: w' = w * g, b' = beta + (b - mean) * g with g = gamma / sqrt(var + eps).

    Returns:
        Whether it was done: not where a number would be infinite or NaN, which the two steps need not be.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double()
    if conv.bias is not None:
        shift = shift + conv.bias.detach().double()
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    weight = (conv.weight.detach().double() * scale.reshape(-1, 1, 1, 1)).to(conv.weight.dtype)
    bias = shift.to(conv.weight.dtype)
    if not bool(weight.isfinite().all() and bias.isfinite().all()):
        return False
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)
    return True


def can_pack() -> bool:
    """Whether this build of torch has oneDNN's fused convolutions."""
    names = ("_reorder_convolution_weight", "_convolution_pointwise", "_convolution_pointwise_")
    available: bool = torch.backends.mkldnn.is_available()
    return available and all(hasattr(torch.ops.mkldnn, name) for name in names)


class PackedConv(nn.Module):
    """A frozen convolution with its weights in oneDNN's layout, an optional sum fused, and its activation.

    Without packing, each call brings the weights into that layout again.

    Args:
        conv: with numerical padding.

    Attributes:
        activation: applied to the result in place; None for none.
        adds, adds_in_place: whether a second input is added before the activation, and overwritten.
    """

    packed: torch.Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight: nn.Parameter | None = nn.Parameter(conv.weight.detach(), requires_grad=False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach(), requires_grad=False)
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.activation: _Operator | None = None
        self.adds, self.adds_in_place = False, False
        self.packed = None

    def pack(self, example: torch.Tensor) -> None:
        """Choose the layout for inputs of this shape and type; other shapes stay correct."""
        assert self.weight is not None
        weight = self.weight.detach().to(example.dtype)
        if self.bias is not None:
            self.bias = nn.Parameter(self.bias.detach().to(example.dtype), requires_grad=False)
        self.packed = torch.ops.mkldnn._reorder_convolution_weight(
            weight, *self.geometry, list(example.shape)
        )
        self.weight = None  # one copy is enough

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        if self.packed is None:
            self.pack(x)
        result = self._convolve(x, other)
        return result if self.activation is None else self.activation(result)

    def _convolve(self, x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
        if other is None:
            plain: _Operator = torch.ops.mkldnn._convolution_pointwise
            return plain(x, self.packed, self.bias, *self.geometry, "none", [], "")
        if self.adds_in_place:
            into: _Operator = torch.ops.mkldnn._convolution_pointwise_.binary
            return into(other, x, self.packed, self.bias, *self.geometry, "add", 1.0, None, [], "")
        summed: _Operator = torch.ops.mkldnn._convolution_pointwise.binary
        return summed(x, other, self.packed, self.bias, *self.geometry, "add", 1.0, None, [], "")


def _pack(traced: fx.GraphModule) -> tuple[int, int, int]:
    modules = dict(traced.named_modules())
    nodes = [n for n in traced.graph.nodes if type(_module(n, modules)) is nn.Conv2d]
    calls = Counter(node.target for node in nodes)
    nodes = [n for n in nodes if calls[n.target] == 1 and not isinstance(modules[n.target].padding, str)]
    nodes = [n for n in nodes if modules[n.target].padding_mode == "zeros"]
    for node in nodes:
        modules[node.target] = PackedConv(modules[node.target])
        traced.set_submodule(node.target, modules[node.target])
    packed = set(nodes)
    sums = sum(_fuse_sum(traced, node) for node in nodes)
    activations = sum(_fuse_activation(traced, node, modules) for node in nodes)
    order = {n: i for i, n in enumerate(traced.graph.nodes)}
    for node in nodes:
        conv: Any = modules[str(node.target)]
        conv.adds_in_place = conv.adds and _may_overwrite(node, packed, order)
    return len(nodes), activations, sums


def _fuse_sum(traced: fx.GraphModule, node: fx.Node) -> bool:
    """conv(x) + other -> conv(x, other). Of two convolutions summed, the later one takes the sum."""
    user = _only_user(node)
    if user is None or not _is(user, _SUMS) or len(user.args) != 2 or user.kwargs:
        return False
    other = user.args[1] if user.args[0] is node else user.args[0]
    order = {n: i for i, n in enumerate(traced.graph.nodes)}
    if not isinstance(other, fx.Node) or other is node or order[other] > order[node]:
        return False
    conv: Any = traced.get_submodule(str(node.target))
    if conv.adds:
        return False
    conv.adds = True
    node.args = (node.args[0], other)
    user.replace_all_uses_with(node)
    traced.graph.erase_node(user)
    return True


def _may_overwrite(node: fx.Node, packed: set[fx.Node], order: dict[fx.Node, int]) -> bool:
    """Whether the sum may be written into its other summand.

    That must be a convolution's own result, read by convolutions alone (anything else might keep a view of
    it), by this one last, and not as this one's input as well.
    """
    x, other = node.args
    return (
        isinstance(other, fx.Node)
        and x is not other
        and other in packed
        and all(user in packed for user in other.users)
        and max(order[user] for user in other.users) == order[node]
    )


def _fuse_activation(traced: fx.GraphModule, node: fx.Node, modules: dict[str, Any]) -> bool:
    user = _only_user(node)
    activation = None if user is None else _activation(user, modules)
    if user is None or activation is None:
        return False
    conv: Any = traced.get_submodule(str(node.target))
    conv.activation = activation
    user.replace_all_uses_with(node)
    traced.graph.erase_node(user)
    return True


def _activation(node: fx.Node, modules: dict[str, Any]) -> _Operator | None:
    """The activation that a node applies, in place; NaN stays NaN in it."""
    module = _module(node, modules)
    if isinstance(module, nn.ReLU) or _is(node, _RELU):
        return torch.relu_
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return functools.partial(functional.hardtanh_, min_val=module.min_val, max_val=module.max_val)
    return None


def _pool_in_float(traced: fx.GraphModule) -> bool:
    """Insert a cast before the last pooling, so that a feature is not rounded to 8 bits at its very end."""
    modules = dict(traced.named_modules())
    for node in reversed(traced.graph.nodes):
        if not (isinstance(_module(node, modules), nn.AdaptiveAvgPool2d) or _is(node, _POOLS)):
            continue
        with traced.graph.inserting_before(node):
            cast = traced.graph.call_method("float", (node.args[0],))
        node.args = (cast, *node.args[1:])
        return True
    return False


def _module(node: Any, modules: dict[str, Any]) -> nn.Module | None:
    is_call = isinstance(node, fx.Node) and node.op == "call_module"
    return modules.get(node.target) if is_call else None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is(node: fx.Node, targets: tuple[Callable[..., Any] | str, ...]) -> bool:
    return node.op in ("call_function", "call_method") and any(
        node.target == target and isinstance(target, str) == (node.op == "call_method") for target in targets
    )
