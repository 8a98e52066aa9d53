"""Invariance: cosines along the parameter and over all views where the record has them."""

import pytest

from engine.report.page.blocks import Chart, DataTable
from engine.report.page.inputs import PageOptions
from engine.report.page.sections.invariance_gallery import sections as gallery
from engine.report.page.sections.invariance_views import sections
from stores.bank.record_index import RecordEntry
from stores.json_types import Json
from tests.engine.report.page.drawings import Drawing, drawings
from tests.page_records import entry_of, page

DEGREES, COSINES, HALF = (180.0, 45.0, 90.0), (0.3, 0.8, 0.5), (0.02, 0.01, 0.03)


def invariance(
    model: str, transform: str = "rotation", mode: str = "default", seed: int = 0, **parts: Json
) -> RecordEntry:
    by_view: Json = {
        "names": ["degrees"],
        "parameters": [[value] for value in DEGREES],
        "cosine": list(COSINES),
        "ci95": list(HALF),
    }
    body: dict[str, Json] = {
        "n": 20,
        "views": 3,
        "cosine": 0.53,
        "ci95": 0.04,
        "baseline": 0.1,
        "by_view": by_view,
    }
    return entry_of(
        "invariance", model, {"transform": transform, "mode": mode, "seed": seed}, {**body, **parts}
    )


def drawn(*entries: RecordEntry) -> tuple[Chart, list[Drawing]]:
    (section,) = sections(page(*entries), PageOptions())
    (chart,) = (block for block in section.blocks if isinstance(block, Chart))
    return chart, drawings(chart.svg)


def test_cosines_along_the_parameter_are_in_its_order() -> None:
    _, (_, drawing) = drawn(invariance("lite"))
    places = drawing.centres("point")[:3]
    assert drawing.numbers("middle", [x for x, _ in places]) == pytest.approx([45, 90, 180], abs=0.1)
    assert drawing.numbers("end", [y for _, y in places]) == pytest.approx([0.8, 0.5, 0.3], abs=1e-3)
    ((*band,),) = drawing.corners("band")
    expected = [0.79, 0.47, 0.28, 0.32, 0.53, 0.81]
    assert drawing.numbers("end", [y for _, y in band]) == pytest.approx(expected, abs=1e-3)
    (level,) = drawing.elements("guide")
    assert drawing.numbers("end", [float(level.get("d", "").split()[-1])]) == pytest.approx([0.1], abs=1e-3)


def test_all_transforms_stand_in_one_chart() -> None:
    one_view: Json = {"names": [], "parameters": [[]], "cosine": [0.9], "ci95": [0.01]}
    _, (overview, _) = drawn(
        invariance("lite"), invariance("lite", "h_flip", cosine=0.9, ci95=0.01, by_view=one_view)
    )
    points = sorted(overview.centres("point"), key=lambda place: place[1])[:2]
    numbers = overview.numbers("middle", [x for x, _ in points])
    assert sorted(numbers) == pytest.approx([0.53, 0.9], abs=1e-3)
    assert {"rotation", "h_flip"} <= set(overview.texts("halo"))


def test_too_few_images_are_undefined_with_a_reason() -> None:
    _, (overview, *_) = drawn(invariance("lite", cosine=None, n=1, reason="too few images"))
    assert "undefined: rests on 1 image" in overview.texts("note")


def test_means_of_all_transforms_and_settings_are_in_one_table() -> None:
    entries = (
        invariance("lite", cosine=0.5, ci95=0.01),
        invariance("lite", cosine=None, reason="too few images", seed=7),
        invariance("lite", "h_flip", cosine=0.9, ci95=0.01),
    )
    blocks = [block for section in gallery(page(*entries), PageOptions()) for block in section.blocks]
    table = next(block for block in blocks if isinstance(block, DataTable))
    cells = {row[0].text: (row[1].text, row[1].reason) for row in table.rows}
    assert cells == {
        "rotation, seed 0": ("0.500 ± 0.010", ""),
        "rotation, seed 7": ("–", "too few images"),
        "h_flip": ("0.900 ± 0.010", ""),
    }


def test_modes_have_charts_each() -> None:
    (section,) = sections(page(invariance("lite"), invariance("lite", mode="as-published")), PageOptions())
    titles = [block.title for block in section.blocks if isinstance(block, Chart)]
    assert [title.partition(":")[0] for title in titles] == ["xrays, default mode", "xrays, as published"]


def test_of_many_models_the_most_invariant_are_drawn() -> None:
    entries = [invariance(f"m{i:02d}", cosine=i / 20) for i in range(12)]
    chart, (_overview, curves) = drawn(*entries)
    names = {text for text in curves.texts() if text.startswith("m")} - {"mean cosine"}
    assert names == {f"m{i:02d}" for i in range(4, 12)}
    assert not curves.elements("band")
    assert any("8 most invariant of 12" in note for note in chart.notes)
    assert chart.table is not None
    assert {row[0].text for row in chart.table.rows} == {f"m{i:02d}" for i in range(12)}


@pytest.mark.parametrize("lost", ["by_view", "baseline", "ci95", "n", "views"])
def test_records_of_earlier_versions_may_lack_parts(lost: str) -> None:
    entry = invariance("lite")
    assert entry.record is not None
    body = {name: value for name, value in entry.record.metrics.items() if name != lost}
    drawn(entry_of("invariance", "lite", {"transform": "rotation"}, body))


@pytest.mark.parametrize(("ci95", "tone"), [(0.02, None), (0.1, "warning")])
def test_a_cosine_whose_interval_reaches_the_baseline_is_coloured(ci95: float, tone: str | None) -> None:
    given = page(invariance("lite", cosine=0.5, ci95=ci95, baseline=0.45, baseline_ci95=0.01))
    blocks = [block for section in gallery(given, PageOptions()) for block in section.blocks]
    table = next(block for block in blocks if isinstance(block, DataTable))
    assert table.rows[0][1].tone == tone
