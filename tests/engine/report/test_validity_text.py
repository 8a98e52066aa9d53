"""Issues of validity as they are printed: the gravest first, each once, within the terminal's width."""

import pytest

from engine.evals.common.validity import issue, to_json
from engine.report.validity_text import print_validity

PATIENTS = issue(
    "patients_across_parts", "40 of 120 test images belong to a patient (group) of train images", 40
)
EDGE = issue("grid_edge", "The chosen C 1e+06 is the largest of the grid", 1e6)
NOTES = [
    issue("duplicate_rows", "1 of 90 images has", 1),
    issue("near_duplicates_not_checked", "not looked for"),
]


def printed(capsys: pytest.CaptureFixture[str], *reports: tuple[str, list]) -> list[str]:
    print_validity([{"model": model, "validity": to_json(issues)} for model, issues in reports])
    return capsys.readouterr().out.splitlines()


def test_errors_come_first_and_notes_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = printed(capsys, ("m", [*NOTES, EDGE, PATIENTS]))
    assert lines == [
        "error: 40 of 120 test images belong to a patient (group) of train images",
        "warning: The chosen C 1e+06 is the largest of the grid",
        "note: duplicate rows, near duplicates not checked",
    ]
    monkeypatch.setenv("COLUMNS", "40")
    narrow = printed(capsys, ("m", [*NOTES, EDGE, PATIENTS]))
    assert max(map(len, narrow)) <= 40 and " ".join(narrow) == " ".join(lines)


def test_what_all_models_have_is_said_once_and_what_one_has_with_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert printed(capsys, ("one", [PATIENTS, EDGE]), ("two", [PATIENTS])) == [
        "error: 40 of 120 test images belong to a patient (group) of train images",
        "warning: one: The chosen C 1e+06 is the largest of the grid",
    ]


def test_many_issues_of_one_code_are_one_line_that_names_what_they_concern(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    edges = [EDGE.about(f"finding {number}") for number in range(9)]
    assert printed(capsys, ("m", edges[:2])) == [
        "warning: finding 0: The chosen C 1e+06 is the largest of the grid",
        "warning: finding 1: The chosen C 1e+06 is the largest of the grid",
    ]
    assert printed(capsys, ("m", edges)) == [
        "warning: grid edge (9): finding 0, finding 1, finding 2, finding 3, finding 4,",
        "finding 5 and 3 more",
    ]
    three = [issue("small_classes", f"Classes of fewer than 10 test images: {name}") for name in "abc"]
    assert printed(capsys, ("m", three)) == ["warning: small classes (3): all models"]
    assert printed(capsys, ("m", three), ("other", [])) == ["warning: small classes (3): m"]


def test_hostile_names_cannot_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = printed(capsys, ("m", [EDGE.about("x\x1b[2J\n")]))
    assert "\x1b" not in line


def test_nothing_is_printed_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, ("m", [])) == []
