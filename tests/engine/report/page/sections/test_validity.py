"""The validity box: no issue is claimed absent that was not looked for, the gravest come first."""

from engine.report.page.blocks import DataTable, Details, Paragraph
from engine.report.page.inputs import Gap, PageInput, PageOptions
from engine.report.page.sections.validity import sections
from tests.page_records import issue, page, probe


def blocks(given: PageInput) -> list[object]:
    (section,) = sections(given, PageOptions())
    return list(section.blocks)


def paragraphs(given: PageInput) -> list[tuple[str, str | None]]:
    return [(one.text, one.tone) for one in blocks(given) if isinstance(one, Paragraph)]


def test_results_without_issues_are_said_to_be_checked() -> None:
    assert paragraphs(page(probe("a", 0.9), probe("b", 0.8))) == [
        ("2 results were checked, and no issue was seen.", None)
    ]


def test_results_of_earlier_versions_are_not_said_to_be_fine() -> None:
    only = paragraphs(page(probe("a", 0.9, validity=None)))
    assert only[0] == ("None of the results was checked.", None)
    assert only[1][1] == "warning" and "1 of 1 results were not checked" in only[1][0]
    both = paragraphs(page(probe("a", 0.9, validity=None), probe("b", 0.8)))
    assert both[0][0] == "1 results were checked, and no issue was seen."
    assert "1 of 2 results were not checked" in both[1][0]


def test_issues_are_counted_by_result_and_the_gravest_are_first() -> None:
    grave, mild, note = (
        issue("below_control", "error"),
        issue("small_classes", "warning"),
        issue("grid_edge", "note"),
    )
    given = page(probe("a", 0.9, validity=[note, mild, mild]), probe("b", 0.8, validity=[mild, grave]))
    first, error, warning = paragraphs(given)
    assert first[0].startswith("2 results were checked: problems in 1, cautions in 2, notes in 1 of them.")
    assert error == ("1 of 2 results are no evidence: below control (linear probe: 1 model).", "error")
    assert warning == ("2 of 2 results may mislead: small classes (2).", "warning")
    kinds, every = [one for one in blocks(given) if isinstance(one, Details)]
    by_code, by_result = kinds.blocks[0], every.blocks[0]
    assert isinstance(by_code, DataTable) and isinstance(by_result, DataTable)
    assert [(row[0].text, row[2].number) for row in by_code.rows] == [
        ("Below control", 1),
        ("Small classes", 2),
        ("Grid edge", 1),
    ]
    assert len(by_result.rows) == 5


def test_cells_that_failed_stand_before_results() -> None:
    gap = Gap("xrays", "vgg", "probe", "default", 0, "failed", "the weights are damaged")
    missing = Gap("xrays", "vgg", "knn", "default", 0, "missing", "not made")
    texts = paragraphs(page(probe("a", 0.9), gaps=(gap, missing)))
    assert texts[1] == (
        "1 result could not be made or read. xrays, vgg, probe: the weights are damaged.",
        "error",
    )
    assert texts[2][1] == "warning" and "not made yet" in texts[2][0]


def test_a_page_without_results_has_no_box() -> None:
    assert sections(page(), PageOptions()) == ()
