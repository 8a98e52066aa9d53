"""Receptive fields of a convolutional network, and the places where its graph can be cut.

Along each axis, output o of a layer depends on the inputs from o * stride - before to o * stride + after, its
receptive field (Araujo et al. 2019, doi:10.23915/distill.00021). A network is cut where everything later
depends on a single tensor, so that each piece is a function of one feature map.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from engine.models.forward.fx_fusion import PackedConv

#: Layers whose outputs each depend on the input at one position.
_POINTWISE = (nn.ReLU, nn.Hardtanh, nn.SiLU, nn.Hardswish, nn.GELU, nn.Sigmoid, nn.Identity, nn.Dropout)
_FUNCTIONS = (
    functional.relu, functional.relu6, functional.silu, functional.hardswish, functional.gelu, torch.relu,
    operator.add, operator.iadd, torch.add, operator.mul, torch.mul,
)  # fmt: skip
_METHODS = ("relu", "relu_", "add", "add_", "mul", "mul_", "contiguous")


@dataclass(frozen=True)
class AxisField:
    """The receptive field along one axis.

    Output o depends on the inputs from o * stride - before to o * stride + after.
    """

    stride: int = 1
    before: int = 0
    after: int = 0

    def then(self, later: "AxisField") -> "AxisField":
        """Return the receptive field of this layer followed by a later one."""
        return AxisField(
            self.stride * later.stride,
            self.before + later.before * self.stride,
            self.after + later.after * self.stride,
        )

    def affected_outputs(self, first: int, stop: int, size: int) -> tuple[int, int]:
        """Return the range [low, high) of the `size` outputs that depend on any input in [first, stop)."""
        low = -((self.after - first) // self.stride)  # ceil((first - after) / stride)
        high = (stop - 1 + self.before) // self.stride + 1
        return max(low, 0), min(high, size)

    def required_inputs(self, first: int, stop: int, size: int) -> tuple[int, int]:
        """Return the range [low, high) of the `size` inputs that the outputs [first, stop) need.

        It begins at a multiple of the stride, or at the edge, so that outputs keep their positions.
        """
        low = (first * self.stride - self.before) // self.stride * self.stride
        high = (stop - 1) * self.stride + self.after + 1
        return max(low, 0), min(high, size)


#: The receptive field along height and width.
Field = tuple[AxisField, AxisField]
_POINT: Field = (AxisField(), AxisField())


def join(fields: Sequence[Field | None]) -> Field | None:
    """Return the receptive field of an operation on several inputs at the same positions.

    None if one of the fields is unknown (None), or if their strides differ.
    """
    known = [field for field in fields if field is not None]
    if len(known) < len(fields) or not known:
        return None
    axes = []
    for axis in (0, 1):
        along = [field[axis] for field in known]
        if len({field.stride for field in along}) > 1:
            return None
        before, after = max(field.before for field in along), max(field.after for field in along)
        axes.append(AxisField(along[0].stride, before, after))
    return axes[0], axes[1]


def of_module(module: nn.Module) -> Field | None:
    """Return the receptive field of one layer; None if it is unknown or may be the complete input."""
    if isinstance(module, _POINTWISE):
        return _POINT
    if isinstance(module, nn.BatchNorm2d):
        return None if module.training or module.running_mean is None else _POINT
    if isinstance(module, nn.ZeroPad2d):
        left, _, top, _ = module.padding
        return None if min(module.padding) < 0 else (AxisField(1, top, -top), AxisField(1, left, -left))
    if isinstance(module, PackedConv):
        if module.weight is None:  # packed at the first call, which hides the kernel's size
            return None
        padding, stride, dilation, _ = module.geometry
        return _of_kernel(tuple(module.weight.shape[2:]), stride, padding, dilation)
    if type(module) is nn.Conv2d:
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            return None
        return _of_kernel(module.kernel_size, module.stride, module.padding, module.dilation)
    if type(module) in (nn.MaxPool2d, nn.AvgPool2d):
        pool: Any = module
        return _of_kernel(pool.kernel_size, pool.stride, pool.padding, getattr(pool, "dilation", 1))
    return None


def _of_kernel(kernel: Any, stride: Any, padding: Any, dilation: Any) -> Field:
    axes = []
    for axis in (0, 1):
        k, s, p, d = (
            v[axis] if isinstance(v, tuple | list) else v for v in (kernel, stride, padding, dilation)
        )
        axes.append(AxisField(s, p, d * (k - 1) - p))
    return axes[0], axes[1]


@dataclass(frozen=True)
class Piece:
    """A part of a network between two cuts: feature map [B, C, H, W] -> feature map.

    Attributes:
        module: the part; shares its layers with the network.
        field: its receptive field.
    """

    module: nn.Module
    field: Field


def split(net: nn.Module) -> tuple[list[Piece], nn.Module]:
    """Cut a frozen network into pieces with known receptive fields, and a remainder.

    Args:
        net: as `fx_fusion.rewrite` returns it, not yet run; if it is not a graph, all of it is the remainder.

    Returns:
        (pieces in order, perhaps none; remainder: [B, C, H, W] -> [B, d]). In sequence they perform the same
        operations as `net`.
    """
    if not isinstance(net, fx.GraphModule):
        return [], net
    nodes = list(net.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    cuts = _cuts(net, nodes) if len(inputs) == 1 else []
    starts = [inputs[0], *(node for node, _ in cuts)]
    pieces = [
        Piece(_subgraph(net, nodes, start, end), field)
        for start, (end, field) in zip(starts, cuts, strict=False)
    ]
    result: Any = nodes[-1].args[0]
    return pieces, _subgraph(net, nodes, starts[-1], result)


def _cuts(net: fx.GraphModule, nodes: Sequence[fx.Node]) -> list[tuple[fx.Node, Field]]:
    """Return the nodes to cut after, each with the receptive field of the piece that ends there."""
    order = {node: i for i, node in enumerate(nodes)}
    last_use = [max((order[user] for user in node.users), default=i) for i, node in enumerate(nodes)]
    fields: dict[fx.Node, Field | None] = {}  # of each node, from the last cut
    cuts: list[tuple[fx.Node, Field]] = []
    pending = 0  # last use of any node before the current one
    for i, node in enumerate(nodes):
        pending = max(pending, last_use[i - 1] if i else 0)
        field = fields[node] = _POINT if node.op == "placeholder" else _node_field(net, node, fields)
        if pending > i or node.op in ("placeholder", "output"):
            continue
        if field is None:
            break
        if field != _POINT:
            cuts.append((node, field))
            fields[node] = _POINT
    return cuts


def _node_field(net: fx.GraphModule, node: fx.Node, fields: dict[fx.Node, Field | None]) -> Field | None:
    """Return the receptive field of a node, from the last cut; None if unknown."""
    if node.op == "call_module":
        module = net.get_submodule(str(node.target))
        first, *others = (fields[source] for source in node.all_input_nodes)
        own = of_module(module)
        composed = None if first is None or own is None else (first[0].then(own[0]), first[1].then(own[1]))
        return join([composed, *others])
    pointwise = node.target in _METHODS if node.op == "call_method" else node.target in _FUNCTIONS
    if pointwise or _concatenates_channels(node):
        return join([fields[source] for source in node.all_input_nodes])
    return None


def _concatenates_channels(node: fx.Node) -> bool:
    if node.op != "call_function" or node.target is not torch.cat:
        return False
    return bool((node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)) == 1)


def _subgraph(net: fx.GraphModule, nodes: Sequence[fx.Node], start: fx.Node, end: fx.Node) -> nn.Module:
    """Return the part of a graph that computes one node's value from another's."""
    graph = fx.Graph()
    copies = {start: graph.placeholder("x")}
    order = {node: i for i, node in enumerate(nodes)}
    for node in nodes[order[start] + 1 : order[end] + 1]:
        copies[node] = graph.node_copy(node, lambda original: copies[original])
    graph.output(copies[end])
    return fx.GraphModule(net, graph)
