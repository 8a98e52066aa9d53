"""Heat maps: shares of rows, shades by shares, numbers in the cells."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from engine.report.page.svg.heat import HeatMap, draw_heat_map, shade_of, shares_of
from tests.engine.report.page.drawings import Drawing

TRUTH, ANSWERS = [0] * 8 + [1] * 6 + [2] * 4, [0] * 8 + [1] * 3 + [2] * 2 + [0] + [2] * 3 + [1]


def drawn(counts: np.ndarray, names: tuple[str, ...]) -> Drawing:  # type: ignore[type-arg]
    rows = tuple(tuple(map(float, row)) for row in counts)
    return Drawing.of(draw_heat_map(HeatMap("plot-1", "model", "What it shows", names, rows)))


def test_cells_have_counts_and_shares() -> None:
    counts = confusion_matrix(TRUTH, ANSWERS)
    shares = confusion_matrix(TRUTH, ANSWERS, normalize="true")
    drawing = drawn(counts, ("a", "b", "c"))
    texts = [text for text in drawing.texts() if text not in ("a", "b", "c", "model", "true", "predicted")]
    pairs = [(f"{counts[i, j]}", f"{shares[i, j]:.0%}") for i in range(3) for j in range(3)]
    expected = [text for pair in pairs for text in pair]
    assert texts == expected


def test_shades_rise_with_shares() -> None:
    counts = confusion_matrix(TRUTH, ANSWERS)
    shares = confusion_matrix(TRUTH, ANSWERS, normalize="true")
    drawing = drawn(counts, ("a", "b", "c"))
    squares = {}
    for shade in range(10):
        for one in drawing.elements(f"heat-{shade}"):
            for piece in one.get("d", "").split("M")[1:]:
                x, y = (float(value) for value in piece.partition("h")[0].split())
                squares[x, y] = shade
    xs, ys = (sorted({place[axis] for place in squares}) for axis in (0, 1))
    drawn_shades = [[squares[x, y] for x in xs] for y in ys]
    assert drawn_shades == [[min(int(share * 10), 9) for share in row] for row in shares.tolist()]


def test_an_empty_row_has_no_shares() -> None:
    assert all(np.isnan(shares_of([0.0, 0.0])))
    drawing = drawn(np.array([[0, 0], [1, 3]]), ("a", "b"))
    assert "0%" not in drawing.texts("small")


@pytest.mark.parametrize("classes", [1, 12, 40])
def test_many_classes(classes: int) -> None:
    drawing = drawn(np.eye(classes), tuple(f"class {i}" for i in range(classes)))
    assert drawing.elements("heat-9")
    assert ("class 0" in drawing.texts()) == (classes <= 30)


@pytest.mark.parametrize(
    ("share", "shade"), [(0.0, 0), (0.0999, 0), (0.1, 1), (0.95, 9), (1.0, 9), (float("nan"), 0)]
)
def test_shades(share: float, shade: int) -> None:
    assert shade_of(share) == shade
