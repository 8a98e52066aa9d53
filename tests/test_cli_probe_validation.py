"""embank probe beyond one split: what is printed of other banks, and what is refused."""

from pathlib import Path

import pytest

from stores.bank.reader import Bank
from stores.bank.records import read_all
from tests.command import Ran, embank
from tests.engine.evals.probe.test_external import make_other
from tests.probe_banks import FIRST, make_probe_bank


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bank, Bank]:
    root = tmp_path_factory.mktemp("banks")
    return make_probe_bank(root / "a"), make_other(root / "elsewhere", ("pear", "apple", "zebra"))


def probe(bank: Bank | Path | str, *words: object) -> Ran:
    """With a grid of three values, on the CPU."""
    grid = ("--c-min", 0.001, "--c-max", 10, "--values", 3, "--device", "cpu", "--bootstrap", 30)
    return embank("probe", getattr(bank, "path", bank), "--model", FIRST, *grid, *words)


def test_other_banks_have_a_table(banks: tuple[Bank, Bank]) -> None:
    ran = probe(banks[0], "--external", banks[1].path, "--external-split", "test")
    assert ran.code == 0, ran.err
    _, table = ran.out.split("External validation")
    assert "tested on" in table and "balanced" in table
    assert max(map(len, table.splitlines())) <= 80
    found = read_all(banks[0].path)[-1].metrics["external"][0]
    assert f"{found['test']['accuracy']:.4f}".rstrip("0") in table


def test_a_matrix_has_a_row_and_a_column_a_bank(banks: tuple[Bank, Bank]) -> None:
    ran = probe(banks[0], "--external", banks[1].path, "--matrix")
    assert ran.code == 0, ran.err
    table = ran.out.partition(f"{FIRST}, label: accuracy")[2].splitlines()
    head = next(line for line in table if line.startswith("fitted on"))
    assert head.split() == ["fitted", "on", "on", "bank", "on", "elsewhere"]
    records = [read_all(bank.path)[-1].metrics for bank in banks]
    for line, own, column in zip(("bank", "elsewhere"), records, (0, 1), strict=True):
        cells = next(row for row in table if row.startswith(line + " ")).split()[1::2]
        expected = [own["external"][0]["test"]["accuracy"]]
        expected.insert(column, own["test"]["accuracy"])
        assert cells == [f"{value:.3f}" for value in expected]
    assert max(map(len, table)) <= 80
    assert f"{FIRST} of elsewhere: " in ran.out, "whose issue it is"


def test_folds_have_a_table_of_means_and_one_of_all_predictions(banks: tuple[Bank, Bank]) -> None:
    ran = probe(banks[0], "--folds", 3)
    assert ran.code == 0, ran.err
    over, pooled = ran.out.split("Mean ± standard deviation over 3 folds")[1].split(
        "Predictions of all folds"
    )
    found = read_all(banks[0].path)[-1].metrics
    accuracy = found["folds"]["metrics"]["accuracy"]
    assert f"{accuracy['mean']:.3f} ± {accuracy['sd']:.3f}" in over
    assert f"{found['test']['auroc']:.3f} (" in pooled and "whatever their split" in pooled
    assert probe(banks[0], "--folds", 3, "--json").json["folds"] == found["folds"]
    record = embank("records", "ls", banks[0].path, "--json").json["records"][-1]["record"]
    shown = embank("records", "show", banks[0].path, record, "-o", "picture.png")
    assert shown.code == 2 and "cross-validated" in shown.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--external", "nowhere"), "is not a bank"),
        (("--external-split", "test"), "without --external"),
        (("--matrix",), "--external"),
        (("--repeats", 2), "without --folds"),
        (("--folds", 90), "90 of 80 patients"),
        (("--folds", 2, "--external", "other.bank"), "--folds with --external"),
        (("--folds", 2, "-o", "picture.png"), "-o picture.png with --folds"),
    ],
)
def test_refused_with_a_remedy(banks: tuple[Bank, Bank], words: tuple[object, ...], says: str) -> None:
    before = len(read_all(banks[0].path))
    ran = probe(banks[0], *words)
    assert ran.code == 2 and says in ran.err
    assert "Traceback" not in ran.err and len(read_all(banks[0].path)) == before
