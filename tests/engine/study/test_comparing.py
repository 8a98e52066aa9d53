"""Comparisons of a study's models, and of those of any bank, against `embank.compare` of the same records."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import Refused
from engine.evals.comparison.evaluate import compare
from engine.study.cells import COMPARE, cells_of, compared_cells
from engine.study.comparing import compare_cell, comparison_records
from engine.study.evaluating import evaluate
from engine.study.ledger import Ledger
from engine.study.read import read_study
from stores.bank.record_index import read_index
from stores.bank.records import RunRecord
from tests.command import embank
from tests.engine.study.drawn import HERE, run, study_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    _, outcome = run(study_file(folder), folder / "study")
    assert not outcome.failures
    return folder


def bank_of(folder: Path) -> Path:
    return folder / "study" / "banks" / "set0.bank"


def without_names(document: dict) -> dict:
    """A comparison as a record has it, without the words by which records and banks are named."""
    document = RunRecord.now(COMPARE, asked={}, used={}, metrics=document, seconds={}).to_dict()["metrics"]
    models = [{k: v for k, v in one.items() if k not in ("record", "bank")} for one in document["models"]]
    return {**document, "models": models, "notes": []}


@pytest.mark.parametrize("kind", ["fewshot", "knn"])
def test_a_comparison_is_that_of_the_command(folder: Path, kind: str) -> None:
    bank = bank_of(folder)
    by_hand = compare([bank], kind, common=True).to_dict()
    entries = [e for e in read_index(bank) if e.record is not None and e.record.kind == COMPARE]
    assert str(folder) not in str([e.record for e in entries]), "a bank may be moved, and sent to others"
    record = next(e.record for e in entries if e.record is not None and e.record.asked["kind"] == kind)
    assert without_names(record.metrics) == without_names(by_hand)
    assert record.asked["models"] == ["random/squeezenet1_1", "random/resnet18"]
    assert {record.asked[name] for name in ("evaluation", "metric", "mode")} == {kind, "accuracy", "default"}


def test_a_plain_bank_is_compared_in_memory(folder: Path, tmp_path: Path) -> None:
    bank = tmp_path / "plain.bank"
    shutil.copytree(bank_of(folder), bank)
    assert comparison_records(bank, read_index(bank)) == [], "the bank has comparisons of these records"
    for path in (bank / "records").glob("*-compare-*.json"):
        path.unlink()
    before = sorted(path.name for path in (bank / "records").iterdir())
    entries = read_index(bank)
    made = comparison_records(bank, entries)
    again = comparison_records(bank, entries)
    assert len(made) == 2
    for entry, kind in zip(made, ("fewshot", "knn"), strict=True):
        assert entry.record is not None and entry.record.kind == COMPARE
        assert without_names(entry.record.metrics) == without_names(compare([bank], kind).to_dict())
    strip = [replace(e.record, seconds={}) for e in made if e.record]
    assert strip == [replace(e.record, seconds={}) for e in again if e.record], "the same when made again"
    assert sorted(path.name for path in (bank / "records").iterdir()) == before


def test_a_new_record_puts_a_comparison_out_of_date(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    study, bank = read_study(tmp_path / "killed.yaml"), bank_of(tmp_path)
    cells = cells_of(study)
    cell = next(cell for cell in cells if cell.kind == COMPARE and cell.evaluation == "knn")
    compared = compared_cells(cell, cells)
    assert [one.model for one in compared] == ["random/squeezenet1_1", "random/resnet18"]
    ledger = Ledger.of(bank)
    assert ledger.record(cell, compared) is not None
    evaluate(bank, compared[0], HERE).write(bank)
    ledger = Ledger.of(bank)
    assert ledger.record(cell, compared) is None
    compare_cell(ledger, cell, compared, 1).write(bank)
    assert Ledger.of(bank).record(cell, compared) is not None


def test_records_of_another_feature_or_manifest_do_not_count(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    bank = bank_of(tmp_path)
    cell = next(c for c in cells_of(read_study(tmp_path / "killed.yaml")) if c.kind == "audit")
    entry = Ledger.of(bank).record(cell)
    assert entry is not None and entry.record is not None
    for name in ("key", "manifest_digest"):
        used = {**entry.record.used, name: "0" * 64}
        (bank / entry.path).unlink(missing_ok=True)
        written = replace(entry.record, used=used, attached={}).write(bank)
        assert Ledger.of(bank).record(cell) is None, name
        Path(str(written)).unlink()
    replace(entry.record).write(bank)
    assert Ledger.of(bank).record(cell) is not None


def test_one_model_is_no_comparison(folder: Path) -> None:
    cells = cells_of(read_study(folder / "killed.yaml"))
    cell = next(cell for cell in cells if cell.kind == COMPARE)
    one = compared_cells(cell, cells)[:1]
    for ledger, count in ((Ledger.of(bank_of(folder)), 1), (None, 0)):
        with pytest.raises(Refused, match=f"{count} of 1 models have a result"):
            compare_cell(ledger, cell, one, 1)


def test_comparisons_are_listed_shown_and_exported(folder: Path, tmp_path: Path) -> None:
    bank = bank_of(folder)
    listed = embank("records", "ls", bank, "--kind", "compare", "--json").json["records"]
    assert [one["kind"] for one in listed] == ["compare", "compare"]
    text = {one["text"].partition(":")[0] for one in listed}
    assert text == {"fewshot, accuracy", "knn, accuracy"} and all(": best " in one["text"] for one in listed)
    shown = embank("records", "show", bank, listed[0]["record"])
    assert shown.code == 0 and "compare" in shown.out
    out = tmp_path / "t.csv"
    assert embank("records", "export", bank, "--kind", "compare", "-o", out).code == 0
    assert "pairs.p_holm" in out.read_text()
    assert embank("compare", bank, "--evaluation", "knn").code == 0, "comparisons are not compared"
