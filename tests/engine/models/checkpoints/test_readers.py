"""Published containers: what is selected, renamed and turned, against networks in their authors' terms."""

import argparse
import os
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from engine.errors import WeightsError
from engine.models.backbones import architectures, modifiers
from engine.models.catalog.families import ROWS
from engine.models.checkpoints import weights
from engine.models.checkpoints.formats import key_maps
from engine.models.checkpoints.readers import HaikuPickle, TensorFlowCheckpoint, TorchFile
from tests.engine.models import foreign, tables
from tests.engine.models.plain import settle

TORCH = {
    row.slug: row.source.reader for row in ROWS if isinstance(getattr(row.source, "reader", None), TorchFile)
}


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _filled(tensors: dict[str, torch.Tensor], modifier: str = "") -> nn.Module:
    net = foreign.small_resnet()
    weights.fit(net, tensors, ())
    return (modifiers.apply(net, modifier) if modifier else net).double().eval()


def _features(net: nn.Module, picture: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return net(picture.permute(0, 3, 1, 2))


# --- SimCLR -----------------------------------------------------------------------------------------


def test_simclr_computes_what_its_own_network_computes(picture: torch.Tensor, tmp_path: Path) -> None:
    expected, made = foreign.simclr(picture)
    path = tables.zipped(tables.bundle(made, "ResNet50_1x/model.ckpt-7"), tmp_path / "w.zip")
    contents = TensorFlowCheckpoint(blocks=foreign.BLOCKS).read(path)
    faithful = _features(_filled(contents.tensors, "samepool"), picture)
    torch.testing.assert_close(faithful, expected, rtol=1e-9, atol=1e-9)
    plain = _features(_filled(contents.tensors), picture)
    assert float((plain - expected).abs().max()) > 1e-3  # torchvision's max-pool is another one
    assert "head_contrastive/nl_0/dense/kernel" in contents.left_out
    assert "base_model/conv2d/kernel/Momentum" in contents.left_out


def test_simclr_with_a_variance_below_zero_is_refused(picture: torch.Tensor, tmp_path: Path) -> None:
    _, made = foreign.simclr(picture)
    made["base_model/batch_normalization_3/moving_variance"][2] = -0.5
    path = tables.zipped(tables.bundle(made, "ResNet50_1x/model.ckpt-7"), tmp_path / "w.zip")
    with pytest.raises(WeightsError, match=r"variances below zero in 1 .*running_var -0\.5"):
        _filled(TensorFlowCheckpoint(blocks=foreign.BLOCKS).read(path).tensors)


def test_simclr_with_a_stray_variable_is_refused(tmp_path: Path) -> None:
    names = key_maps.simclr(foreign.BLOCKS)
    made = {name: np.zeros(1, np.float32) for name in names}
    made["base_model/conv2d_99/kernel"] = np.zeros(1, np.float32)
    path = tables.zipped(tables.bundle(made, "model.ckpt-7"), tmp_path / "w.zip")
    with pytest.raises(WeightsError, match="conv2d_99"):
        TensorFlowCheckpoint(blocks=foreign.BLOCKS).read(path)


def test_names_of_resnet50_cover_its_tensors() -> None:
    net = architectures.build_seeded("torchvision/resnet50", 0)
    wanted = {name for name in net.state_dict() if not name.endswith("num_batches_tracked")}
    assert len(wanted) == 53 + 4 * 53
    assert set(key_maps.simclr().values()) == wanted
    assert set(key_maps.byol().values()) == wanted
    assert len(key_maps.simclr()) == len(key_maps.byol()) == len(wanted)


# --- BYOL -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"device": True}, {"old_numpy": True}], ids=str)
def test_byol_computes_what_its_own_network_computes(
    options: dict[str, bool], picture: torch.Tensor, tmp_path: Path
) -> None:
    expected, trees = foreign.byol(picture)
    path = tmp_path / "w.pkl"
    path.write_bytes(foreign.byol_pickle(trees, **options))
    contents = HaikuPickle(foreign.BLOCKS).read(path)
    faithful = _features(_filled(contents.tensors, "same"), picture)
    torch.testing.assert_close(faithful, expected, rtol=1e-9, atol=1e-9)
    assert float((_features(_filled(contents.tensors), picture) - expected).abs().max()) > 1e-3
    assert "online_params:classifier:w" in contents.left_out


def test_byol_with_a_variance_below_zero_is_refused(picture: torch.Tensor, tmp_path: Path) -> None:
    _, trees = foreign.byol(picture)
    name = next(n for n in trees["online_state"] if n.endswith("batchnorm_1/~/var_ema"))
    trees["online_state"][name]["average"].flat[0] = -0.5
    (tmp_path / "w.pkl").write_bytes(foreign.byol_pickle(trees))
    with pytest.raises(WeightsError, match=r"variances below zero in 1 .*running_var -0\.5"):
        _filled(HaikuPickle(foreign.BLOCKS).read(tmp_path / "w.pkl").tensors)


def test_byol_with_a_stray_parameter_is_refused(tmp_path: Path) -> None:
    trees: dict[str, Any] = {
        "online_params": {"res_net50/~/block_group_9/~/block_0/~/conv_0": {"w": np.zeros(1, np.float32)}},
        "online_state": {},
    }
    (tmp_path / "w.pkl").write_bytes(foreign.byol_pickle(trees))
    with pytest.raises(WeightsError, match="block_group_9"):
        HaikuPickle(foreign.BLOCKS).read(tmp_path / "w.pkl")


# --- PyTorch containers, as each project wrote them ---------------------------------------------------


def _prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


def _moco(state: dict[str, Any], head: str, released: bool) -> dict[str, Any]:
    query = {k: v for k, v in state.items() if not k.startswith(head)}
    query |= {f"{head}.0.weight": torch.zeros(4, 4), f"{head}.2.bias": torch.zeros(4)}
    whole = _prefixed(query, "module.encoder_q.")
    if not released:
        other = {k: torch.full_like(v, 7) for k, v in query.items()}
        whole |= _prefixed(other, "module.encoder_k.")
        whole |= {"module.queue": torch.zeros(4, 9), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    extra = {"epoch": 800, "arch": "resnet50", "optimizer": {"state": {}, "param_groups": [{"lr": 0.03}]}}
    return {**extra, "args": argparse.Namespace(lr=0.03), "state_dict": OrderedDict(whole)}


def _lightning(state: dict[str, Any]) -> dict[str, Any]:
    query = {k: v for k, v in state.items() if not k.startswith("classifier")}
    query |= {"classifier.weight": torch.zeros(128, 1024), "classifier.bias": torch.zeros(128)}
    key = {k: torch.full_like(v, 7) for k, v in query.items()}
    tensors = _prefixed(query, "model.encoder_q.") | _prefixed(key, "model.encoder_k.")
    return {"state_dict": {**tensors, "model.queue": torch.zeros(128, 9), "model.queue_ptr": torch.zeros(1)}}


def _pirl(state: dict[str, Any]) -> dict[str, Any]:
    tensors = _prefixed({k: v for k, v in state.items() if not k.startswith("fc.")}, "module.encoder.")
    heads = {"module.head.0.weight": torch.zeros(2, 2), "module.head_jig.fc1.weight": torch.zeros(2, 2)}
    return {
        "opt": argparse.Namespace(method="PIRL"),
        "model": tensors | heads,
        "contrast": {"memory": torch.zeros(3)},
    }


def _swav(state: dict[str, Any]) -> dict[str, Any]:
    tensors = {k: v for k, v in state.items() if not k.startswith("fc.")}
    heads = {"projection_head.0.weight": torch.zeros(2, 2), "prototypes.weight": torch.zeros(3, 2)}
    return OrderedDict(_prefixed(tensors | heads, "module."))


def _dotted(state: dict[str, Any]) -> dict[str, Any]:
    """DenseNet's older names."""
    found = {}
    for key, value in state.items():
        for part in ("norm1", "norm2", "conv1", "conv2") if "denselayer" in key else ():
            key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        found[key] = value
    return found


CONTAINERS: dict[str, Any] = {
    "moco-v2": lambda s: _moco(s, "fc", True),
    "swav": _swav,
    "pirl": _pirl,
    "supervised-r50": dict,
    "supervised-r18": dict,
    "supervised-d121": _dotted,
    "supervised-squeezenet": dict,
    "mimic-chexpert-lr0.01": _lightning,
    "moco-cxr-r18": lambda s: _moco(s, "fc", False),
    "moco-cxr-d121": lambda s: _moco(s, "classifier", False),
}


@pytest.mark.slow
@pytest.mark.parametrize("slug", CONTAINERS)
def test_torch_containers(slug: str, tmp_path: Path) -> None:
    """Random tensors in the project's container come back under torchvision's names, and no others."""
    row = next(row for row in ROWS if row.slug == slug)
    name = row.architecture.removeprefix("torchvision/")
    state = settle(models.get_model(name, weights=None)).state_dict()
    path = tmp_path / "w.pth.tar"
    torch.save(CONTAINERS[slug](state), path)
    contents = TORCH[slug].read(path)
    net = architectures.build_seeded(row.architecture, 5)
    weights.fit(net, contents.tensors, ())
    loaded = net.state_dict()
    head = ("fc.", "classifier.")
    assert set(loaded) == {k for k in state if not k.startswith(head)}
    assert all(torch.equal(loaded[k], state[k]) for k in loaded)


def test_the_prefix_is_taken_off_the_start_alone(tmp_path: Path) -> None:
    state = {"module.a.module.b": torch.ones(1), "a.module.b": torch.zeros(1), "modulex": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pth")
    contents = TorchFile("", "module.").read(tmp_path / "w.pth")
    assert set(contents.tensors) == {"a.module.b"}
    assert torch.equal(contents.tensors["a.module.b"], torch.ones(1))
    assert contents.left_out == ("a.module.b", "modulex")


@pytest.mark.parametrize("reader", [TorchFile("state_dict"), TorchFile("", "nothing.")])
def test_other_containers_are_refused(reader: TorchFile, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError):
        reader.read(tmp_path / "w.pth")


# --- classes beside the tensors -----------------------------------------------------------------------


class _Callback:
    """Pickled under a name of pytorch_lightning."""


LIGHTNING = {("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"): _Callback}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_lightning_checkpoint(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    whole = {
        "state_dict": {"model.encoder_q.a": torch.ones(2)},
        "callbacks": {_Callback: {"best_model_score": torch.tensor(1.0)}},
        "saved": _Callback(),
        "hyper_parameters": {"data_path": Path("somewhere")},
    }
    with foreign.named(LIGHTNING):
        torch.save(whole, path, _use_new_zipfile_serialization=zipped)
    reader = TORCH["mimic-chexpert-lr0.1"]
    assert torch.equal(reader.read(path).tensors["a"], torch.ones(2))
    with pytest.raises(WeightsError, match="more than tensors"):
        TorchFile("state_dict", "model.encoder_q.").read(path)


class _Bomb:
    """Pickles to a call that would leave a trace."""

    def __init__(self, function: Any, *arguments: str) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


@pytest.mark.parametrize(
    "reader", [TORCH["mimic-chexpert-lr0.1"], TorchFile("state_dict", stand_ins=("posix",))]
)
@pytest.mark.parametrize("function", ["copyfile", "mkdir"])
def test_stand_ins_answer_listed_names_only(function: str, reader: TorchFile, tmp_path: Path) -> None:
    path, trace = tmp_path / "w.pt", tmp_path / "trace"
    bomb = (
        _Bomb(os.mkdir, str(trace)) if function == "mkdir" else _Bomb(shutil.copyfile, __file__, str(trace))
    )
    torch.save({"state_dict": {"model.encoder_q.a": torch.ones(2)}, "x": bomb}, path)
    with pytest.raises(WeightsError):
        reader.read(path)
    assert not trace.exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("whole", [True, False], ids=["module", "state dict"])
def test_torchxrayvision(whole: bool, tmp_path: Path) -> None:
    """Their DenseNet's features are ours, on grey pictures of their range."""
    xrv = pytest.importorskip("torchxrayvision")
    theirs = settle(xrv.models.DenseNet(num_classes=18, in_channels=1))
    theirs.op_threshs = torch.ones(18)
    path = tmp_path / "w.pt"
    torch.save(theirs if whole else theirs.state_dict(), path)
    contents = TORCH["xrv-densenet121"].read(path)
    ours = architectures.build_seeded("torchvision/densenet121+grey", 3)
    weights.fit(ours, contents.tensors, ())
    grey = (torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(3)) - 0.5) * 2048
    with torch.inference_mode():
        expected = theirs.double().features2(grey.double())
        found = ours.double()(grey.double().expand(2, 3, 64, 64))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_a_whole_module_in_the_older_format_is_refused(tmp_path: Path) -> None:
    """torch's restricted loader does not read it; the remedy is to save the tensors."""
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match="save its tensors"):
        TORCH["xrv-densenet121"].read(tmp_path / "w.pt")
