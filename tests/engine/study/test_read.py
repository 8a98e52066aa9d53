"""Reading study files."""

from pathlib import Path

import pytest

from engine.errors import Refused
from engine.study.cells import cells_of
from engine.study.place import study_file
from engine.study.read import read_study

STUDY = """\
study: small
datasets:
  digits: {domain: out}
  tiles:
    options:
      fewshot: {n_way: 3}
models:
  - efficientnet-lite0
  - {model: random/resnet18, group: untrained}
seeds: [0, 1]
evaluations:
  fewshot: {n-way: 5}
  knn:
  invariance: {transforms: [rotation, h_flip], seeds: 0}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_study_is_read_with_its_names_options_and_lines(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, STUDY))
    assert (study.name, study.title, study.root) == ("small", "small", tmp_path)
    assert [(data.name, data.builtin, data.domain, data.line) for data in study.datasets] == [
        ("digits", "digits", "out", 3),
        ("tiles", "tiles", "", 4),
    ]
    assert [(model.name, model.group, model.line) for model in study.models] == [
        ("efficientnet-lite0", "", 8),
        ("random/resnet18", "untrained", 9),
    ]
    fewshot, knn, invariance = study.evaluations
    assert (fewshot.options, fewshot.seeds, fewshot.line) == ({"n_way": 5}, (0, 1), 12)
    assert (knn.seeds, knn.modes, knn.controls, knn.compare) == ((0,), ("default",), True, True)
    assert (invariance.controls, invariance.compare) == (False, False)


def test_cells_are_every_number_of_the_file(tmp_path: Path) -> None:
    cells = cells_of(read_study(written(tmp_path, STUDY)))
    count = {kind: sum(cell.kind == kind for cell in cells) for kind in ("fewshot", "knn", "invariance")}
    # data sets x models (x seeds, or x transforms)
    assert count == {"fewshot": 2 * 2 * 2, "knn": 2 * 2, "invariance": 2 * 2 * 2}
    assert sum(cell.kind == "compare" for cell in cells) == 2 * 2 + 2
    assert len({cell.digest for cell in cells}) == len(cells)
    assert {cell.options["n_way"] for cell in cells if (cell.dataset, cell.kind) == ("tiles", "fewshot")} == {
        3
    }


def test_an_unknown_option_is_refused_with_its_line_and_the_one_that_is_meant(tmp_path: Path) -> None:
    with pytest.raises(Refused) as error:
        read_study(written(tmp_path, STUDY.replace("n-way", "n_wya")))
    assert error.value.found == "study.yaml, line 12: evaluations.fewshot.n_wya"
    assert error.value.remedy == "write n_way, if that is meant"


def test_a_file_is_found_by_its_path_and_a_shipped_one_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped, root = study_file("quick.yaml")
    assert (shipped.parent.name, root) == ("shipped", tmp_path)
    assert study_file("quick")[0] == shipped
    own = written(tmp_path, STUDY).rename(tmp_path / "quick.yaml")
    assert study_file("quick.yaml") == (own.relative_to(tmp_path), tmp_path)
    with pytest.raises(Refused, match=r"paper\.yaml"):
        study_file("absent.yaml")
