"""Layouts of checkpoints: the state dict is found under any key, or the message says what the file holds."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import WeightsError
from engine.models.backbones import architectures
from engine.models.checkpoints import state_dict, weights

FOLDER = Path(__file__).parents[1] / "data" / "edges" / "weights-model-state-dict"
NET = "torchvision/squeezenet1_1"
HEAD = ("classifier.",)
State = dict[str, torch.Tensor]

KEYS = [
    "state_dict", "model", "model_state_dict", "net", "state", "network", "encoder", "teacher", "student",
    "ema", "params", "weights", "backbone", "online_network", "model_ema", "net_G", "whatever",
]  # fmt: skip


@pytest.fixture(scope="module")
def state() -> State:
    """As torchvision saves it, with the classifier."""
    from torchvision import models

    torch.manual_seed(1)
    return dict(models.squeezenet1_1(weights=None).state_dict())


def other(state: State) -> State:
    return {name: tensor + 1 for name, tensor in state.items()}


def optimizer(state: State) -> dict[str, Any]:
    """As Adam's: moments of every tensor, with its shape, under numbers."""
    moments = {
        i: {"step": torch.tensor(1.0), "exp_avg": t, "exp_avg_sq": t} for i, t in enumerate(state.values())
    }
    return {"state": moments, "param_groups": [{"lr": 0.1, "params": list(range(len(state)))}]}


def load(content: Any, tmp_path: Path) -> tuple[State, weights.LoadReport]:
    """The tensors that the architecture has after a file was loaded."""
    path = tmp_path / "w.pth"
    torch.save(content, path)
    return load_file(path)


def load_file(path: Path) -> tuple[State, weights.LoadReport]:
    module = architectures.build_seeded(NET, 0)
    report = weights.fit(module, weights.read(path), HEAD, str(path))
    return dict(module.state_dict()), report


def assert_loaded(found: State, state: State) -> None:
    assert found
    for name, tensor in found.items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.pth")), ids=lambda path: path.stem)
def test_what_does_not_fit_says_what_the_file_holds(path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_file(path)
    key = {"net_layout": "net", "tutorial_layout": "model_state_dict"}[path.stem]
    assert f"{key} (1 tensor: conv1.weight (2, 2))" in caught.value.found
    assert "does not fit the architecture" in caught.value.found
    assert {"net_layout": "acc (float)", "tutorial_layout": "epoch (int)"}[path.stem] in caught.value.found


@pytest.mark.parametrize(
    ("key", "prefix"),
    [*((key, "") for key in KEYS), *(("net", each) for each in ("module.", "backbone.", "module.encoder."))],
)
def test_a_state_dict_is_found_under_any_key(key: str, prefix: str, state: State, tmp_path: Path) -> None:
    inner = OrderedDict((prefix + name, tensor) for name, tensor in state.items())
    content = {"epoch": 3, key: inner, "optimizer": optimizer(state), "loss": 0.1, "args": {"lr": 0.1}}
    found, report = load(content, tmp_path)
    assert_loaded(found, state)
    assert (report.container, report.prefix) == (key, prefix)


def test_layouts_that_are_nested(state: State, tmp_path: Path) -> None:
    found, report = load(
        {"net": {"state_dict": state, "step": 5}, "optimizer_state_dict": optimizer(state)}, tmp_path
    )
    assert_loaded(found, state)
    assert report.container == "net.state_dict"


def test_beside_others_the_dict_that_fits_is_taken(state: State, tmp_path: Path) -> None:
    """Not the first, nor the one of the most usual name."""
    projector = {"0.weight": torch.zeros(128, 512), "0.bias": torch.zeros(128)}
    found, report = load(
        {"state_dict": projector, "model": {"w": torch.zeros(1)}, "encoder": state}, tmp_path
    )
    assert_loaded(found, state)
    assert report.container == "encoder"


@pytest.mark.parametrize("keys", [("model", "ema"), ("student", "teacher"), ("state_dict", "state_dict_ema")])
def test_two_that_differ_are_refused_and_the_remedy_works(
    keys: tuple[str, str], state: State, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError) as caught:
        load({keys[0]: state, keys[1]: other(state)}, tmp_path)
    assert all(f"`{key}`" in caught.value.found for key in keys)
    code = caught.value.remedy[caught.value.remedy.index("torch.save(") :]
    names = {"torch": torch, "FILE": tmp_path / "w.pth", "NEW": tmp_path / "new.pth"}
    exec(code, names)
    assert_loaded(load_file(tmp_path / "new.pth")[0], other(state))


def test_two_that_are_equal_are_one(state: State, tmp_path: Path) -> None:
    """The heads and what was counted in training are no part of the features."""
    copied = {name: tensor.clone() for name, tensor in state.items()}
    copied["classifier.1.bias"] = copied["classifier.1.bias"] + 1
    found, report = load({"model": state, "ema": copied}, tmp_path)
    assert_loaded(found, state)
    assert report.container == "model"


def test_counters_do_not_make_a_difference(tmp_path: Path) -> None:
    from torchvision import models

    net = dict(models.shufflenet_v2_x0_5(weights=None).state_dict())
    later = {k: v + 9 if k.endswith("num_batches_tracked") else v for k, v in net.items()}
    torch.save({"model": net, "ema": later}, tmp_path / "w.pth")
    module = architectures.build_seeded("torchvision/shufflenet_v2_x0_5", 0)
    assert weights.fit(module, weights.read(tmp_path / "w.pth"), ("fc.",)).container == "model"


HOLDS: dict[str, tuple[Any, str]] = {
    "no tensors": ({"epoch": 3, "args": {"lr": 0.1}}, "epoch (int), args (dict of 1: lr)"),
    "nothing": ({}, "an empty dict"),
    "numbers for tensors": ({"w": 1.0, "b": 2.0}, "w (float), b (float)"),
    "tensors and more": (
        {"conv1.weight": torch.zeros(2, 3), "epoch": 1},
        "1 tensor: conv1.weight (2, 3), epoch (int)",
    ),
    "an optimizer alone": (
        {"optimizer": {"state": {0: {"m": torch.zeros(1)}}}},
        "optimizer (dict of 1: state)",
    ),
    "much": ({f"k{i}": i for i in range(50)}, "44 more"),
    "a long name": ({"k" * 500: 1}, "k" * 57 + "..."),
}


@pytest.mark.parametrize("kind", HOLDS)
def test_a_file_without_state_dict_is_described(kind: str, tmp_path: Path) -> None:
    content, said = HOLDS[kind]
    with pytest.raises(WeightsError) as caught:
        load(content, tmp_path)
    assert "holds no state dict" in caught.value.found
    assert said in caught.value.found


def test_one_that_does_not_fit_is_named_by_what_it_lacks(state: State, tmp_path: Path) -> None:
    short = {name: tensor for name, tensor in state.items() if name != "features.0.bias"}
    with pytest.raises(
        WeightsError, match=r"1 missing \(features\.0\.bias\); the file holds epoch \(int\), net"
    ):
        load({"epoch": 1, "net": short, "head": {"w": torch.zeros(1)}}, tmp_path)


def test_a_bottomless_file_is_looked_at_for_a_while_only() -> None:
    loop: dict[str, object] = {"a": 1}
    loop["b"] = loop["c"] = loop
    assert list(state_dict.candidates(loop)) == []


def test_a_library_that_arranges_its_tensors_gets_the_only_dict(state: State) -> None:
    assert state_dict.only(state, "w") == state
    assert state_dict.only({"epoch": 1, "net": state}, "w") is state
    with pytest.raises(WeightsError, match="2 different"):
        state_dict.only({"a": state, "b": other(state)}, "w")
    with pytest.raises(WeightsError, match="epoch"):
        state_dict.only({"epoch": 1}, "w")
