"""The folder of a study: its lock, failures of cells, and what a run is doing now."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import Refused
from engine.study import failures
from engine.study.failures import Failure, failures_of
from engine.study.folder import Note, check, read_note
from engine.study.locking import holder_of, only_run
from engine.study.progress import note_nothing, note_running, running
from engine.study.study import Cell, Study

CELL = Cell("digits", "resnet50", "fewshot", "fewshot", "default", 0)
HOLD = """
import sys, time
from pathlib import Path
from engine.study.locking import only_run
with only_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_and_a_dead_ones_lock_is_free(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(Refused) as error, only_run(tmp_path):
            pass
        assert f"process {process.pid}" in error.value.found and "finished cells" in error.value.remedy
        assert holder_of(tmp_path) == str(process.pid)
        os.kill(process.pid, signal.SIGKILL)
    assert holder_of(tmp_path) is None
    with only_run(tmp_path):
        assert holder_of(tmp_path) == str(os.getpid())
    assert holder_of(tmp_path) is None


def test_what_runs_is_known_while_a_run_holds_the_lock(tmp_path: Path) -> None:
    note_running(tmp_path, [CELL], "embedding digits")
    assert running(tmp_path) == (frozenset(), ""), "a note that a killed run has left"
    with only_run(tmp_path):
        assert running(tmp_path) == ({CELL.digest}, "embedding digits")
        (tmp_path / "now.json").write_text("{")
        assert running(tmp_path) == (frozenset(), "")
        note_nothing(tmp_path)
        assert not (tmp_path / "now.json").exists()


def test_a_failure_is_kept_until_its_cell_succeeds(tmp_path: Path) -> None:
    cells = {CELL.digest: CELL}
    assert failures_of(tmp_path, cells) == {}
    failure = Failure.of(CELL, Refused("k = 99", "It is at most 9", "lower it"))
    failures.keep(tmp_path, failure)
    assert failures_of(tmp_path, cells) == {CELL.digest: failure}
    assert failure.why == "k = 99. It is at most 9. Remedy: lower it."
    assert failures_of(tmp_path, {}) == {}, "of a cell that the study does not have any more"
    path = tmp_path / "failures" / f"{CELL.digest}.json"
    assert json.loads(path.read_text())["exit_code"] == 2
    path.write_text("[]")
    assert failures_of(tmp_path, cells) == {}, "it is tried again"
    failures.keep(tmp_path, failure)
    failures.forget(tmp_path, CELL)
    failures.forget(tmp_path, CELL)
    assert failures_of(tmp_path, cells) == {}


def test_a_folder_in_which_a_run_was_stopped_at_once_is_its_own(tmp_path: Path) -> None:
    study = Study("x", "x", tmp_path, (), (), ())
    for name in ("lock", "study.yaml", ".study.json.12.tmp"):
        (tmp_path / name).touch()
    check(tmp_path, study)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(Refused, match="something else"):
        check(tmp_path, study)
    (tmp_path / "mine.txt").unlink()
    Note("y", "/").write(tmp_path)
    with pytest.raises(Refused, match="study 'y'"):
        check(tmp_path, study)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"study": "a", "root": "b", "embedded": 1}', "\x00"])
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    Note("a", "/b", {"x.bank": "1"}, "2").write(tmp_path)
    assert read_note(tmp_path) == Note("a", "/b", {"x.bank": "1"}, "2")
    (tmp_path / "study.json").write_text(text)
    assert read_note(tmp_path) is None
