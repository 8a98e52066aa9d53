"""`--model all` is every finished feature of a bank, in every command that takes several models."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.commands.all_models import models_of
from stores.bank import names
from stores.bank.reader import Bank
from stores.bank.writer import FeatureWriter
from stores.errors import Refused
from tests.command import embank
from tests.probe_banks import DIM, FIRST, ROWS, SECOND, fill_with, make_probe_bank
from tests.stores.banks import make_key

EMPTY, OPEN = "random/resnet18", "random/resnet34"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished features, one of failed rows alone, and one that was begun."""
    bank = make_probe_bank(tmp_path_factory.mktemp("all"))
    noise = np.ones((ROWS, DIM), np.float32)
    fill_with(bank, make_key(bank.image_digest, model=EMPTY), noise, tuple(range(ROWS)))
    with FeatureWriter(bank, make_key(bank.image_digest, model=OPEN), DIM):
        pass
    return Path(str(bank.path))


@pytest.fixture
def bank(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bank"))


def test_it_is_every_finished_feature_with_an_embedding(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sorted(models_of(str(made), ["all"])) == [SECOND, FIRST]
    said = capsys.readouterr().err
    assert f"{EMPTY} is not among all models: no image has an embedding" in said
    assert f"{OPEN} is not among all models: its embedding is not finished" in said
    assert models_of("no bank is opened", [FIRST, FIRST]) == [FIRST, FIRST]


@pytest.mark.parametrize(
    "words",
    [
        ("fewshot", "--n-way", 2, "--episodes", 5),
        ("knn", "-k", 3, "--device", "cpu"),
        ("probe", "--values", 2, "--bootstrap", 0, "--device", "cpu"),
    ],
    ids=lambda words: words[0],
)
def test_evaluations_take_it(bank: Path, words: tuple[object, ...]) -> None:
    ran = embank(words[0], bank, "--model", "all", *words[1:], "--json")
    assert ran.code == 0, ran.err
    assert sorted(report["model"] for report in json.loads(ran.out)) == [SECOND, FIRST]
    named = embank(words[0], bank, "--model", SECOND, "--model", FIRST, *words[1:], "--json")
    assert [report["model"] for report in json.loads(named.out)] == [SECOND, FIRST]


def test_filters_take_it_as_no_filter(bank: Path) -> None:
    assert embank("knn", bank, "--model", "all", "-k", 3, "--device", "cpu").code == 0
    for words in (("compare", bank), ("records", "ls", bank), ("bank", "show", bank)):
        ran = embank(*words, "--model", "all", "--json")
        assert ran.code == 0 and ran.out == embank(*words, "--json").out


def test_no_feature_can_be_called_so(bank: Path) -> None:
    for word in ("all", "ALL", " all "):
        with pytest.raises(Refused, match="neither `all`"):
            names.valid(word)


def test_a_bank_without_finished_features_is_refused(bank: Path) -> None:
    for info in Bank.open(bank).list():
        if info.title not in (OPEN, EMPTY):
            shutil.rmtree(bank / info.name)
            shutil.rmtree(bank / ".embank" / info.name)
    ran = embank("probe", bank, "--model", "all")
    assert ran.code == 2 and "no finished feature" in ran.err and "`embank embed`" in ran.err


@pytest.mark.parametrize("command", ["saliency", "reconstruct", "invariance"])
def test_files_of_one_model_are_refused_for_all(bank: Path, tmp_path: Path, command: str) -> None:
    ran = (
        embank(command, bank, "--model", "all", "--weights", tmp_path / "w.pth", "--transform", "h_flip")
        if command == "invariance"
        else embank(command, bank, "--model", "all", "--weights", tmp_path / "w.pth")
    )
    assert ran.code == 2 and "A file holds the weights of one" in ran.err, ran.err


def test_a_sheet_of_views_is_of_one_model(bank: Path, tmp_path: Path) -> None:
    ran = embank("invariance", bank, "--model", "all", "--transform", "h_flip", "-o", tmp_path / "v.png")
    assert ran.code == 2 and "A picture of views is of one model" in ran.err
