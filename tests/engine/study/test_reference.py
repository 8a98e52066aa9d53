"""The reference of study files says what the reader does."""

import re
from pathlib import Path

from docs.study_tables import PAGE, written
from engine.study.read import read_study


def test_the_tables_of_the_reference_are_those_of_the_code() -> None:
    page = PAGE.read_text("utf-8")
    assert written(page) == page, "run `python -m docs.study_tables`"


def test_the_example_of_the_reference_is_read(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert example is not None
    path = tmp_path / "nodules.yaml"
    path.write_text(example[1], "utf-8")
    study = read_study(path)
    assert [data.name for data in study.datasets] == ["ours", "shenzhen"]
    assert [evaluation.kind for evaluation in study.evaluations] == ["fewshot", "probe", "invariance"]
