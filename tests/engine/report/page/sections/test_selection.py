"""The choice of C: scores where the record has them, the chosen C ringed, others crossed."""

import numpy as np
import pytest

from engine.report.page.blocks import Chart, Paragraph
from engine.report.page.inputs import PageOptions
from engine.report.page.sections.selection import sections
from stores.bank.record_index import RecordEntry
from stores.json_types import Json
from tests.engine.report.page.drawings import drawings
from tests.page_records import entry_of, page

C = tuple(float(value) for value in np.logspace(-5, 6, 9))
SCORES = (0.61, 0.64, 0.7, 0.83, 0.9, 0.88, 0.8, 0.85, 0.71)


def body(best: int = 4, label: str = "label") -> dict[str, Json]:
    return {
        "label": label,
        "select": "auroc",
        "best_C": C[best],
        "val_score": SCORES[best],
        "images": {"val": 40},
        "test": {"accuracy": 0.8},
        "sweep": {"C": list(C), "val_score": list(SCORES), "converged": [i not in (6, 8) for i in range(9)]},
    }


def chart(*entries: RecordEntry) -> Chart:
    (section,) = sections(page(*entries), PageOptions())
    (one,) = (block for block in section.blocks if isinstance(block, Chart))
    return one


def test_scores_and_the_chosen_c_are_those_of_the_record() -> None:
    (drawing,) = drawings(chart(entry_of("probe", "lite", {}, body())).svg)
    ((*line,),) = drawing.corners("line")
    assert drawing.numbers("middle", [x for x, _ in line], log=True) == pytest.approx(C, rel=5e-3)
    assert drawing.numbers("end", [y for _, y in line]) == pytest.approx(SCORES, abs=1e-4)
    ((x, y),) = drawing.centres("ring")
    assert drawing.numbers("middle", [x], log=True) == pytest.approx([C[4]], rel=5e-3)
    assert drawing.numbers("end", [y]) == pytest.approx([0.9], abs=1e-4)
    crosses = drawing.centres("cross")
    assert drawing.numbers("end", [y for _, y in crosses]) == pytest.approx([0.8, 0.71], abs=1e-4)


def test_models_share_one_scale() -> None:
    high = {**body(), "sweep": {"C": list(C), "val_score": [0.1] * 9, "converged": [True] * 9}}
    first, second = drawings(chart(entry_of("probe", "a", {}, body()), entry_of("probe", "b", {}, high)).svg)
    assert first.ticks("end") == second.ticks("end")
    assert first.ticks("middle") == second.ticks("middle")


def test_a_choice_at_the_edge_is_said() -> None:
    one = chart(entry_of("probe", "lite", {}, body(best=8)))
    assert "edge of the grid lies the C of lite" in one.alt
    assert one.table is not None
    assert one.table.rows[0][6].text == "yes"
    assert one.table.rows[0][1].number == C[8]


def test_findings_have_a_panel_each() -> None:
    findings: list[Json] = [
        body(label="edema"),
        {"label": "mass", "reason": "one class"},
        body(label="nodule"),
    ]
    one = chart(entry_of("probe", "lite", {"multi_label": True}, {"findings": findings, "test": {}}))
    assert [drawing.texts("heading")[0] for drawing in drawings(one.svg)] == ["lite, edema", "lite, nodule"]


def test_earlier_records_are_named() -> None:
    entries = (
        entry_of("probe", "new", {}, body()),
        entry_of("probe", "old", {}, {"best_C": 1.0, "test": {}}),
    )
    (section,) = sections(page(*entries), PageOptions())
    assert any("old" in block.text for block in section.blocks if isinstance(block, Paragraph))


def test_only_the_smallest_seed_is_drawn_and_that_is_said() -> None:
    entries = [entry_of("probe", "lite", {"seed": seed}, body()) for seed in (2, 0, 1)]
    (section,) = sections(page(*entries), PageOptions())
    charts = [block for block in section.blocks if isinstance(block, Chart)]
    assert len(charts) == 1
    assert "seed 0" in charts[0].title
    assert any("smallest seed" in block.text for block in section.blocks if isinstance(block, Paragraph))


def test_of_too_many_models_the_best_are_drawn() -> None:
    bodies = [{**body(), "test": {"accuracy": i / 100}} for i in range(30)]
    entries = [entry_of("probe", f"m{i:02d}", {}, own) for i, own in enumerate(bodies)]
    (section,) = sections(page(*entries), PageOptions(max_bytes=500_000))
    (one,) = (block for block in section.blocks if isinstance(block, Chart))
    headings = [drawing.texts("heading")[0] for drawing in drawings(one.svg)]
    assert headings == [f"m{i:02d}" for i in range(30 - len(headings), 30)]
    assert 2 <= len(headings) < 30
    assert any("best of 30" in note for note in one.notes)


def test_cross_validations_have_no_single_sweep_and_are_not_said_to_lack_one() -> None:
    folds = entry_of("probe", "folds", {"cross_validation": {"k": 5}}, {"test": {}})
    (section,) = sections(page(entry_of("probe", "new", {}, body()), folds), PageOptions())
    assert not any("folds" in block.text for block in section.blocks if isinstance(block, Paragraph))
