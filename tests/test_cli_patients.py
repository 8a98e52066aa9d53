"""Patients apart from the command line: by default, by name, by the old name, unknown; and n-way."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stores.bank.reader import Bank
from stores.bank.writer import open_or_create
from stores.manifest.manifest import Manifest
from tests.command import Ran, embank
from tests.probe_banks import FIRST, SECOND, fill_with, make_probe_bank
from tests.stores.banks import make_key

UNKNOWN = "No image names its patient (group)"
FEW = ("--n-shot", 3, "--n-query", 3, "--episodes", 60)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """Two models; three images a patient, all of one split; three classes."""
    return make_probe_bank(tmp_path_factory.mktemp("patients"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """The same without patients."""
    root, rows = tmp_path_factory.mktemp("strangers"), 90
    frame = pd.DataFrame(
        {"uri": [f"{i}.png" for i in range(rows)], "label": [f"c{i % 7}" for i in range(rows)]}
    )
    made = open_or_create(root / "bank", Manifest.from_frame(frame, root))
    for seed, model in enumerate((FIRST, SECOND)):
        features = np.random.default_rng(seed).normal(size=(rows, 8)) + np.eye(8)[np.arange(rows) % 7]
        fill_with(made, make_key(made.image_digest, model=model), features.astype(np.float32))
    return made


def run(bank: Bank, command: str, *words: object, both: bool = False) -> Ran:
    models = [word for slug in (FIRST, SECOND)[: 1 + both] for word in ("--model", slug)]
    ran = embank(command, bank.path, *models, *words)
    assert ran.code == 0, ran.err
    return ran


@pytest.mark.parametrize(("command", "words"), [("fewshot", FEW), ("knn", ("--leave-one-out", "-k", 3))])
def test_patients_are_kept_apart_by_default_and_by_one_name(
    bank: Bank, command: str, words: tuple[object, ...]
) -> None:
    usual, apart, shared = (
        run(bank, command, *words, *option, "--json").json
        for option in ((), ("--group-disjoint",), ("--no-group-disjoint",))
    )
    assert (usual["group_disjoint"], apart["group_disjoint"], shared["group_disjoint"]) == (True, True, False)
    same = ("episodes_digest", "accuracy") if command == "fewshot" else ("test", "by_k")
    assert all(usual[name] == apart[name] != shared[name] for name in same)
    printed = run(bank, command, *words)
    assert "patients apart" in printed.out and UNKNOWN not in printed.out and printed.err == ""
    assert "patients apart" not in run(bank, command, *words, "--no-group-disjoint").out


@pytest.mark.parametrize(("command", "words"), [("fewshot", FEW), ("knn", ("--leave-one-out", "-k", 3))])
def test_unknown_patients_are_said_once_a_command(
    strangers: Bank, command: str, words: tuple[object, ...]
) -> None:
    assert run(strangers, command, *words, both=True).out.count(UNKNOWN) == 1
    for one in run(strangers, command, *words, "--json", both=True).json:
        assert sum(UNKNOWN in issue["sentence"] for issue in one["validity"]) == 1
    refused = embank(command, strangers.path, "--model", FIRST, *words, "--group-disjoint")
    assert refused.code == 2 and "No image that takes part has a group" in refused.err
    assert "leave --group-disjoint out" in refused.err, "as above, it works"


def test_the_old_name_works_with_a_word_on_stderr(bank: Bank) -> None:
    ran = run(bank, "fewshot", *FEW, "--patient-disjoint", "--json")
    assert ran.json["group_disjoint"] is True
    assert "--patient-disjoint is now called --group-disjoint" in ran.err
    assert "--patient-disjoint" not in embank("fewshot", "--help").out
    both = embank("fewshot", bank.path, "--model", FIRST, "--patient-disjoint", "--no-group-disjoint")
    assert (both.code, "the opposite" in both.err) == (2, True)


def test_differences_are_printed_with_both_intervals_where_patients_are_known(
    bank: Bank, strangers: Bank
) -> None:
    first, second = run(bank, "fewshot", *FEW, "--json", both=True).json
    (pair,) = first["paired"]
    printed = run(bank, "fewshot", *FEW, both=True).out
    patients = pair["patients"]
    between = f"{patients['low']:+.4f} to {patients['high']:+.4f} over {patients['groups']} patients"
    assert (
        f"{FIRST} - {SECOND}: {pair['difference']:+.4f} ± {pair['ci95']:.4f} over the same episodes; "
        in printed
    )
    assert between in printed
    for one in (first, second):
        own = one["patients"]
        assert own["low"] < one["accuracy"] < own["high"]
        assert f"{own['low']:.4f} to {own['high']:.4f} over {own['groups']} patients" in printed
    printed = run(strangers, "fewshot", *FEW, both=True).out
    assert "over the same episodes of the same images only" in printed


def test_as_published_says_that_patients_are_not_kept_apart(bank: Bank) -> None:
    ran = run(bank, "fewshot", *FEW, "--mode", "as-published", "--n-way", 3)
    assert "As in the study, images of one patient may be in both support and query" in ran.out
    refused = embank("fewshot", bank.path, "--model", FIRST, "--mode", "as-published", "--group-disjoint")
    assert refused.code == 2 and "remedy:" in refused.err


def test_n_way_is_what_there_is_and_said(bank: Bank, strangers: Bank, tmp_path: Path) -> None:
    ran = run(bank, "fewshot", *FEW, both=True)
    assert ran.out.count("n-way is 3 and not 5: 3 classes have 6 usable images") == 1
    assert [one["n_way"] for one in run(bank, "fewshot", *FEW, "--json", both=True).json] == [3, 3]
    ran = run(strangers, "fewshot", *FEW)
    assert "5-way" in ran.out and "n-way" not in ran.out
    refused = embank("fewshot", bank.path, "--model", FIRST, *FEW, "--n-way", 5)
    assert (refused.code, "3 of 3 classes" in refused.err, "--n-way" in refused.err) == (2, True, True)


def test_patients_that_cannot_be_kept_apart_end_in_a_remedy_that_works(bank: Bank) -> None:
    words = ("--n-shot", 20, "--n-query", 20, "--episodes", 10)
    refused = embank("fewshot", bank.path, "--model", FIRST, *words)
    assert refused.code == 2 and "patients" in refused.err and "--no-group-disjoint" in refused.err
    assert run(bank, "fewshot", *words, "--no-group-disjoint", "--json").json["group_disjoint"] is False
