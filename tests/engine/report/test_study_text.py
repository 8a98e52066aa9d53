"""The grid of a study on the terminal."""

import pytest

from engine.report.study_progress import StudyProgress
from engine.report.study_text import MARKS, GridCell, counts, grid_lines, mark, print_failures


@pytest.mark.parametrize(
    ("states", "word"),
    [
        ((), ""),
        (("done",), "done"),
        (("missing", "missing"), "."),
        (("impossible",), "n/a"),
        (("done", "missing", "missing"), "1/3"),
        (("done", "running", "missing"), "run 1/3"),
        (("done", "failed", "running"), "FAIL 1/3"),
        (("done", "impossible"), "done"),
        (("done", "missing", "impossible"), "1/2"),
    ],
)
def test_several_cells_have_one_mark(states: tuple[str, ...], word: str) -> None:
    assert mark(states) == word


def test_every_row_fits_eighty_columns_and_no_state_needs_colour() -> None:
    evaluations = ("fewshot", "knn", "probe", "invariance", "saliency", "reconstruct", "finetune", "audit")
    cells = [
        GridCell(data, model, name, state)
        for data in ("chexpert-plus-long-name", "digits")
        for model, state in zip(
            ("random/efficientnet-lite0", "resnet50", "", "a\x1b[31mb"), MARKS, strict=False
        )
        for name in evaluations
    ]
    lines = grid_lines(cells, 80)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "\x1b" not in text and "(comparison)" in text
    for state, word in list(MARKS.items())[:4]:
        assert any(word in line for line in lines), state
    assert len(set(MARKS.values())) == len(MARKS)
    assert counts(cells).startswith("64 cells: 16 done, 16 running, 16 failed, 16 missing")


def test_time_left_follows_the_estimates() -> None:
    cells = {key: GridCell("d", "m", key, "missing") for key in ("a", "b", "c")}
    progress = StudyProgress(cells, {key: key for key in cells}, {"a": 1.0, "b": 2.0, "c": 7.0})
    assert progress.pace == "0 of 3, ? left"
    progress.started -= 20
    progress.on_state("a", "done")  # 20 s for what was to take 1 s: 9 s more of the kind take 180 s
    assert progress.pace.startswith("1 of 3, 3.0 a minute, 3:0")


def test_cells_that_failed_for_one_reason_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_failures([("a / m / knn", "no file."), ("b / m / knn", "k = 99."), ("a / n / knn", "no file.")])
    assert capsys.readouterr().err.splitlines() == [
        "Failed: a / m / knn and a / n / knn: no file.",
        "Failed: b / m / knn: k = 99.",
    ]
    print_failures([(f"a / {model} / knn", "no file.") for model in "mno"])
    assert capsys.readouterr().err == "Failed: a / m / knn and 2 more cells: no file.\n"
