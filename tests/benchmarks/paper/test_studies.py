"""A study that was run: its values, and its report against the paper."""

import json
from pathlib import Path

import pytest

from benchmarks.paper.ours import values_of
from benchmarks.paper.sources import read_sources
from tests.command import embank
from tests.engine.study.drawn import run, study_file

EVALUATIONS = """
  fewshot:
    {n_way: 2, n_shot: 2, n_query: 2, episodes: 20, controls: false, modes: [default, as-published]}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    _, outcome = run(study_file(folder, evaluations=EVALUATIONS), folder / "study")
    assert not outcome.failures and outcome.cells == outcome.done
    return folder / "study"


@pytest.mark.slow
def test_values_of_a_study_are_those_of_its_cells(study):
    records = [json.loads(path.read_text()) for path in study.glob("banks/*/records/*-fewshot-*.json")]
    expected = {
        (body["asked"]["model"], body["asked"]["mode"]): 100 * body["metrics"]["accuracy"] for body in records
    }
    assert len(expected) == 4
    # A run beside the study, whose record is of no cell and has another number of episodes.
    (bank,) = study.glob("banks/*.bank")
    words = ("--model", "random/resnet18", "--n-way", 2, "--n-shot", 2, "--n-query", 2, "--episodes", 10)
    assert embank("fewshot", bank, *words, "--device", "cpu").code == 0
    values = values_of(study).values
    assert {(value.model, value.mode): value.value for value in values} == pytest.approx(expected)
    assert {value.dataset for value in values} == {"set0"} == {s.name for s in read_sources(study)}
    assert {value.n for value in values} == {20}
    assert {value.n for value in values_of(bank).of().where(model="random/resnet18")} == {10}


@pytest.mark.slow
def test_the_report_of_a_study_is_set_against_the_paper(study, tmp_path):
    out = tmp_path / "report.html"
    ran = embank("report", study, "-o", out, "--against", "paper", "--no-timings", "--tables", tmp_path / "t")
    assert ran.code == 0, ran.err
    text = out.read_text()
    assert "Against the paper" in text and "disagreements on methods" in text
    effects = (tmp_path / "t" / "paper-table-3-effects.csv").read_text().splitlines()
    assert len(effects) == 3  # a heading, and the effect of the mode on two models
    again = tmp_path / "again.html"
    assert embank("report", study, "-o", again, "--against", "paper", "--no-timings").code == 0
    assert again.read_bytes() == out.read_bytes()
