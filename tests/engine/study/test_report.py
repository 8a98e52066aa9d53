"""The page of a study's folder: records of its cells by the names of the study, gaps, the command of each."""

from pathlib import Path

import pytest

from engine.report.page.inputs import PageOptions
from engine.report.page.sections.matrix import sections
from engine.study.page_input import relative
from engine.study.report import input_of, report
from stores.bank.record_index import read_index
from stores.errors import EmbankError
from tests.command import embank
from tests.probe_banks import FIRST, SECOND, make_probe_bank

pytestmark = pytest.mark.slow  # a study is run

STUDY = f"""
study: fruit
title: Fruit & <vegetables>
datasets:
  fruit: {{bank: bank, domain: in}}
models:
  - {{model: torchvision/resnet34, name: other, group: others}}
  - {{model: {FIRST}}}
  - {{model: torchvision/resnet50, name: absent}}
evaluations:
  few: {{kind: fewshot, n_way: 2, n_shot: 2, n_query: 2, episodes: 10, seeds: [0, 1], controls: false}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study-page")
    made = make_probe_bank(root)
    assert embank("bank", "rename", made.path, SECOND, "other").code == 0
    ran = embank("fewshot", made.path, "--model", FIRST, "--n-way", 2, "--n-shot", 1, "--n-query", 1)
    assert ran.code == 0, "a record that is of no cell"
    (root / "study.yaml").write_text(STUDY)
    ran = embank("study", "run", root / "study.yaml", "--dir", root / "out", "--device", "cpu")
    assert ran.code == 1, "one model is not there"
    return root / "out"


def test_records_of_cells_are_shown_by_the_names_of_the_study(folder: Path) -> None:
    page = input_of(folder)
    assert (page.title, page.models) == ("Fruit & <vegetables>", ("other", FIRST, "absent"))
    (source,) = page.sources
    assert (source.name, source.domain) == ("fruit", "in")
    cells = {e.id: e.record for e in read_index(source.bank) if e.record and "cell" in e.record.used}
    assert {entry.id for entry in source.entries} == set(cells)
    assert sorted(entry.model for entry in source.entries if entry.model) == sorted([FIRST, "other"] * 2)
    assert {page.evaluations[entry.id] for entry in source.entries} == {"few"}
    assert all(page.commands[entry.id].startswith("embank ") for entry in source.entries)
    assert page.study.strip() == STUDY.strip()


def test_cells_without_a_number_say_so_in_their_place(folder: Path) -> None:
    page = input_of(folder)
    assert {(gap.model, gap.seed, gap.state) for gap in page.gaps} >= {
        ("absent", 0, "failed"),
        ("absent", 1, "failed"),
    }
    assert str(folder.parent) not in str(page.gaps), "the page of another folder says the same"
    assert any("is not in bank." in gap.reason for gap in page.gaps)
    (section,) = sections(page, PageOptions())
    table = section.blocks[0]
    assert [column.group for column in table.columns] == ["", "few, seed 0", "few, seed 1"]
    assert [row[0].text for row in table.rows] == ["other", FIRST, "absent"]
    assert [value.text for value in table.rows[2][1:]] == ["failed", "failed"]


def test_paths_below_a_folder_are_relative_to_it() -> None:
    homes = (Path("made/study"), Path("/srv/me/made/study"), Path("/srv/me"))
    for text, wanted in (
        ("/srv/me/made/study/banks/x.bank is no bank", "banks/x.bank is no bank"),
        ("made/study/banks/x.bank, /srv/me/x.parquet", "banks/x.bank, x.parquet"),
        ("/else/made/study/x, /srv/men/x, in /srv/me", "/else/made/study/x, /srv/men/x, in /srv/me"),
    ):
        assert relative(text, homes) == wanted
    assert relative("./x /y", (Path(),)) == "./x /y"


def test_the_page_of_a_folder_is_written_and_again_the_same(folder: Path, tmp_path: Path) -> None:
    first = report(folder, tmp_path / "a.html", timings=False)
    assert not first.damaged and first.gaps
    report(folder, tmp_path / "b.html", timings=False)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    text = (tmp_path / "a.html").read_text()
    assert "Fruit &amp; &lt;vegetables&gt;" in text and "<vegetables>" not in text


def test_a_damaged_study_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("study: [")
    with pytest.raises(EmbankError):
        report(tmp_path, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
