"""External validation: scores on other banks stand beside those on the own test images."""

from engine.report.page.blocks import DataTable
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.sections.external import sections
from stores.json_types import JsonObject
from tests.page_records import issue, page, probe


def _texts(given: PageInput) -> list[list[str]]:
    (section,) = sections(given, PageOptions())
    (table,) = (block for block in section.blocks if isinstance(block, DataTable))
    return [[value.text for value in row] for row in table.rows]


def test_own_and_other_scores_stand_side_by_side() -> None:
    interval = {"auroc": {"low": 0.5, "high": 0.7}}
    other: JsonObject = {"bank": "b.bank", "n": 1234, "test": {"auroc": 0.6, "intervals": interval}}
    test: JsonObject = {"auroc": 0.9, "mean_per_class_accuracy": 0.8}
    given = page(probe("a", 0.8, metrics={"external": [other], "test": test}))
    assert _texts(given) == [
        [
            *("xrays", "linear probe", "default", "a", "b.bank", "1,234"),
            *("0.900", "0.600 (0.500 to 0.700)", "0.800", "undefined"),
        ]
    ]


def test_findings_have_a_row_each() -> None:
    findings: list[JsonObject] = [
        {
            "label": name,
            "test": {"auroc": 0.9},
            "external": [{"bank": "b.bank", "n": 5, "test": {"auroc": value}}],
        }
        for name, value in (("edema", 0.7), ("mass", 0.4))
    ]
    given = page(probe("a", 0.8, metrics={"findings": findings}))
    assert [(row[1], row[6], row[7]) for row in _texts(given)] == [
        ("linear probe: edema", "0.900", "0.700"),
        ("linear probe: mass", "0.900", "0.400"),
    ]


def test_without_other_banks_there_is_no_section() -> None:
    assert sections(page(probe("a", 0.8)), PageOptions()) == ()


def test_a_bank_with_images_that_were_learned_from_is_marked() -> None:
    leak = {**issue("duplicates_across_parts", "error", "3 images were learned from"), "subject": "b.bank"}
    others: list[JsonObject] = [
        {"bank": name, "n": 5, "test": {"auroc": 0.7}} for name in ("b.bank", "c.bank")
    ]
    given = page(probe("a", 0.8, metrics={"external": others}, validity=[leak]))
    (section,) = sections(given, PageOptions())
    (table,) = (block for block in section.blocks if isinstance(block, DataTable))
    assert [(row[4].tone, row[4].reason) for row in table.rows] == [
        ("error", "3 images were learned from"),
        (None, ""),
    ]
