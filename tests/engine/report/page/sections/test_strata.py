"""Strata: scores and intervals where the record has them; flips of the ranking are said."""

import pytest

from engine.report.page.blocks import Chart, Paragraph
from engine.report.page.inputs import PageOptions
from engine.report.page.sections.strata import sections
from stores.bank.record_index import RecordEntry
from stores.json_types import Json
from tests.engine.report.page.drawings import Drawing, drawings
from tests.page_records import entry_of, page


def stratum(name: str, auroc: float | None, **parts: Json) -> Json:
    body: dict[str, Json] = {"stratum": name, "images": 30, "patients": 20, "auroc": auroc, "accuracy": auroc}
    if auroc is not None:
        ends: Json = {"low": auroc - 0.1, "high": auroc + 0.15}
        body["intervals"] = {"auroc": ends, "accuracy": ends}
    return {**body, **parts}


def probe(model: str, *strata: Json, column: str = "view") -> RecordEntry:
    gap: Json = {"value": 0.25, "low": 0.1, "high": 0.4}
    division: Json = {"column": column, "strata": list(strata), "gaps": {"auroc": gap}}
    return entry_of("probe", model, {"label": "label"}, {"strata": [division]})


def drawn(*entries: RecordEntry) -> tuple[Chart, list[Drawing]]:
    (section,) = sections(page(*entries), PageOptions())
    (chart,) = (block for block in section.blocks if isinstance(block, Chart))
    return chart, drawings(chart.svg)


def test_points_and_intervals_are_those_of_the_record() -> None:
    _, (auroc, accuracy) = drawn(probe("lite", stratum("AP", 0.7), stratum("PA", 0.8)))
    for drawing in (auroc, accuracy):
        places = list(drawing.centres("point", "series-1"))[:2]
        assert drawing.numbers("middle", [x for x, _ in places]) == pytest.approx([0.7, 0.8], abs=1e-4)
        spans = drawing.spans("interval")
        assert drawing.numbers("middle", [low for low, *_ in spans]) == pytest.approx([0.6, 0.7], abs=1e-4)
        assert drawing.numbers("middle", [high for _, high, _ in spans]) == pytest.approx(
            [0.85, 0.95], abs=1e-4
        )
        assert drawing.texts("soft") == ["n = 30", "n = 30"]


def test_a_change_of_the_best_model_is_said() -> None:
    chart, _ = drawn(
        probe("lite", stratum("AP", 0.9), stratum("PA", 0.6)),
        probe("tiny", stratum("AP", 0.7), stratum("PA", 0.8)),
    )
    assert "The best AUROC changes its model between strata: AP: lite; PA: tiny." in chart.notes


def test_one_best_model_is_no_flip() -> None:
    chart, _ = drawn(
        probe("lite", stratum("AP", 0.9), stratum("PA", 0.8)),
        probe("tiny", stratum("AP", 0.7), stratum("PA", 0.6)),
    )
    assert not any("changes" in note for note in chart.notes)


def test_gaps_have_their_intervals() -> None:
    chart, _ = drawn(probe("lite", stratum("AP", 0.7), stratum("PA", 0.8)))
    assert "Largest gap of AUROC between strata: lite 0.250 (0.100 to 0.400)." in chart.notes


def test_undefined_strata_say_why() -> None:
    chart, (auroc, *_) = drawn(
        probe("lite", stratum("AP", 0.7), stratum("PA", None, reason="fewer than 10 images"))
    )
    assert "undefined: fewer than 10 images" in auroc.texts("note")
    assert chart.table is not None
    assert chart.table.rows[1][4].reason == "fewer than 10 images"


def test_a_stratum_that_one_model_lacks() -> None:
    _, (auroc, *_) = drawn(
        probe("lite", stratum("AP", 0.7), stratum("PA", 0.8)), probe("tiny", stratum("AP", 0.6))
    )
    assert "undefined: no test image" in auroc.texts("note")


def test_columns_have_charts_each() -> None:
    entry = probe("lite", stratum("AP", 0.7))
    assert entry.record is not None
    other: Json = {"column": "sex", "strata": [stratum("F", 0.6)], "gaps": {}}
    both = entry_of("probe", "lite", {}, {"strata": [*entry.record.metrics["strata"], other]})  # type: ignore[misc]
    (section,) = sections(page(both), PageOptions())
    assert [block.title.rpartition(" ")[2] for block in section.blocks if isinstance(block, Chart)] == [
        "view",
        "sex",
    ]


@pytest.mark.parametrize(
    "strata", [[], [{}], [{"column": "view"}], [{"column": "view", "strata": []}], "odd"]
)
def test_odd_strata_do_not_stop_the_page(strata: Json) -> None:
    assert not sections(page(entry_of("probe", "lite", {}, {"strata": strata})), PageOptions())


def test_strata_without_any_score_are_named_and_not_drawn() -> None:
    (section,) = sections(page(probe("lite", stratum("AP", None), stratum("PA", None))), PageOptions())
    assert not any(isinstance(block, Chart) for block in section.blocks)
    said = [block.text for block in section.blocks if isinstance(block, Paragraph)]
    assert said[-1] == "No stratum has enough images for a score: xrays: linear probe, default mode: by view."
