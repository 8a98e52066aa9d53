"""Label efficiency: means and bands where the record has them, modes apart, earlier records named."""

import math

import pytest

from engine.report.page.blocks import Chart, Paragraph
from engine.report.page.inputs import PageOptions
from engine.report.page.sections.label_efficiency import sections
from stores.bank.record_index import RecordEntry
from stores.json_types import Json
from tests.engine.report.page.drawings import Drawing, drawings
from tests.page_records import entry_of, page

SHOTS = (1, 2, 10)


def probe(
    model: str, means: tuple[float | None, ...], mode: str = "default", low_shot: bool = True
) -> RecordEntry:
    curve: list[Json] = [
        {"shots": shots, **{name: {"mean": mean, "ci95": 0.04} for name in ("accuracy", "auroc")}}
        for shots, mean in zip(SHOTS, means, strict=True)
    ]
    body: dict[str, Json] = {
        "label": "label",
        "images": {"test": 24},
        "test": {"accuracy": 0.81, "auroc": 0.93},
    }
    if low_shot:
        body["low_shot"] = {"seeds": 5, "shots": list(SHOTS), "curve": curve}
    return entry_of("probe", model, {"mode": mode, "label": "label"}, body)


def drawn(*entries: RecordEntry) -> tuple[Chart, list[Drawing]]:
    (section,) = sections(page(*entries), PageOptions())
    (chart,) = (block for block in section.blocks if isinstance(block, Chart))
    return chart, drawings(chart.svg)


def test_means_bands_and_all_images_are_those_of_the_record() -> None:
    _, (accuracy, auroc) = drawn(probe("lite", (0.5, 0.6, 0.7)))
    for drawing, end in ((accuracy, 0.81), (auroc, 0.93)):
        (line,) = [piece for piece in drawing.corners("line") if len(piece) == 3]
        assert drawing.numbers("middle", [x for x, _ in line], log=True) == pytest.approx(SHOTS, rel=2e-3)
        assert drawing.numbers("end", [y for _, y in line]) == pytest.approx([0.5, 0.6, 0.7], abs=1e-4)
        ((*band,),) = drawing.corners("band")
        expected = [0.46, 0.56, 0.66, 0.74, 0.64, 0.54]
        assert drawing.numbers("end", [y for _, y in band]) == pytest.approx(expected, abs=1e-4)
        last = max(drawing.centres("point"))
        assert drawing.numbers("end", [last[1]]) == pytest.approx([end], abs=1e-4)
        assert "all" in drawing.texts("tick")


def test_undefined_means_are_gaps() -> None:
    _, (accuracy, _) = drawn(probe("lite", (0.5, None, 0.7)))
    pieces = [piece for piece in accuracy.corners("line", "series-1") if len(piece) < 3]
    assert all(len(piece) == 1 for piece in pieces[:2])


def test_modes_are_never_in_one_chart() -> None:
    entries = (probe("lite", (0.5, 0.6, 0.7)), probe("lite", (0.4, 0.5, 0.6), "as-published"))
    (section,) = sections(page(*entries), PageOptions())
    titles = [block.title for block in section.blocks if isinstance(block, Chart)]
    assert [title.partition(":")[2].split(":")[0] for title in titles] == [
        " linear probe, default mode",
        " linear probe, as published",
    ]


def test_records_without_low_shot_curves_are_named() -> None:
    (section,) = sections(
        page(probe("lite", (0.5, 0.6, 0.7)), probe("old", (0, 0, 0), low_shot=False)), PageOptions()
    )
    said = " ".join(block.text for block in section.blocks if isinstance(block, Paragraph))
    assert "old" in said
    assert "--low-shot" in said


def test_without_any_there_is_no_section() -> None:
    assert not sections(page(probe("old", (0, 0, 0), low_shot=False)), PageOptions())


def test_of_many_models_the_best_have_colours() -> None:
    entries = [probe(f"model {i:02d}", (0.5, 0.6, 0.6 + 0.01 * i)) for i in range(12)]
    chart, (accuracy, _) = drawn(*entries)
    named = {text for text in accuracy.texts() if text.startswith("model")}
    assert named == {f"model {i:02d}" for i in range(6, 12)}
    assert not accuracy.elements("band")
    assert any("6 others are grey" in note for note in chart.notes)


def test_the_table_has_all_numbers() -> None:
    chart, _ = drawn(probe("lite", (0.5, None, 0.7)))
    assert chart.table is not None
    (row,) = chart.table.rows
    assert [cell.number for cell in row[1:5]] == [0.5, None, 0.7, 0.81]
    assert (row[1].low, row[1].high) == (pytest.approx(0.46), pytest.approx(0.54))
    assert row[2].text == "undefined"
    assert not any(cell.number is not None and math.isnan(cell.number) for cell in row)
