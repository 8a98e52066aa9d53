"""Files of a run: round trips, damage, room on the disk."""

import shutil
from collections import namedtuple
from math import inf, nan
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from engine.evals.finetune.checkpoints import CHECKPOINT, RunFolder, State, document_of
from engine.evals.finetune.curve import Curve, CurvePoint
from engine.evals.finetune.stopping import Stopping
from stores.errors import MachineFault

TENSORS = {"weights.a": torch.arange(6.0).reshape(2, 3), "momentum.a": torch.tensor([0.1, -3e-39])}
STATES = [
    State(),
    State(
        step=7,
        stopping=Stopping(3, 0.1 + 0.2, 1 / 3, 4, 2),
        curve=Curve((CurvePoint(4, 0.01, nan, 1 / 3, 0.1 + 0.2),)),
        loss_total=2 / 3,
        loss_count=3,
        scaler={"_growth_tracker": 5, "growth_factor": 2.0, "scale": 65536.0},
        failed={3: "truncated"},
        seconds=1.5,
    ),
]


@pytest.mark.parametrize("state", STATES)
def test_a_state_and_tensors_come_back_with_the_same_bits(state: State, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, {"lr": 0.1})
    folder.keep(CHECKPOINT, TENSORS, {"state": state.to_dict()})
    read = folder.read(CHECKPOINT)
    assert read is not None
    tensors, document = read
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS) and len(tensors) == 2
    body = document["state"]
    assert isinstance(body, dict) and repr(State.from_dict(body)) == repr(state)
    with safe_open(folder.path(CHECKPOINT), "pt") as other:  # any program reads it
        assert set(other.keys()) == set(TENSORS)
    assert document_of(Path(str(folder.path(CHECKPOINT))).read_bytes()) == document


def test_an_unbounded_best_value_is_infinite_again() -> None:
    read = State.from_dict(State().to_dict())
    assert (read.stopping.best, read.stopping.best_loss) == (-inf, inf)


def test_a_file_that_is_damaged_cut_short_or_of_other_settings_is_absent(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, {"lr": 0.1})
    assert folder.read(CHECKPOINT) is None
    folder.keep(CHECKPOINT, TENSORS, {"state": State().to_dict()})
    path = Path(str(folder.path(CHECKPOINT)))
    whole = path.read_bytes()
    for place in (0, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert folder.read(CHECKPOINT) is None, place
    for length in (0, 7, 100, len(whole) - 4):
        path.write_bytes(whole[:length])
        assert folder.read(CHECKPOINT) is None, length
    other = RunFolder(tmp_path, {"lr": 0.2})
    assert other.digest != folder.digest and other.relative != folder.relative
    Path(str(other.path(CHECKPOINT))).parent.mkdir(parents=True)
    Path(str(other.path(CHECKPOINT))).write_bytes(whole)
    assert other.read(CHECKPOINT) is None


def test_a_disk_without_room_is_a_fault_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, usage = RunFolder(tmp_path, {}), namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 0, 1500))
    folder.check_room(700)
    with pytest.raises(MachineFault, match="free space"):
        folder.check_room(800)
    folder.keep(CHECKPOINT, TENSORS, {})
    folder.check_room(800)  # the last one is there already
