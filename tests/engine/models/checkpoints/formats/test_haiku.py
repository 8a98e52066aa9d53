"""The Haiku pickle's reader: what it takes exactly, and hostile pickles that do nothing."""

import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.errors import WeightsError
from engine.models.checkpoints.formats import haiku
from tests.engine.models import foreign

F32 = np.float32
TREES = {
    "online_params": {
        "res_net50/~/initial_conv": {"w": np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(F32)},
        "a/b": {"scale": np.arange(4, dtype=np.float64).reshape(1, 1, 1, 4), "empty": np.zeros((0, 3), F32)},
    },
    "online_state": {"a/b/~/mean_ema": {"average": np.array(2.5, F32), "counter": np.array(5, np.int32)}},
}


def _read(folder: Path, content: bytes, **options: Any) -> dict[str, torch.Tensor]:
    path = folder / "w.pkl"
    path.write_bytes(content)
    return haiku.read(path, **options)


@pytest.mark.parametrize("options", [{}, {"device": True}, {"old_numpy": True}], ids=str)
def test_arrays_come_back(options: dict[str, bool], tmp_path: Path) -> None:
    found = _read(tmp_path, foreign.byol_pickle(TREES, **options))
    expected = {
        f"{tree}:{module}:{name}": array
        for tree, modules in TREES.items()
        for module, arrays in modules.items()
        for name, array in arrays.items()
    }
    assert set(found) == set(expected)  # and nothing of target or optimiser
    for name, array in expected.items():
        assert found[name].numpy().dtype == array.dtype
        np.testing.assert_array_equal(found[name].numpy(), array)
    assert [p.name for p in tmp_path.iterdir()] == ["w.pkl"]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_any_protocol_and_memory_order(protocol: int, tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(24, dtype=F32).reshape(2, 3, 4))
    scalar = np.float32(1.5)
    trees = {"online_params": {"m": {"w": array}}, "online_state": OrderedDict(m={"s": scalar})}
    found = _read(tmp_path, pickle.dumps({"experiment_state": trees}, protocol=protocol))
    np.testing.assert_array_equal(found["online_params:m:w"].numpy(), array)
    assert float(found["online_state:m:s"]) == 1.5


class _Call:
    """Pickles to a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def _with(value: Any) -> bytes:
    whole = {"experiment_state": {"online_params": {"m": {"w": value}}, "online_state": {}}, "step": 1}
    return pickle.dumps(whole, protocol=2)


def _global(name: str) -> bytes:
    """A bare look-up of a name, and a call of it with the text `touch`."""
    return b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\nX\x05\x00\x00\x00touch\x85R."


HOSTILE: dict[str, Any] = {
    "system": lambda t: _with(_Call(os.system, f"touch {t}")),
    "mkdir": lambda t: _with(_Call(os.mkdir, str(t))),
    "popen": lambda t: _with(_Call(subprocess.Popen, ["touch", str(t)])),
    "eval": lambda t: _with(_Call(eval, f"open({str(t)!r}, 'w')")),
    "open": lambda t: _with(_Call(open, str(t), "w")),
    "getattr": lambda t: _with(_Call(getattr, np.zeros(2), "tofile")),
    "import": lambda t: _with(_Call(__import__, "os")),
    "dill code": lambda t: _global("dill._dill _create_code"),
    "dill function": lambda t: _global("dill._dill _create_function"),
    "dill type": lambda t: _global("dill._dill _load_type"),
    "dill repr": lambda t: _global("dill._dill _eval_repr"),
    "dotted name": lambda t: b"\x80\x04\x8c\x05numpy\x8c\x0eos.path.exists\x93.",
    "haiku's own module": lambda t: _global("haiku._src.data_structures jax.os.system"),
    "look-alike": lambda t: _global("haiku._src.data_structures FlatMapping\x00"),
    "numpy load": lambda t: _global("numpy load"),
    "numpy fromfile": lambda t: _global("numpy.core.multiarray fromfile"),
    "numpy testing": lambda t: _global("numpy.testing._private.utils runstring"),
    "jax": lambda t: _global("jax._src.api jit"),
    "other codec": lambda t: _with(_Call(__import__("_codecs").encode, "x", "rot13")),
    "persistent": lambda t: b"\x80\x02X\x01\x00\x00\x00xQ.",
    "extension": lambda t: b"\x80\x02\x82\x01.",
    "objects": lambda t: _with(np.array([{}, "x"], dtype=object)),
    "texts": lambda t: _with(np.array(["x"])),
    "big-endian": lambda t: _with(np.zeros(3, ">f4")),
    "records": lambda t: _with(np.zeros(3, [("a", F32)])),
    "array subclass": lambda t: _with(np.zeros((2, 2), F32).view(np.matrix)),
    "no arrays": lambda t: _with("text"),
    "no state": lambda t: pickle.dumps({"params": {}}, protocol=2),
    "no dict": lambda t: pickle.dumps([1, 2], protocol=2),
    "too deep": lambda t: _with({"x": {"y": np.zeros(2, F32)}}),
    "separator in a name": lambda t: _with({"a:b": np.zeros(2, F32)}),
    "truncated": lambda t: foreign.byol_pickle(TREES)[:-300],
    "text": lambda t: b"these are no weights",
    "web page": lambda t: b"<!DOCTYPE html><html></html>",
    "claims too much": lambda t: b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", HOSTILE)
def test_corpus(case: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with pytest.raises(WeightsError) as caught:
        _read(tmp_path, HOSTILE[case](trace))
    assert str(tmp_path / "w.pkl") in caught.value.found
    assert not trace.exists()


def test_the_hostile_code_would_run(tmp_path: Path) -> None:
    pickle.loads(HOSTILE["mkdir"](tmp_path / "trace"))
    assert (tmp_path / "trace").is_dir()


def _repeated(length: int, after: bytes, times: int) -> bytes:
    """A text, and bytes made from it again and again; `after` each is an opcode."""
    start = b"\x80\x02]q\x00X" + length.to_bytes(4, "little") + b"x" * length + b"q\x010"
    return start + (b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R" + after) * times + b"."


def test_memory_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten gigabytes of bytes from a file of two megabytes."""
    monkeypatch.setattr(haiku, "_MEMORY", (6, 64 << 20))
    with pytest.raises(WeightsError, match="needs more memory"):
        _read(tmp_path, _repeated(1_000_000, b"a", 10_000))


@pytest.mark.slow
def test_time_is_limited(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="limits"):
        _read(tmp_path, _repeated(10_000_000, b"0", 20_000), seconds=1)
