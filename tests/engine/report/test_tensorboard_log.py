"""Event files as TensorBoard's own reader sees them, while they are written and after a resumed run."""

import importlib.util
import resource
import subprocess
import sys
from math import inf, nan
from pathlib import Path

import pytest

from engine.errors import MachineFault, Refused
from engine.report import tensorboard_log
from engine.report.tensorboard_log import TensorBoardLog, check_log
from stores.bank.layout import RUN_DOCUMENT


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return tag -> (step, value) of a folder, read as TensorBoard reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("tensorboard")


def test_a_running_tensorboard_sees_each_validation(tmp_path: Path) -> None:
    with TensorBoardLog(tmp_path / "runs" / "a") as log:
        log.add(200, {"loss/train": 0.75, "loss/validation": 1.5, "learning rate": 0.0078125})
        assert scalars(tmp_path / "runs" / "a") == {
            "loss/train": [(200, 0.75)],
            "loss/validation": [(200, 1.5)],
            "learning rate": [(200, 0.0078125)],
        }
        log.add(400, {"loss/train": 0.5})
        assert scalars(tmp_path / "runs" / "a")["loss/train"] == [(200, 0.75), (400, 0.5)]


def test_a_resumed_run_takes_the_place_of_the_steps_that_were_lost(tmp_path: Path) -> None:
    with TensorBoardLog(tmp_path) as log:
        for step in (200, 400, 600):
            log.add(step, {"loss/train": 1.0})
    with TensorBoardLog(tmp_path, 400) as log:  # stopped before the checkpoint of step 400 was whole
        log.add(400, {"loss/train": 0.5})
    assert scalars(tmp_path)["loss/train"] == [(200, 1.0), (400, 0.5)]


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    with TensorBoardLog(tmp_path) as log:
        log.add(0, {"loss/train": nan, "loss/validation": inf, "score/validation accuracy": 0.25})
    assert scalars(tmp_path) == {"score/validation accuracy": [(0, 0.25)]}


def test_without_tensorboard_it_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tensorboard_log.unavailable_reason.cache_clear()
    try:
        with pytest.raises(Refused, match="not installed here") as caught:
            check_log(tmp_path / "runs")
    finally:
        tensorboard_log.unavailable_reason.cache_clear()
    assert "embank[tensorboard]" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_broken_installation_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> object:
        raise TypeError("Descriptors cannot be created directly")

    monkeypatch.setattr(importlib, "import_module", broken)
    tensorboard_log.unavailable_reason.cache_clear()
    try:
        with pytest.raises(Refused, match="TypeError: Descriptors cannot"):
            check_log(tmp_path)
    finally:
        tensorboard_log.unavailable_reason.cache_clear()


def test_a_bank_or_a_file_is_no_place_for_it(tmp_path: Path) -> None:
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / RUN_DOCUMENT).write_text("{}")
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="lies in the bank"):
        check_log(tmp_path / "bank" / "runs")
    with pytest.raises(Refused, match="is not a folder"):
        check_log(tmp_path / "file")


def test_a_full_disk_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with TensorBoardLog(tmp_path) as log:
        log.add(1, {"loss/train": 1.0})
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 8, before[1]))
            with pytest.raises(MachineFault, match="File too large"):
                log.add(2, {"loss/train": 2.0})
            assert scalars(tmp_path)["loss/train"] == [(1, 1.0)]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_importing_it_imports_neither_tensorboard_nor_torch() -> None:
    code = "import sys, engine.report.tensorboard_log; assert not {'tensorboard', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
