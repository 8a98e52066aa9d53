"""Which inputs an output of a convolutional network depends on, and where its graph can be cut.

Output o of a layer depends on the inputs from o * stride - before to o * stride + after, along each axis:
the receptive field (Araujo et al. 2019, doi:10.23915/distill.00021). A network is cut where one tensor
carries everything that comes later, so that each piece is a function of one feature map.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from engine.models.forward.fx_fusion import PackedConv

#: Layers of which each output value depends on one place of the input.
_POINTWISE = (nn.ReLU, nn.Hardtanh, nn.SiLU, nn.Hardswish, nn.GELU, nn.Sigmoid, nn.Identity, nn.Dropout)
_FUNCTIONS = (
    functional.relu, functional.relu6, functional.silu, functional.hardswish, functional.gelu, torch.relu,
    operator.add, operator.iadd, torch.add, operator.mul, torch.mul,
)  # fmt: skip
_METHODS = ("relu", "relu_", "add", "add_", "mul", "mul_", "contiguous")


@dataclass(frozen=True)
class Reach:
    """Along one axis: output o depends on the inputs from o * stride - before to o * stride + after."""

    stride: int = 1
    before: int = 0
    after: int = 0

    def then(self, later: "Reach") -> "Reach":
        """The reach of a layer with reach `later` on top of this one."""
        return Reach(
            self.stride * later.stride,
            self.before + later.before * self.stride,
            self.after + later.after * self.stride,
        )

    def changed(self, first: int, stop: int, size: int) -> tuple[int, int]:
        """First, and one past the last, of the `size` outputs that depend on any input in [first, stop)."""
        low = -((self.after - first) // self.stride)  # ceil((first - after) / stride)
        high = (stop - 1 + self.before) // self.stride + 1
        return max(low, 0), min(high, size)

    def needed(self, first: int, stop: int, size: int) -> tuple[int, int]:
        """First, and one past the last, of the `size` inputs to run on for the outputs [first, stop).

        Outputs are counted from the cut, so it lies on a whole stride or at the edge.
        """
        low = (first * self.stride - self.before) // self.stride * self.stride
        high = (stop - 1) * self.stride + self.after + 1
        return max(low, 0), min(high, size)


#: Along height and width.
Reaches = tuple[Reach, Reach]
_POINT: Reaches = (Reach(), Reach())


def join(several: Sequence[Reaches | None]) -> Reaches | None:
    """The reach of what takes several inputs at the same places; None where they do not lie on one grid."""
    known = [each for each in several if each is not None]
    if len(known) < len(several) or not known:
        return None
    axes = []
    for axis in (0, 1):
        ways = [each[axis] for each in known]
        if len({way.stride for way in ways}) > 1:
            return None
        axes.append(Reach(ways[0].stride, max(w.before for w in ways), max(w.after for w in ways)))
    return axes[0], axes[1]


def of_module(module: nn.Module) -> Reaches | None:
    """The reach of one layer; None where an output may depend on all of the input, or is not known."""
    if isinstance(module, _POINTWISE):
        return _POINT
    if isinstance(module, nn.BatchNorm2d):
        return None if module.training or module.running_mean is None else _POINT
    if isinstance(module, nn.ZeroPad2d):
        left, _, top, _ = module.padding
        return None if min(module.padding) < 0 else (Reach(1, top, -top), Reach(1, left, -left))
    if isinstance(module, PackedConv):
        padding, stride, dilation, _ = module.geometry
        # Only until it packs its weights at the first call.
        return (
            None
            if module.weight is None
            else _of_window(tuple(module.weight.shape[2:]), stride, padding, dilation)
        )
    if type(module) is nn.Conv2d:
        plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        numbers: Any = (module.kernel_size, module.stride, module.padding, module.dilation)
        return _of_window(*numbers) if plain else None
    if type(module) in (nn.MaxPool2d, nn.AvgPool2d):
        pool: Any = module
        return _of_window(pool.kernel_size, pool.stride, pool.padding, getattr(pool, "dilation", 1))
    return None


def _of_window(kernel: Any, stride: Any, padding: Any, dilation: Any) -> Reaches:
    axes = []
    for axis in (0, 1):
        k, s, p, d = (
            v[axis] if isinstance(v, tuple | list) else v for v in (kernel, stride, padding, dilation)
        )
        axes.append(Reach(s, p, d * (k - 1) - p))
    return axes[0], axes[1]


@dataclass(frozen=True)
class Piece:
    """A part of a network between two cuts: feature map [B, C, H, W] -> feature map.

    Attributes:
        module: the part; shares its layers with the network.
        reach: along height and width.
    """

    module: nn.Module
    reach: Reaches


def split(net: nn.Module) -> tuple[list[Piece], nn.Module]:
    """Cut a frozen network into pieces of known reach and a rest.

    Args:
        net: as `graph.rewrite` gives it, not yet run; one that is no graph becomes the rest as a whole.

    Returns:
        (pieces in order, may be none; rest: [B, C, H, W] -> [B, d]). One after the other they compute what
        `net` does, in the same operations.
    """
    if not isinstance(net, fx.GraphModule):
        return [], net
    nodes = list(net.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    cuts = _cuts(net, nodes) if len(inputs) == 1 else []
    starts = [inputs[0], *(node for node, _ in cuts)]
    pieces = [
        Piece(_between(net, nodes, start, end), reach)
        for start, (end, reach) in zip(starts, cuts, strict=False)
    ]
    result: Any = nodes[-1].args[0]
    return pieces, _between(net, nodes, starts[-1], result)


def _cuts(net: fx.GraphModule, nodes: Sequence[fx.Node]) -> list[tuple[fx.Node, Reaches]]:
    """Where to cut, and the reach of each piece that ends there."""
    order = {node: i for i, node in enumerate(nodes)}
    last_use = [max((order[user] for user in node.users), default=i) for i, node in enumerate(nodes)]
    reach: dict[fx.Node, Reaches | None] = {}
    cuts: list[tuple[fx.Node, Reaches]] = []
    pending = 0  # until where anything but the node at hand is still used
    for i, node in enumerate(nodes):
        pending = max(pending, last_use[i - 1] if i else 0)
        here = reach[node] = _POINT if node.op == "placeholder" else _reach(net, node, reach)
        if pending > i or node.op in ("placeholder", "output"):
            continue
        if here is None:
            break
        if here != _POINT:
            cuts.append((node, here))
            reach[node] = _POINT
    return cuts


def _reach(net: fx.GraphModule, node: fx.Node, reach: dict[fx.Node, Reaches | None]) -> Reaches | None:
    """The reach of a node, from the last cut."""
    if node.op == "call_module":
        module = net.get_submodule(str(node.target))
        first, *others = (reach[each] for each in node.all_input_nodes)
        own = of_module(module)
        through = None if first is None or own is None else (first[0].then(own[0]), first[1].then(own[1]))
        return join([through, *others])
    known = node.target in _METHODS if node.op == "call_method" else node.target in _FUNCTIONS
    if known or _joins_channels(node):
        return join([reach[each] for each in node.all_input_nodes])
    return None


def _joins_channels(node: fx.Node) -> bool:
    if node.op != "call_function" or node.target is not torch.cat:
        return False
    return bool((node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)) == 1)


def _between(net: fx.GraphModule, nodes: Sequence[fx.Node], start: fx.Node, end: fx.Node) -> nn.Module:
    """The graph from one node's value to another's."""
    graph = fx.Graph()
    copies = {start: graph.placeholder("x")}
    order = {node: i for i, node in enumerate(nodes)}
    for node in nodes[order[start] + 1 : order[end] + 1]:
        copies[node] = graph.node_copy(node, lambda each: copies[each])
    graph.output(copies[end])
    return fx.GraphModule(net, graph)
