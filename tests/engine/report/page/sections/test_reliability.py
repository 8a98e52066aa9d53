"""Reliability: frequency against probability where scikit-learn puts it, before and after scaling."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from engine.report.page.blocks import Chart, Paragraph
from engine.report.page.inputs import PageOptions
from engine.report.page.sections.reliability import sections
from stores.bank.record_index import RecordEntry
from stores.json_types import Json
from tests.engine.report.page.drawings import Drawing, drawings
from tests.page_records import entry_of, page

BINS = 10


def binned(probability: np.ndarray, truth: np.ndarray) -> dict[str, Json]:  # type: ignore[type-arg]
    """Return equally wide bins, by a plain loop."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    body: dict[str, Json] = {"count": [], "frequency": [], "probability": []}
    for i in range(BINS):
        own = place == i
        body["count"].append(int(own.sum()))  # type: ignore[union-attr]
        body["frequency"].append(float(truth[own].mean()) if own.any() else None)  # type: ignore[union-attr]
        body["probability"].append(float(probability[own].mean()) if own.any() else None)  # type: ignore[union-attr]
    return body


RNG = np.random.default_rng(0)
PROBABILITY = RNG.beta(2, 2, 300)
TRUTH = (RNG.random(300) < PROBABILITY**1.5).astype(int)


def probe(model: str, temperature: float | None = 1.7, **parts: Json) -> RecordEntry:
    after = 1 / (1 + np.exp(-np.log(PROBABILITY / (1 - PROBABILITY)) / 1.7))
    calibration: dict[str, Json] = {
        "temperature": temperature,
        "bins": {"before": binned(PROBABILITY, TRUTH), "after": binned(after, TRUTH)},
        "class_ece": {"before": 0.2, "after": 0.1},
        "ece": {"before": 0.25, "after": 0.15},
        "brier": {"before": 0.3, "after": 0.29},
        "log_loss": {"before": 0.7, "after": 0.6},
    }
    body: dict[str, Json] = {
        "classes": ["no", "yes"],
        "calibration": calibration,
        "images": {"test": 300},
        **parts,
    }
    return entry_of("probe", model, {"label": "label", "mode": "default"}, body)


def drawn(*entries: RecordEntry) -> tuple[Chart, list[Drawing]]:
    (section,) = sections(page(*entries), PageOptions())
    (chart,) = (block for block in section.blocks if isinstance(block, Chart))
    return chart, drawings(chart.svg)


def test_points_are_those_of_scikit_learn() -> None:
    _, (drawing,) = drawn(probe("lite"))
    frequency, probability = calibration_curve(TRUTH, PROBABILITY, n_bins=BINS)
    before = drawing.centres("point", "hollow")
    assert drawing.numbers("middle", [x for x, _ in before]) == pytest.approx(probability, abs=2e-4)
    assert drawing.numbers("end", [y for _, y in before]) == pytest.approx(frequency, abs=2e-4)


def test_bars_are_shares_of_the_images() -> None:
    _, (drawing,) = drawn(probe("lite"))
    (path,) = (one.get("d", "") for one in drawing.elements("bar-outline"))
    tops = [float(piece.split()[1].partition("h")[0]) for piece in path.split("M")[1:]]
    counts = np.histogram(PROBABILITY, BINS, (0, 1))[0]
    assert drawing.numbers("end", tops) == pytest.approx(counts[counts > 0] / 300, abs=2e-4)


def test_errors_and_temperature_are_written() -> None:
    chart, (drawing,) = drawn(probe("lite"))
    assert drawing.texts("note") == ["ECE 0.200 → 0.100, T 1.7"]
    assert chart.table is not None
    (row,) = chart.table.rows
    assert [cell.number for cell in row[1:]] == [1.7, 0.2, 0.1, 0.3, 0.29, 0.7, 0.6]


def test_of_several_classes_the_confidence_is_drawn() -> None:
    chart, (drawing,) = drawn(probe("lite", classes=["a", "b", "c"]))
    assert drawing.texts("note") == ["ECE 0.250 → 0.150, T 1.7"]
    assert any("confidence" in note for note in chart.notes)


def test_without_a_temperature_it_says_so() -> None:
    _, (drawing,) = drawn(probe("lite", None))
    assert drawing.texts("note") == ["ECE 0.200 → no temperature"]


def test_empty_bins_are_drawn_as_nothing() -> None:
    empty: Json = {"count": [0] * 10, "frequency": [None] * 10, "probability": [None] * 10}
    calibration: Json = {"bins": {"before": empty, "after": empty}, "temperature": None}
    _, (drawing,) = drawn(probe("lite", calibration=calibration))
    assert not drawing.centres("point")
    assert drawing.texts("note") == ["ECE undefined"]


def test_earlier_records_are_named() -> None:
    old = entry_of("probe", "old", {"label": "label", "mode": "default"}, {"test": {}})
    (section,) = sections(page(probe("lite"), old), PageOptions())
    assert any("old" in block.text for block in section.blocks if isinstance(block, Paragraph))


@pytest.mark.parametrize("part", ["count", "frequency", "probability"])
@pytest.mark.parametrize("odd", [None, [], [0.5], "x", {}])
def test_bins_of_unlike_lengths_do_not_stop_the_page(part: str, odd: Json) -> None:
    bins = {**binned(PROBABILITY, TRUTH), part: odd}
    calibration: Json = {"bins": {"before": bins, "after": binned(PROBABILITY, TRUTH)}, "temperature": 1.0}
    drawn(probe("lite", calibration=calibration))
