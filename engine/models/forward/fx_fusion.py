"""Rewrites of a frozen backbone's graph that compute the same feature with less work.

There are three rewrites, each exact up to rounding: BatchNorm is folded into the convolution before it; on
the CPU, convolutions keep their weights in oneDNN's own layout, add a residual within the same operation and
apply the activation in place; under reduced precision, the last pooling runs in float32. All need the graph
of operations, which torch.fx gets by symbolic tracing; a module that cannot be traced is left unchanged.

No rewrite hides NaN. oneDNN could apply ReLU as well, but it clips NaN to a bound, so that a broken feature
would look sound. torch's own ReLU on the result keeps NaN, and costs 1 to 3 %.
"""

import copy
import functools
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

#: Functions, and names of methods, that compute a ReLU, a sum, a pooling.
_RELU: tuple[Any, ...] = (functional.relu, torch.relu, "relu", "relu_")
_SUMS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_POOLS: tuple[Any, ...] = (functional.adaptive_avg_pool2d, torch.mean, "mean")
#: Convolutions whose output is linear in weight and bias; `Conv2dSame` is timm's.
_LINEAR = ("Conv2d", "Conv2dSame", "SameConv2d", "GreyConv2d")

_Operator = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Rewrites:
    """Counts of what was rewritten.

    Attributes:
        folded: BatchNorms folded.
        kept: BatchNorms that stay, because no convolution comes directly before them.
        packed: convolutions in oneDNN's layout.
        activations, sums: performed by packed convolutions, in place.
        float_pool: whether the last pooling runs in float32 under reduced precision.
        untraceable: why the module could not be traced; empty if it was.
    """

    folded: int = 0
    kept: int = 0
    packed: int = 0
    activations: int = 0
    sums: int = 0
    float_pool: bool = False
    untraceable: str = ""


def rewrite(module: nn.Module, *, pack: bool = False, float_pool: bool = False) -> tuple[nn.Module, Rewrites]:
    """Copy a backbone in eval mode and rewrite the copy.

    Args:
        module: [B, 3, S, S] -> [B, d].
        pack: use oneDNN's packed convolutions if its operators exist (CPU only).
        float_pool: pool in float32.

    Returns:
        (the rewritten copy, counts of rewrites).
    """
    module = copy.deepcopy(module)
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    try:
        graph = _Tracer().trace(module)
    except Exception as error:  # foreign code on symbols may raise anything: it cannot be traced
        return module, Rewrites(
            kept=norms, untraceable=f"{type(error).__name__}: {str(error).splitlines()[0]}"
        )
    traced = fx.GraphModule(module, graph)
    _remove_identities(traced)
    folded = _fold_norms(traced)
    packed, activations, sums = _pack_convolutions(traced) if pack and can_pack() else (0, 0, 0)
    pooled = float_pool and _pool_in_float(traced)
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    return traced, Rewrites(folded, norms - folded, packed, activations, sums, pooled)


class _Tracer(fx.Tracer):
    """A tracer that does not trace into convolutions, BatchNorms and max-pools, subclasses included."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_layer = isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d))
        return is_layer or super().is_leaf_module(m, module_qualified_name)


def _remove_identities(traced: fx.GraphModule) -> None:
    """Remove identities and dropouts, which do nothing in eval mode and separate layers in the graph."""
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if isinstance(_module(node, modules), (nn.Identity, nn.Dropout)) and isinstance(
            node.args[0], fx.Node
        ):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)


def fold_norms(module: nn.Module) -> int:
    """Fold BatchNorms into the convolutions of a backbone itself, whose submodules keep their names.

    The module stays one that gradients flow through, which packed convolutions are not.

    Returns:
        The number of BatchNorms folded; 0 if the module cannot be traced.
    """
    try:
        graph = _Tracer().trace(module)
    except Exception:  # as in `rewrite`
        return 0
    folded = 0
    for node, _, conv, norm, activation in list(_foldable(fx.GraphModule(module, graph))):
        if fold_pair(conv, norm):
            module.set_submodule(str(node.target), activation)
            folded += 1
    return folded


def _fold_norms(traced: fx.GraphModule) -> int:
    """Fold every BatchNorm that directly follows a convolution, and return their number."""
    folded = 0
    for node, previous, conv, norm, activation in list(_foldable(traced)):
        if not fold_pair(conv, norm):
            continue
        if isinstance(activation, nn.Identity):
            node.replace_all_uses_with(previous)
            traced.graph.erase_node(node)
        else:
            traced.set_submodule(str(node.target), activation)
        folded += 1
    return folded


def _foldable(
    traced: fx.GraphModule,
) -> Iterator[tuple[fx.Node, fx.Node, nn.Conv2d, nn.BatchNorm2d, nn.Module]]:
    """Yield node, node of the convolution, convolution, BatchNorm and its activation, of pairs used once."""
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        norm = _module(node, modules)
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
            continue
        previous: Any = node.args[0]
        conv: Any = _module(previous, modules)
        activation = _activation_of_norm(norm)
        only_pair = (
            conv is not None and len(previous.users) == calls[previous.target] == calls[node.target] == 1
        )
        if only_pair and type(conv).__name__ in _LINEAR and activation is not None:
            yield node, previous, conv, norm, activation


def _activation_of_norm(norm: nn.BatchNorm2d) -> nn.Module | None:
    """Return the activation inside a BatchNorm module; None for an unknown subclass."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    # timm's: normalisation, dropout (nothing in eval mode), activation.
    if type(norm).__name__ == "BatchNormAct2d":
        activation: nn.Module = norm.act  # type: ignore[assignment]
        return activation
    return None


def fold_pair(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Fold an eval-mode BatchNorm into the convolution before it, in place.

    In float64, rounded once: w' = w * g, b' = beta + (b - mean) * g with g = gamma / sqrt(var + eps).

    Returns:
        False, and nothing is changed, if a folded number would be infinite or NaN: the two separate steps may
        still be finite.
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
    """Return whether this build of torch has oneDNN's fused convolutions."""
    names = ("_reorder_convolution_weight", "_convolution_pointwise", "_convolution_pointwise_")
    available: bool = torch.backends.mkldnn.is_available()
    return available and all(hasattr(torch.ops.mkldnn, name) for name in names)


class PackedConv(nn.Module):
    """A frozen convolution with its weights in oneDNN's layout, an optional fused sum, and its activation.

    An unpacked convolution reorders its weights into that layout at every call.

    Args:
        conv: with numerical padding.

    Attributes:
        activation: applied to the result in place; None for none.
        adds: whether a second input is added before the activation.
        adds_in_place: whether the sum overwrites that input.
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
        """Choose the layout for inputs of this shape and type; inputs of other shapes stay correct."""
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


def _pack_convolutions(traced: fx.GraphModule) -> tuple[int, int, int]:
    """Pack convolutions and fuse sums and activations into them; return the number of each."""
    modules = dict(traced.named_modules())
    nodes = [node for node in traced.graph.nodes if type(_module(node, modules)) is nn.Conv2d]
    calls = Counter(node.target for node in nodes)
    nodes = [
        node
        for node in nodes
        if calls[node.target] == 1
        and not isinstance(modules[node.target].padding, str)
        and modules[node.target].padding_mode == "zeros"
    ]
    for node in nodes:
        modules[node.target] = PackedConv(modules[node.target])
        traced.set_submodule(node.target, modules[node.target])
    packed = set(nodes)
    sums = sum(_fuse_sum(traced, node) for node in nodes)
    activations = sum(_fuse_activation(traced, node, modules) for node in nodes)
    order = {node: i for i, node in enumerate(traced.graph.nodes)}
    for node in nodes:
        conv: Any = modules[str(node.target)]
        conv.adds_in_place = conv.adds and _may_overwrite(node, packed, order)
    return len(nodes), activations, sums


def _fuse_sum(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Rewrite conv(x) + other as conv(x, other); of two convolutions that are summed, the later one adds."""
    user = _only_user(node)
    if user is None or not _is(user, _SUMS) or len(user.args) != 2 or user.kwargs:
        return False
    other = user.args[1] if user.args[0] is node else user.args[0]
    order = {other_node: i for i, other_node in enumerate(traced.graph.nodes)}
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
    """Return whether a sum may overwrite its other summand.

    It may if that is the result of a packed convolution and read by packed convolutions only (another
    operation might keep a view of it), by this one last, and not as the input of this one as well.
    """
    x, other = node.args
    return (
        isinstance(other, fx.Node)
        and x is not other
        and other in packed
        and all(user in packed for user in other.users)
        and max(order[user] for user in other.users) == order[node]
    )


def _fuse_activation(traced: fx.GraphModule, node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    user = _only_user(node)
    activation = None if user is None else _activation(user, modules)
    if user is None or activation is None:
        return False
    conv: Any = traced.get_submodule(str(node.target))
    conv.activation = activation
    user.replace_all_uses_with(node)
    traced.graph.erase_node(user)
    return True


def _activation(node: fx.Node, modules: dict[str, nn.Module]) -> _Operator | None:
    """Return the in-place form of the activation that a node applies, which keeps NaN; None for others."""
    module = _module(node, modules)
    if isinstance(module, nn.ReLU) or _is(node, _RELU):
        return torch.relu_
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return functools.partial(functional.hardtanh_, min_val=module.min_val, max_val=module.max_val)
    return None


def _pool_in_float(traced: fx.GraphModule) -> bool:
    """Insert a cast before the last pooling, so that the feature itself is not rounded to 8 bits."""
    modules = dict(traced.named_modules())
    for node in reversed(traced.graph.nodes):
        if not (isinstance(_module(node, modules), nn.AdaptiveAvgPool2d) or _is(node, _POOLS)):
            continue
        with traced.graph.inserting_before(node):
            cast = traced.graph.call_method("float", (node.args[0],))
        node.args = (cast, *node.args[1:])
        return True
    return False


def _module(node: Any, modules: dict[str, nn.Module]) -> nn.Module | None:
    is_call = isinstance(node, fx.Node) and node.op == "call_module"
    return modules.get(node.target) if is_call else None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is(node: fx.Node, targets: tuple[Callable[..., Any] | str, ...]) -> bool:
    return node.op in ("call_function", "call_method") and any(
        node.target == target and isinstance(target, str) == (node.op == "call_method") for target in targets
    )
