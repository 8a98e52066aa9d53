"""torch.compile on the CPU, without the fusions that hide NaN.

Its compiler, Inductor, has oneDNN apply ReLU, ReLU6 and hard sigmoid within a convolution or a linear layer.
oneDNN's clipping turns NaN into a bound (zero, for ReLU): a broken feature would look sound. Inductor's own
code keeps NaN, as torch's does.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch._inductor import config
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

_aten = torch.ops.aten


def compiled(net: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Compile for one shape, with the weights frozen into the code, and for one thread.

    Args:
        net: frozen, in eval mode, on the CPU.
    """
    run: Any = torch.compile(net, dynamic=False)

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = run(x)
        return result

    settings = {"freezing": True, "cpp.threads": 1, "post_grad_custom_pre_pass": PlainClips()}
    return config.patch(settings)(forward)  # type: ignore[no-any-return]


class PlainClips(CustomGraphPass):
    """Write clipping in a form that equals the usual one, but that Inductor does not give to oneDNN.

    relu(x) becomes max(x, 0), and min(max(x, a), b) becomes max(min(x, b), a), which is the same where
    a <= b.
    """

    def __call__(self, graph: fx.Graph) -> None:
        for node in list(graph.nodes):
            if node.target is _aten.relu.default:
                _replace(graph, node, _aten.clamp_min.default, (node.args[0], 0))
            elif node.target is _aten.clamp_max.default and not node.kwargs:
                self._swap(graph, node)

    def _swap(self, graph: fx.Graph, upper: fx.Node) -> None:
        lower, high = upper.args
        if not isinstance(lower, fx.Node) or lower.target is not _aten.clamp_min.default or lower.kwargs:
            return
        x, low = lower.args
        if isinstance(low, int | float) and isinstance(high, int | float) and low <= high:
            below = _inserted(graph, upper, _aten.clamp_max.default, (x, high))
            _replace(graph, upper, _aten.clamp_min.default, (below, low))

    def uuid(self) -> Any:
        return get_hash_for_files((__file__,))


def _inserted(graph: fx.Graph, before: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
    with graph.inserting_before(before):
        node = graph.call_function(target, args)
    node.meta.update(before.meta)  # same shape, type and strides
    return node


def _replace(graph: fx.Graph, old: fx.Node, target: Any, args: tuple[Any, ...]) -> None:
    old.replace_all_uses_with(_inserted(graph, old, target, args))
    graph.erase_node(old)
