"""Killed studies resume to the same report and records (`benchmarks.faults.study`, small)."""

import shutil
from pathlib import Path

import pytest

from benchmarks.faults import study
from tests.engine.study.drawn import QUICK

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def test_kills_leave_no_trace_and_the_comparison_sees_one(tmp_path: Path) -> None:
    said: list[str] = []
    result = study.run(kills=2, models=2, sets=1, evaluations=QUICK, work=tmp_path, say=said.append)
    assert result["problems"] == [] and result["ok"]
    assert (result["kills"], result["cells"]) == (2, 8)
    assert result["report_bytes"] > 10_000
    folder, file = tmp_path / "killed000", tmp_path / "killed.yaml"
    truth, report = study.records_of(file, folder), study.report_of(file, folder)
    records = sorted((folder / "study" / "banks" / "set0.bank" / "records").glob("*-knn-*.json"))
    shutil.copy(records[0], records[0].with_name("21000101T000000Z-knn-00000000.json"))
    assert sorted(map(len, study.records_of(file, folder).values()))[-1] == 2, "a cell made twice"
    records[0].with_name("21000101T000000Z-knn-00000000.json").unlink()
    records[1].unlink()
    assert study.records_of(file, folder) != truth
    assert study.report_of(file, folder) != report
