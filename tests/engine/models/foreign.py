"""SimCLR's and BYOL's networks in their own terms, and pickles as their authors wrote them.

Channels last, kernels HWIO, variables in the order of creation or by module path, TensorFlow's padding.
"""

import contextlib
import io
import pickle
import sys
import types
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck, ResNet

Variables = dict[str, np.ndarray]
#: A bottleneck network of another depth, so that nothing is right by the size of ResNet-50 alone.
BLOCKS = (2, 1, 3, 1)
EPSILON = 1e-5


def small_resnet() -> nn.Module:
    """torchvision's bottleneck ResNet with narrow inner convolutions, headless."""
    net = ResNet(Bottleneck, list(BLOCKS), width_per_group=4)
    net.fc = nn.Identity()
    return net.eval()


def pads(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """SAME, by trying: the fewest zeros that give ceil(length / stride) places, the odd one after."""
    wanted = (length + stride - 1) // stride
    total = 0
    while (length + total - kernel) // stride + 1 < wanted:
        total += 1
    return total // 2, total - total // 2


def _pad(
    x: torch.Tensor, vertical: tuple[int, int], horizontal: tuple[int, int], value: float
) -> torch.Tensor:
    return functional.pad(x, (0, 0, *horizontal, *vertical), value=value)


def _windows(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    return x.unfold(1, kernel, stride).unfold(2, kernel, stride)  # [N, H', W', C, kh, kw]


def convolve(x: torch.Tensor, kernel: np.ndarray, stride: int, same: bool) -> torch.Tensor:
    """x [N, H, W, C], kernel [kh, kw, C, O]. Not `same`: SimCLR's fixed padding, (k - 1) // 2 before."""
    size = kernel.shape[0]
    sides = [
        pads(n, size, stride) if same else ((size - 1) // 2, size - 1 - (size - 1) // 2) for n in x.shape[1:3]
    ]
    x = _pad(x, sides[0], sides[1], 0.0)
    return torch.einsum("nhwcij,ijco->nhwo", _windows(x, size, stride), torch.from_numpy(kernel).double())


def max_pool(x: torch.Tensor) -> torch.Tensor:
    x = _pad(x, pads(x.shape[1], 3, 2), pads(x.shape[2], 3, 2), -torch.inf)
    return _windows(x, 3, 2).amax((-2, -1))


def batch_norm(x: torch.Tensor, gamma: Any, beta: Any, mean: Any, var: Any) -> torch.Tensor:
    g, b, m, v = (torch.from_numpy(np.ravel(a)).double() for a in (gamma, beta, mean, var))
    return (x - m) / torch.sqrt(v + EPSILON) * g + b


class Network:
    """A ResNet v1.5 that gets every layer from `layer(path)`: a function of (x, kernel, out, stride)."""

    def __init__(self, layer: Callable[..., torch.Tensor]) -> None:
        self.layer = layer

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer("initial", x, 7, 64, 2).relu()
        x = max_pool(x)
        for group, count in enumerate(BLOCKS):
            for block in range(count):
                stride = 2 if group and not block else 1
                x = self._bottleneck(f"block_group_{group}/~/block_{block}", x, group, block, stride)
        return x.mean((1, 2))

    def _bottleneck(self, path: str, x: torch.Tensor, group: int, block: int, stride: int) -> torch.Tensor:
        inner, outer = 2**group * 4, 2**group * 256
        shortcut = x if block else self.layer(f"{path}/~/shortcut", x, 1, outer, stride)
        y = self.layer(f"{path}/~/0", x, 1, inner, 1).relu()
        y = self.layer(f"{path}/~/1", y, 3, inner, stride).relu()
        y = self.layer(f"{path}/~/2", y, 1, outer, 1)
        return (y + shortcut).relu()


def _draw(
    random: np.random.Generator, kernel: int, channels: int, out: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    scale = 1.4 / np.sqrt(kernel * kernel * channels)
    weight = random.normal(0, scale, (kernel, kernel, channels, out)).astype(np.float32)
    norm = [random.uniform(0.5, 1.5, out), random.normal(0, 0.2, out), random.normal(0, 0.2, out)]
    return weight, [a.astype(np.float32) for a in (*norm, random.uniform(0.5, 2, out))]


def simclr(x: torch.Tensor) -> tuple[torch.Tensor, Variables]:
    """Features [N, d] of x [N, H, W, 3] by a SimCLR network, and the variables that it made on the way."""
    random = np.random.default_rng(1)
    made: Variables = {"global_step": np.array(7, np.int64)}

    def name(kind: str) -> str:  # as TensorFlow makes names unique
        count = sum(n.split("/")[1].startswith(kind) for n in made if n.endswith(("kernel", "gamma")))
        return f"base_model/{kind}" + (f"_{count}" if count else "")

    def layer(path: str, x: torch.Tensor, kernel: int, out: int, stride: int) -> torch.Tensor:
        weight, (gamma, beta, mean, var) = _draw(random, kernel, x.shape[-1], out)
        conv, norm = name("conv2d"), name("batch_normalization")
        made[f"{conv}/kernel"] = weight
        made[f"{conv}/kernel/Momentum"] = np.zeros_like(weight)
        made.update({f"{norm}/gamma": gamma, f"{norm}/beta": beta})
        made.update({f"{norm}/moving_mean": mean, f"{norm}/moving_variance": var})
        # Unstrided convolutions are SAME in SimCLR, which for odd kernels is the same.
        return batch_norm(convolve(x, weight, stride, same=stride == 1), gamma, beta, mean, var)

    features = Network(layer)(x)
    made["head_contrastive/nl_0/dense/kernel"] = np.zeros((3, 4), np.float32)
    return features, made


def byol(x: torch.Tensor) -> tuple[torch.Tensor, dict[str, dict[str, Variables]]]:
    """Features of x by a BYOL network, and its `online_params` and `online_state`."""
    random = np.random.default_rng(2)
    params: dict[str, Variables] = {}
    state: dict[str, Variables] = {}

    def layer(path: str, x: torch.Tensor, kernel: int, out: int, stride: int) -> torch.Tensor:
        weight, norm = _draw(random, kernel, x.shape[-1], out)
        gamma, beta, mean, var = (a.reshape(1, 1, 1, -1) for a in norm)
        folder, _, last = path.rpartition("/")
        numbered = last.isdigit()
        head = f"res_net50/~/{folder}/" if folder else "res_net50/~/"
        conv = f"conv_{last}" if numbered else f"{last}_conv"
        batch = f"batchnorm_{last}" if numbered else f"{last}_batchnorm"
        params[head + conv] = {"w": weight}
        params[head + batch] = {"scale": gamma, "offset": beta}
        for which, value in (("mean", mean), ("var", var)):
            state[f"{head}{batch}/~/{which}_ema"] = {
                "average": value,
                "hidden": value * 3,
                "counter": np.array(5, np.int32),
            }
        return batch_norm(convolve(x, weight, stride, same=True), gamma, beta, mean, var)

    features = Network(layer)(x)
    params["projector/~/linear_0"] = {"w": np.ones((2, 2), np.float32)}
    params["projector/~/batch_norm"] = {"scale": np.ones(2, np.float32), "offset": np.ones(2, np.float32)}
    params["predictor/~/linear_0"] = {"w": np.ones((2, 2), np.float32)}
    params["classifier"] = {"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)}
    return features, {"online_params": params, "online_state": state}


# --- pickles ----------------------------------------------------------------------------------------


class _Mapping:
    """What Haiku's immutable mapping pickles to: its class, called with one dict."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = {k: _Mapping(v) if isinstance(v, dict) else v for k, v in values.items()}

    def __reduce__(self) -> Any:
        return _Mapping, (self.values,)


def _create_namedtuple(name: str, fields: Any, module: str) -> Any:
    raise AssertionError("dill is not here")


class _DeviceArray:
    """jax's array, that pickles around numpy's."""

    def __init__(self, value: np.ndarray) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        made, arguments, state = self.value.__reduce__()
        return _device, (made, arguments, state, {"weak_type": False, "named_shape": {}})


def _device(*arguments: Any) -> Any:
    raise AssertionError("jax is not here")


class _Pickler(pickle.Pickler):
    """Stores named tuples by value, as dill does."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) and issubclass(obj, tuple) and hasattr(obj, "_fields"):
            return _create_namedtuple, (obj.__name__, obj._fields, "byol.byol_experiment")
        return NotImplemented


#: Name that the pickle asks for -> what is pickled here.
_FOREIGN = {
    ("haiku._src.data_structures", "FlatMapping"): _Mapping,
    ("dill._dill", "_create_namedtuple"): _create_namedtuple,
    ("jax._src.device_array", "reconstruct_device_array"): _device,
}


@contextlib.contextmanager
def named(foreign: Mapping[tuple[str, str], Any]) -> Iterator[None]:
    """Give objects of ours the names of others' for a moment, so that the pickler writes these."""
    before = {value: (value.__module__, value.__qualname__) for value in foreign.values()}
    added = set()
    for (module, name), value in foreign.items():
        parts = module.split(".")
        for n in range(1, len(parts) + 1):  # the parents as well
            if (whole := ".".join(parts[:n])) not in sys.modules:
                sys.modules[whole] = types.ModuleType(whole)
                added.add(whole)
        setattr(sys.modules[module], name, value)
        value.__module__, value.__qualname__ = module, name
    try:
        yield
    finally:
        for value, (module, name) in before.items():
            value.__module__, value.__qualname__ = module, name
        for module in added:
            del sys.modules[module]


ExperimentState = namedtuple(
    "_ByolExperimentState", "online_params target_params online_state target_state opt_state"
)
LarsState = namedtuple("ScaleByLarsState", "mu count")


def byol_pickle(trees: dict[str, Any], *, device: bool = False, old_numpy: bool = False) -> bytes:
    """A checkpoint as BYOL's training wrote it: dill, protocol 2."""

    def leaf(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: leaf(v) for k, v in value.items()}
        return _DeviceArray(value) if device and isinstance(value, np.ndarray) else value

    params, state = (_Mapping(leaf(trees[t])) for t in ("online_params", "online_state"))
    other = _Mapping({"classifier": {"w": np.full((2, 2), 9, np.float32)}})
    whole = {
        "experiment_state": ExperimentState(
            params, other, state, other, LarsState(OrderedDict(mu=other), np.int32(3))
        ),
        "step": 300_000,
        "rng": np.arange(2, dtype=np.uint32),
    }
    out = io.BytesIO()
    with named(_FOREIGN):
        _Pickler(out, protocol=2).dump(whole)
    data = out.getvalue()
    return data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n") if old_numpy else data
