"""The first run: real pictures and real weights, judged by what they must show; and the shipped study."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine import models, quickstart
from engine.study.cells import cells_of
from engine.study.run import run_study
from engine.study.study import KINDS
from stores.bank.records import read_all
from tests.command import embank

PRETRAINED, UNTRAINED = "efficientnet-lite0", "random/resnet18"


def of_tiles() -> quickstart.Quickstart:
    """The few-shot part of the first run, on the smaller data set."""
    run = quickstart.quickstart()
    study = run.study
    sets = tuple(one for one in study.datasets if one.name == "tiles")
    few = tuple(replace(one, datasets=("tiles",)) for one in study.evaluations if one.kind == "fewshot")
    return replace(run, study=replace(study, datasets=sets, evaluations=few))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, run = tmp_path_factory.mktemp("quickstart") / "first", of_tiles()
    outcome = run_study(run.study, folder, file=run.file)
    assert outcome.failures == () and not outcome.impossible
    return folder


@pytest.mark.slow
def test_it_shows_what_pretraining_is_worth(made: Path) -> None:
    scores = {
        str(record.asked["model"]): record.metrics
        for record in read_all(made / "banks" / "tiles.bank")
        if record.kind == "fewshot"
    }
    pretrained, untrained = scores[PRETRAINED], scores[UNTRAINED]
    # ImageNet features must tell fundus, histology and phase contrast apart, better than an untrained net.
    assert pretrained["accuracy"] - pretrained["ci95"] > 0.9 > untrained["accuracy"] > 1 / 3
    run = of_tiles()
    # Four pictures were cut into the tiles: what the models differ by is no evidence, and the page says so.
    (sentence,) = [one for one in run.verdict(made) if "3-way 5-shot (accuracy)" in one]
    assert f"{PRETRAINED} and {UNTRAINED} cannot be told apart" in sentence and "over 4 patients" in sentence
    page = run.report(made)
    assert page == made / "report.html" and PRETRAINED in page.read_text("utf-8")


@pytest.mark.slow
def test_running_it_again_loads_no_model(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(models, "load", refuse)
    run = of_tiles()
    assert run_study(run.study, made, file=run.file).made == 0


def test_the_shipped_study_is_of_two_models_on_pictures_that_packages_ship() -> None:
    from engine import datasets

    study = quickstart.quickstart().study
    assert [model.slug for model in study.models] == [PRETRAINED, UNTRAINED]
    assert all(datasets.load(one.name).facts.embedded for one in study.datasets)
    assert {one.kind for one in study.evaluations} <= set(KINDS)
    assert len(cells_of(study)) == len({cell.digest for cell in cells_of(study)}) > 10


def test_the_command_ends_with_the_path_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study of its own in place of the shipped one, which takes a minute."""
    small = tmp_path / "small.yaml"
    small.write_text(
        "study: small\ndatasets: [tiles]\nmodels: [random/squeezenet1_1, random/shufflenet_v2_x0_5]\n"
        "embed: {side: 32}\ncontrols: false\n"
        "evaluations:\n  fewshot: {n_way: 3, n_shot: 2, n_query: 2, episodes: 5, group_disjoint: false}\n"
    )
    monkeypatch.setattr(quickstart, "shipped", lambda: {quickstart.STUDY: small})
    ran = embank("quickstart", "--dir", tmp_path / "first")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[-1] == str(tmp_path / "first" / "report.html") and Path(lines[-1]).is_file()
    assert "random/squeezenet1_1" in lines[0] + lines[1]
    again = json.loads(embank("quickstart", "--dir", tmp_path / "first", "--json").out)
    assert again["made"] == 0 and again["report"] == lines[-1] and again["verdict"]
