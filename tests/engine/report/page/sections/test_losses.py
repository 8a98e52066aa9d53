"""Losses of reconstructions: curves of the record, and their geometric mean."""

import numpy as np
import pytest
from scipy.stats import gmean

from engine.report.page.blocks import Chart, Paragraph
from engine.report.page.inputs import PageOptions
from engine.report.page.sections.losses import sections
from stores.bank.record_index import RecordEntry
from stores.json_types import Json
from tests.engine.report.page.drawings import Drawing, drawings
from tests.page_records import entry_of, page

LOSSES = np.array([[40.0, 18.0, 4.0, 0.5], [30.0, 12.0, 6.0, 0.9]])


def reconstruct(model: str, losses: Json = LOSSES.tolist(), **parts: Json) -> RecordEntry:  # noqa: B008
    curves: Json = {"steps": [0, 1, 10, 100], "of": ["image 1, seed 0", "image 2, seed 0"], "losses": losses}
    return entry_of("reconstruct", model, {"mode": "default"}, {"curves": curves, **parts})


def drawn(*entries: RecordEntry) -> tuple[Chart, list[Drawing]]:
    (section,) = sections(page(*entries), PageOptions())
    (chart,) = (block for block in section.blocks if isinstance(block, Chart))
    return chart, drawings(chart.svg)


def test_curves_are_those_of_the_record() -> None:
    _, (drawing,) = drawn(reconstruct("lite"))
    lines = drawing.corners("line", "muted")
    for own, line in zip(LOSSES, reversed(lines), strict=True):
        assert drawing.numbers("middle", [x for x, _ in line], log=True) == pytest.approx(
            [1, 2, 11, 101], rel=3e-3
        )
        assert drawing.numbers("end", [y for _, y in line], log=True) == pytest.approx(own, rel=3e-3)


def test_the_mean_is_geometric() -> None:
    chart, (drawing,) = drawn(reconstruct("lite"))
    ((*line,),) = drawing.corners("line", "series-1")
    assert drawing.numbers("end", [y for _, y in line], log=True) == pytest.approx(gmean(LOSSES), rel=3e-3)
    first, *_, last = gmean(LOSSES)
    assert f"lite from {first:.3g} to {last:.3g}" in chart.alt


def test_undefined_losses_are_gaps() -> None:
    chart, (drawing,) = drawn(reconstruct("lite", [[40.0, None, 4.0, 0.5], [30.0, 12.0, 0.0, 0.9]]))
    pieces = sorted(len(piece) for piece in drawing.corners("line", "muted"))
    assert pieces == [1, 1, 2, 2]
    assert chart.table is not None
    assert chart.table.rows[0][5].number == 0.5


def test_several_models_share_one_scale() -> None:
    _, (a, b, c) = drawn(reconstruct("a"), reconstruct("b", (LOSSES / 1000).tolist()), reconstruct("c"))
    assert a.ticks("end") == b.ticks("end") == c.ticks("end")
    assert float(a.root.get("viewBox", "").split()[2]) < 200  # three models have narrow panels


@pytest.mark.parametrize("losses", [None, [], [[1.0]], "odd", [[1.0, 2.0], [3.0]]])
def test_records_without_losses_are_named(losses: Json) -> None:
    (section,) = sections(page(reconstruct("old", losses)), PageOptions())
    assert any("old" in block.text for block in section.blocks if isinstance(block, Paragraph))
