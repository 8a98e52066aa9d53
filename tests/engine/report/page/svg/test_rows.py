"""Charts of rows: points and intervals lie where the axis says, names do not hide numbers."""

import math
import re

import pytest

from engine.report.page.svg.curves import Dimension
from engine.report.page.svg.looks import Look
from engine.report.page.svg.rows import Dot, Row, RowsPanel, draw_rows
from tests.engine.report.page.drawings import Drawing


def drawn(*rows: Row, **changes: object) -> Drawing:
    settings: dict[str, object] = {"x": Dimension("difference"), **changes}
    return Drawing.of(draw_rows(RowsPanel("plot-1", "Heading", "What it shows", rows, **settings)))  # type: ignore[arg-type]


def test_points_and_intervals_are_the_numbers() -> None:
    dots = [(0.042, -0.25, 0.333), (0.333, 0.12, 0.54), (-0.1, -0.2, 0.0)]
    drawing = drawn(*(Row(f"model {i}", (Dot(*dot),)) for i, dot in enumerate(dots)), zero=True)
    centres, spans = drawing.centres("point"), drawing.spans("interval")
    assert drawing.numbers("middle", [x for x, _ in centres]) == pytest.approx([d[0] for d in dots], abs=1e-4)
    assert drawing.numbers("middle", [low for low, *_ in spans]) == pytest.approx(
        [d[1] for d in dots], abs=1e-4
    )
    assert drawing.numbers("middle", [high for _, high, _ in spans]) == pytest.approx(
        [d[2] for d in dots], abs=1e-4
    )
    assert [y for _, y in centres] == [y for *_, y in spans]  # in one row
    zeros = [re.fullmatch(r"M(.+) (.+)L(.+) (.+)", one.get("d", "")) for one in drawing.elements("zero")]
    ends = [tuple(map(float, match.groups())) for match in zeros if match]
    assert drawing.numbers("middle", [x for x, *_ in ends]) == pytest.approx([0, 0, 0], abs=1e-4)
    for (_, top, _, bottom), (_, y) in zip(ends, centres, strict=True):
        assert y - 6 < top < y < bottom  # beside the point, not across the name above it


def test_undefined_points_say_why() -> None:
    drawing = drawn(Row("a", (Dot(math.nan, reason="one class only"),)), Row("b", (Dot(0.5),)))
    assert "undefined: one class only" in drawing.texts("note")
    assert len(drawing.centres("point")) == 1
    assert not drawing.spans("interval")


def test_intervals_do_not_leave_the_axis() -> None:
    drawing = drawn(Row("a", (Dot(0.9, 0.7, 1.4),)), x=Dimension("AUROC", within=(0.0, 1.0)))
    ((_, high, _),) = drawing.spans("interval")
    assert drawing.numbers("middle", [high])[0] == pytest.approx(1.0, abs=1e-3)


def test_names_leave_room_for_numbers() -> None:
    name = "facebook/dinov2-with-registers-giant-imagenet1k-1-layer"
    drawing = drawn(Row(name, (Dot(0.5),), "+0.417 · p < 0.001", strong=True))
    boxes = {text: (left, right) for left, _, right, _, text in drawing.boxes()}
    (shown,) = (text for text in boxes if "…" in text)
    assert boxes[shown][1] <= boxes["+0.417 · p < 0.001"][0] + 1


def test_rows_stand_under_their_headings() -> None:
    rows = [Row("b", (Dot(0.1),), under="a minus"), Row("c", (Dot(0.2),), under="a minus")]
    rows.append(Row("c", (Dot(0.3),), under="b minus"))
    drawing = drawn(*rows)
    texts = [text for text in drawing.texts("halo") if text]
    assert texts == ["a minus", "b", "c", "b minus", "c"]
    heights = [y for _, y in drawing.centres("point")]
    assert heights == sorted(heights)


def test_series_have_a_key() -> None:
    series = (("model a", Look(0)), ("model b", Look(1)))
    row = Row("AP", (Dot(0.5, look=Look(0)), Dot(0.6, look=Look(1))))
    drawing = drawn(row, series=series)
    assert {"model a", "model b"} <= set(drawing.texts())
    assert len(drawing.centres("point", "series-1")) == 2  # the point, and the sample of the key


def test_no_rows() -> None:
    assert drawn().ticks("middle")
