"""torch.compile on the CPU, without the fusions that hide NaN.

Its compiler, Inductor, lets oneDNN apply ReLU, ReLU6 and hard sigmoid within a convolution or a linear layer.
oneDNN clips NaN to a bound (zero for ReLU), so that a broken feature would look sound. Inductor's own code
keeps NaN, as torch's does.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch._inductor import config
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

_aten = torch.ops.aten


def compile_frozen(net: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Compile a network for one shape and one thread, with its weights as constants.

    Args:
        net: frozen, in eval mode, on the CPU.
    """
    run: Any = torch.compile(net, dynamic=False)

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = run(x)
        return result

    settings = {"freezing": True, "cpp.threads": 1, "post_grad_custom_pre_pass": KeepNaN()}
    return config.patch(settings)(forward)  # type: ignore[no-any-return]


class KeepNaN(CustomGraphPass):
    """A pass that rewrites clipping into an equal form that Inductor does not pass on to oneDNN.

    relu(x) becomes max(x, 0), and min(max(x, a), b) becomes max(min(x, b), a), which is equal if a <= b.
    """

    def __call__(self, graph: fx.Graph) -> None:
        for node in list(graph.nodes):
            if node.target is _aten.relu.default:
                _replace(graph, node, _aten.clamp_min.default, (node.args[0], 0))
            elif node.target is _aten.clamp_max.default and not node.kwargs:
                self._swap_bounds(graph, node)

    def _swap_bounds(self, graph: fx.Graph, upper: fx.Node) -> None:
        lower, high = upper.args
        if not isinstance(lower, fx.Node) or lower.target is not _aten.clamp_min.default or lower.kwargs:
            return
        x, low = lower.args
        if isinstance(low, int | float) and isinstance(high, int | float) and low <= high:
            clipped = _insert(graph, upper, _aten.clamp_max.default, (x, high))
            _replace(graph, upper, _aten.clamp_min.default, (clipped, low))

    def uuid(self) -> Any:
        """Identify this pass in Inductor's cache of compiled graphs."""
        return get_hash_for_files((__file__,))


def _insert(graph: fx.Graph, before: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
    with graph.inserting_before(before):
        node = graph.call_function(target, args)
    node.meta.update(before.meta)  # same shape, type and strides
    return node


def _replace(graph: fx.Graph, old: fx.Node, target: Any, args: tuple[Any, ...]) -> None:
    old.replace_all_uses_with(_insert(graph, old, target, args))
    graph.erase_node(old)
