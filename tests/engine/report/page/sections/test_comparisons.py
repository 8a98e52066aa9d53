"""Comparisons: differences where they are, filled where models are told apart, in the words of the record."""

import pytest

from engine.evals.comparison.result import Comparison, Pair, Part, Setting, Standing
from engine.report.page.blocks import Chart, Details
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.render import render_page
from engine.report.page.sections.comparisons import sections
from stores.bank.record_index import RecordEntry
from tests.engine.report.page.drawings import Drawing, drawings
from tests.page_records import entry_of, page

NAN = float("nan")
PAIRS = (
    Pair("lite", "random", 0.157, 0.106, 0.213, 0.0001, 0.0002, "bootstrap-t", True),
    Pair("lite", "tiny", 0.04, -0.02, 0.1, 0.2, 0.2, "bootstrap-t", False),
    Pair("random", "tiny", NAN, NAN, NAN, NAN, NAN, "bootstrap-t", False, "one class only"),
)


def compared(
    pairs: tuple[Pair, ...] = PAIRS, metric: str = "accuracy", mode: str = "default", models: int = 3
) -> RecordEntry:
    names = ("lite", "tiny", "random", *(f"model {i}" for i in range(models - 3)))
    standings = tuple(
        Standing(
            name,
            "r",
            "b",
            0.9 - 0.1 * i,
            0.85 - 0.1 * i,
            0.95 - 0.1 * i,
            i + 1,
            i + 2,
            "ab",
            "chance" * (i == 2),
        )
        for i, name in enumerate(names)
    )
    setting = Setting("probe", metric, "label", 116, 80, "patients", 2000, 0, "percentile", 0.05, len(pairs))
    part = Part("", standings, pairs, ("lite", "tiny"))
    body = Comparison(setting, (part,), ("A note",)).to_dict()
    return entry_of("compare", "", {"evaluation": "probe", "mode": mode, "seed": 0}, body)


def charts(given: PageInput) -> list[Chart]:
    blocks = [block for section in sections(given, PageOptions()) for block in section.blocks]
    return [block for block in blocks if isinstance(block, Chart)]


def both(entry: RecordEntry) -> tuple[Drawing, Drawing]:
    (chart,) = charts(page(entry))
    models, forest = drawings(chart.svg)
    return models, forest


def test_differences_are_those_of_the_record() -> None:
    _, forest = both(compared())
    points = sorted(forest.centres("point"), key=lambda place: place[1])
    spans = sorted(forest.spans("interval"), key=lambda span: span[2])
    assert forest.numbers("middle", [x for x, _ in points]) == pytest.approx([0.157, 0.04], abs=1e-4)
    assert forest.numbers("middle", [low for low, *_ in spans]) == pytest.approx([0.106, -0.02], abs=1e-4)
    assert forest.numbers("middle", [high for _, high, _ in spans]) == pytest.approx([0.213, 0.1], abs=1e-4)


def test_filled_is_told_apart() -> None:
    _, forest = both(compared())
    apart = forest.numbers("middle", [x for x, _ in forest.centres("point", "series-2")])
    alike = forest.numbers("middle", [x for x, _ in forest.centres("point", "hollow")])
    assert (apart, alike) == (pytest.approx([0.157], abs=1e-4), pytest.approx([0.04], abs=1e-4))


def test_an_undefined_difference_says_why() -> None:
    _, forest = both(compared())
    assert "undefined: one class only" in forest.texts("note")


def test_a_smaller_log_loss_counts_as_better() -> None:
    pairs = (Pair("lite", "tiny", -0.2, -0.3, -0.1, 0.01, 0.01, "bootstrap-t", True),)
    _, forest = both(compared(pairs, "log_loss"))
    (point,) = forest.centres("point")
    ((low, high, _),) = forest.spans("interval")
    assert forest.numbers("middle", [point[0], low, high]) == pytest.approx([0.2, 0.1, 0.3], abs=1e-4)


def test_models_have_values_ranks_and_letters() -> None:
    models, _ = both(compared())
    points = sorted(models.centres("point"), key=lambda place: place[1])
    assert models.numbers("middle", [x for x, _ in points]) == pytest.approx([0.9, 0.8, 0.7], abs=1e-4)
    assert models.texts("soft")[0] == "0.900 · #1–2 · ab"
    assert list(models.texts("halo", "strong")) == ["lite", "tiny"]  # the best set
    assert "random†" in models.texts("halo")


def test_of_many_models_the_pairs_with_the_best_are_shown() -> None:
    (chart,) = charts(page(compared(models=6)))
    _, forest = drawings(chart.svg)
    assert len(forest.centres("point")) == 2
    assert any("with the best one" in note for note in chart.notes)


def test_tables_have_every_number_and_the_basis() -> None:
    (section,) = sections(page(compared()), PageOptions())
    (more,) = (block for block in section.blocks if isinstance(block, Details))
    models, pairs = more.blocks
    assert [row[1].number for row in models.rows] == [0.9, 0.8, pytest.approx(0.7)]  # type: ignore[union-attr]
    assert [row[2].number for row in pairs.rows] == [0.157, 0.04, None]  # type: ignore[union-attr]
    assert [row[5].text for row in pairs.rows] == ["yes", "no", "no"]  # type: ignore[union-attr]
    assert "116 images of 80 patients" in pairs.caption  # type: ignore[union-attr]
    assert "Holm's method for 3 tests" in pairs.caption  # type: ignore[union-attr]


def test_modes_are_apart() -> None:
    own = charts(page(compared(mode="as-published"), compared()))
    assert [chart.title.rpartition(", ")[2] for chart in own] == ["default mode", "as published"]


@pytest.mark.parametrize("lost", ["images", "tests", "notes", "verdict", "best", "resamples", "unit"])
def test_records_of_earlier_versions_may_lack_parts(lost: str) -> None:
    entry = compared()
    assert entry.record is not None
    body = {name: value for name, value in entry.record.metrics.items() if name != lost}
    assert charts(page(entry_of("compare", "", {"mode": "default"}, body)))


@pytest.mark.parametrize("body", [{}, {"models": [], "pairs": []}, {"models": None, "pairs": None}])
def test_comparisons_of_nothing_are_left_out(body: dict[str, None]) -> None:
    assert not sections(page(entry_of("compare", "", {}, body)), PageOptions())  # type: ignore[arg-type]


def test_models_without_a_pair() -> None:
    entry = compared()
    assert entry.record is not None
    assert charts(page(entry_of("compare", "", {}, {**entry.record.metrics, "pairs": []})))


def test_hostile_names_stay_texts() -> None:
    pair = Pair("<script>a</script>", 'b" onload="x', 0.1, 0.0, 0.2, 0.1, 0.1, "t", False)
    from engine.report.page.blocks import Page

    html = render_page(Page("p", sections=sections(page(compared((pair,))), PageOptions()))).decode()
    assert "<script>a" not in html
    assert 'onload="x' not in html
