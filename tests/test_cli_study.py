"""`embank study` from the command line: exit codes, what is printed where, and JSON."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from benchmarks.faults.study import still
from engine.study.ledger import Ledger
from tests.command import embank
from tests.engine.study.drawn import QUICK, study_file

FAILING = "  many: {kind: fewshot, n_way: 2, n_shot: 900, n_query: 2, episodes: 20, controls: false}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study file, from which the study below it was made."""
    folder = tmp_path_factory.mktemp("cli")
    study_file(folder, 2, QUICK)
    with contextlib.chdir(folder):
        ran = embank("study", "run", "killed.yaml", "--device", "cpu", "--threads", 1)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[0].startswith("8 cells: 8 done; 8 made in ")
    assert ran.out.splitlines()[-1] == "killed/report.html"
    assert "8 missing" in ran.err and "set0 / comparison of knn: done in" in ran.err
    return folder


def test_a_finished_run_says_so_and_leaves_its_report(folder: Path) -> None:
    report = folder / "killed" / "report.html"
    before = report.stat().st_mtime_ns
    with contextlib.chdir(folder):
        ran = embank("study", "run", "killed.yaml", "--json")
    assert ran.code == 0 and ran.err == ""
    assert {name: ran.json[name] for name in ("study", "cells", "done", "made", "failed", "report")} == {
        "study": "killed",
        "cells": 8,
        "done": 8,
        "made": 0,
        "failed": [],
        "report": "killed/report.html",
    }
    assert report.stat().st_mtime_ns == before and b"<html" in report.read_bytes()


def test_status_shows_the_grid_of_a_file_or_a_folder(folder: Path) -> None:
    with contextlib.chdir(folder):
        by_file, by_folder = embank("study", "status", "killed.yaml"), embank("study", "status", "killed")
        cells = embank("study", "status", "killed", "--json").json["cells"]
        elsewhere = embank("study", "status", "killed.yaml", "--dir", "nowhere", "--json").json["totals"]
        followed = embank("study", "status", "killed", "--follow")
    assert by_file.code == by_folder.code == 0 and by_file.out == by_folder.out == followed.out
    rows = [line.split() for line in by_file.out.splitlines() if line.startswith("set0")]
    assert [row[1:] for row in rows] == [
        ["random/squeezenet1_1", "done", "done", "done"],
        ["random/resnet18", "done", "done", "done"],
        ["(comparison)", "done", "done"],
    ]
    assert max(map(len, by_file.out.splitlines())) <= 80
    assert [cell["state"] for cell in cells] == ["done"] * 8
    assert (elsewhere["missing"], elsewhere["done"]) == (8, 0)
    assert not (folder / "nowhere").exists()


def test_an_estimate_makes_nothing(folder: Path) -> None:
    with contextlib.chdir(folder):
        ran = embank("study", "run", "killed.yaml", "--dir", "new", "--estimate", "--json")
    assert ran.code == 0 and ran.json["totals"]["missing"] == 8 and ran.json["totals"]["seconds"] > 0
    assert not (folder / "new").exists()


def test_failed_cells_are_listed_at_the_end_and_exit_1(folder: Path) -> None:
    (folder / "failing.yaml").write_text((folder / "killed.yaml").read_text() + FAILING)
    with contextlib.chdir(folder):
        ran = embank("study", "run", "failing.yaml", "--no-report", "--json", "--device", "cpu")
        again = embank("study", "run", "failing.yaml", "--no-report", "--device", "cpu")
        status = embank("study", "status", "failing.yaml")
    assert ran.code == 1 and ran.json["made"] == 0 and ran.json["report"] is None
    labels = [failure["label"] for failure in ran.json["failed"]]
    assert labels == [
        "set0 / random/squeezenet1_1 / many",
        "set0 / random/resnet18 / many",
        "set0 / comparison of many",
    ]
    assert again.code == 1 and "3 failed" in again.out
    # Two cells for one reason, and their comparison.
    assert again.err.count("Failed: ") == 2 and again.err.count("Remedy: ") == 2
    assert f"Failed: {labels[0]} and {labels[1]}: " in again.err and f"Failed: {labels[2]}: " in again.err
    assert status.out.count("FAIL") >= 3 and status.err.count("Failed: ") == 2


@pytest.mark.slow
def test_ctrl_c_says_what_is_kept(folder: Path) -> None:
    text = (folder / "killed.yaml").read_text().replace("episodes: 20,", "episodes: 21,")
    long = "  reconstruct: {images: 4, networks: 3, steps: 3000}\n"
    (folder / "long.yaml").write_text(text.replace("study: killed", "study: long") + long)
    words = [sys.executable, "-m", "cli", "study", "run", "long.yaml", "--device", "cpu", "--threads", "1"]
    root = str(Path(__file__).parents[1])
    with subprocess.Popen(
        words, cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    ) as process:
        started = time.monotonic()
        while not list(folder.glob("long/banks/set0.bank/records/*-audit-*.json")):
            assert process.poll() is None and time.monotonic() - started < 120
            time.sleep(0.1)
        refused = embank("study", "run", folder / "long.yaml", "--dir", folder / "long")
        with contextlib.chdir(folder):
            running = embank("study", "status", "long", "--json").json["cells"]
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 130, err
    assert "Finished cells" in err and "Traceback" not in err
    assert refused.code == 2 and f"process {process.pid}" in refused.err
    assert sum(cell["state"] == "running" for cell in running) == 1
    with contextlib.chdir(folder):
        states = [cell["state"] for cell in embank("study", "status", "long", "--json").json["cells"]]
    assert states.count("running") == 0 and states.count("done") >= 5


@pytest.mark.slow
def test_workers_make_the_records_of_a_serial_run_with_as_many_threads(folder: Path) -> None:
    """Products by BLAS differ in their last bits by its threads: by default all, and one in a worker."""
    (folder / "spread.yaml").write_text((folder / "killed.yaml").read_text() + "  multiview: {}\n")
    shutil.copytree(folder / "killed", folder / "serial")
    with contextlib.chdir(folder), threadpool_limits(2, user_api="blas"):
        for words in (("--dir", "serial"), ("--dir", "spread", "--workers", 1)):
            options = ("--device", "cpu", "--threads", 1, "--no-report")
            ran = embank("study", "run", "spread.yaml", *options, *words)
            assert ran.code == 0, ran.err
    serial, spread = (records_in(folder / name / "banks" / "set0.bank") for name in ("serial", "spread"))
    assert len(serial) == 10 and serial == spread


def records_in(bank: Path) -> dict[str, str]:
    """Return cell -> its record as JSON, without what depends on the moment."""
    records = {}
    for entry in Ledger.of(bank).entries:
        assert entry.record is not None
        records[str(entry.record.used["cell"])] = json.dumps(still(entry.record.to_dict()), sort_keys=True)
    return records
