"""Charts of curves: every corner and point lies where the axes say, to hundredths of a unit."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.report.page.svg.curves import NARROW, Dimension, Panel, Series, draw, stepped
from engine.report.page.svg.looks import Look
from tests.engine.report.page.drawings import Drawing, same

NUMBERS = st.lists(st.floats(-1e5, 1e5), min_size=2, max_size=12)


def panel(*series: Series, **changes: object) -> Panel:
    settings: dict[str, object] = {"x": Dimension("step"), "y": Dimension("loss"), **changes}
    return Panel("plot-1", "Heading", "What it shows", series, **settings)  # type: ignore[arg-type]


def rounding(drawing: Drawing, anchor: str) -> float:
    """Return by how much a number read back may differ: of hundredths of a unit at both ends."""
    marks = drawing.ticks(anchor)
    (a, low), (b, high) = marks[0], marks[-1]
    return 0.02 * abs((high - low) / (b - a)) + 1e-9


def test_drawn_points_are_the_numbers() -> None:
    x, y = (0.0, 3.0, 7.5, 12.0), (0.91, 0.455, 0.3, 0.12)
    drawing = Drawing.of(draw(panel(Series("", x, y, marked=True))))
    for places in (drawing.corners("line")[0], drawing.centres("point")):
        across = drawing.numbers("middle", [place[0] for place in places])
        up = drawing.numbers("end", [place[1] for place in places])
        assert same(across, list(x), rounding(drawing, "middle"))
        assert same(up, list(y), rounding(drawing, "end"))


@given(y=NUMBERS)
def test_any_numbers_are_read_back(y: list[float]) -> None:
    drawing = Drawing.of(draw(panel(Series("", tuple(map(float, range(len(y)))), tuple(y), marked=True))))
    if len(drawing.ticks("end")) > 1:
        up = drawing.numbers("end", [place[1] for place in drawing.centres("point")])
        assert same(up, y, max(rounding(drawing, "end"), 2e-4 * max(map(abs, y))))


def test_logarithmic_axes() -> None:
    x, y = (1e-5, 1e-2, 1.0, 1e6), (0.002, 0.05, 3.0, 40.0)
    log = {"x": Dimension("C", log=True), "y": Dimension("loss", log=True)}
    drawing = Drawing.of(draw(panel(Series("", x, y, marked=True), **log)))
    places = drawing.centres("point")
    for anchor, index, numbers in (("middle", 0, x), ("end", 1, y)):
        read = drawing.numbers(anchor, [place[index] for place in places], log=True)
        assert read == pytest.approx(numbers, rel=2e-3)


def test_undefined_numbers_are_gaps() -> None:
    series = Series("", (1.0, 2.0, 3.0, 4.0, 5.0), (0.1, 0.2, math.nan, 0.3, 0.4), marked=True)
    drawing = Drawing.of(draw(panel(series)))
    assert [len(piece) for piece in drawing.corners("line")] == [2, 2]
    assert len(drawing.centres("point")) == 4


def test_a_single_point_between_gaps_is_seen() -> None:
    drawing = Drawing.of(draw(panel(Series("", (1.0, 2.0, 3.0), (math.nan, 0.2, math.nan)))))
    (line,) = drawing.elements("line")
    assert line.get("d", "").endswith("h0")  # drawn as a dot by its round cap


def test_bands_are_the_intervals_and_do_not_leave_the_axis() -> None:
    series = Series("", (1.0, 2.0), (0.9, 0.5), (0.7, 0.4), (1.2, 0.6))
    drawing = Drawing.of(draw(panel(series, y=Dimension("AUROC", within=(0.0, 1.0)))))
    ((*corners,),) = drawing.corners("band")
    up = drawing.numbers("end", [place[1] for place in corners])
    assert same(up, [0.7, 0.4, 0.6, 1.0], rounding(drawing, "end"))


def test_rings_crosses_guides_and_levels_lie_where_they_say() -> None:
    series = Series("", (0.0, 1.0), (0.0, 1.0), ringed=((0.5, 0.5),), crossed=((0.25, 0.75),))
    unit = Dimension("", also=(0.0, 1.0), fixed=True)
    drawn = panel(series, x=unit, y=unit, guides=((0.0, 1.0, 1.0, 0.0),), levels=(0.2, math.nan))
    drawing = Drawing.of(draw(drawn))
    for name, numbers in (("ring", (0.5, 0.5)), ("cross", (0.25, 0.75))):
        ((x, y),) = drawing.centres(name)
        assert drawing.numbers("middle", [x])[0] == pytest.approx(numbers[0], abs=1e-3)
        assert drawing.numbers("end", [y])[0] == pytest.approx(numbers[1], abs=1e-3)
    guide, level = (one.get("d", "") for one in drawing.elements("guide"))
    ends = [float(part) for part in guide.replace("M", " ").replace("L", " ").split()]
    assert drawing.numbers("end", [ends[1], ends[3]]) == pytest.approx([1, 0], abs=1e-3)
    assert drawing.numbers("end", [float(level.split()[-1])])[0] == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize(
    "y",
    [
        (),
        (0.5,),
        (math.nan, math.nan),
        (0.3, 0.3, 0.3),
        (1e300, -1e300),
        (1e-300, 2e-300),
        (0.0, 0.0),
        (1.79e308,),
    ],
    ids=["empty", "one", "undefined", "constant", "huge", "tiny", "zero", "largest"],
)
@pytest.mark.parametrize("log", [False, True])
def test_odd_numbers_are_drawn(y: tuple[float, ...], log: bool) -> None:
    x = tuple(float(place + 1) for place in range(len(y)))
    series = Series("name", x, y, y, y, marked=True)
    drawing = Drawing.of(draw(panel(series, x=Dimension("x", log=log), y=Dimension("y", log=log))))
    assert "nan" not in drawing.root.get("viewBox", "")
    assert drawing.ticks("end")


def test_names_stand_at_the_ends_without_touching() -> None:
    names = [f"model-{place}" for place in range(6)]
    ends = (0.8, 0.801, 0.802, 0.803, 0.81, 0.2)
    series = [
        Series(name, (0.0, 1.0), (0.1, end), look=Look(place))
        for place, (name, end) in enumerate(zip(names, ends, strict=True))
    ]
    drawing = Drawing.of(draw(panel(*series)))
    heights = [bottom for *_, bottom, text in drawing.boxes() if text in names]
    assert len(heights) == 6
    gaps = [b - a for a, b in zip(sorted(heights), sorted(heights)[1:], strict=False)]
    assert min(gaps) >= 14.99
    upwards = sorted(names, key=lambda name: -ends[names.index(name)])
    by_height = [
        text for *_, bottom, text in sorted(drawing.boxes(), key=lambda box: box[3]) if text in names
    ]
    assert by_height == upwards


def test_long_names_stand_in_a_key() -> None:
    names = ("facebook/dinov2-with-registers-giant", "random/shufflenet_v2_x0_5")
    series = [Series(name, (0.0, 1.0), (0.1, 0.2), look=Look(i)) for i, name in enumerate(names)]
    drawing = Drawing.of(draw(panel(*series)))
    plot = max(place for place, _ in drawing.ticks("end"))
    assert all(bottom > plot for *_, bottom, text in drawing.boxes() if text in names)
    assert set(names) <= set(drawing.texts())


@pytest.mark.parametrize("width", [NARROW, 340.0])
def test_tick_labels_do_not_touch(width: float) -> None:
    series = Series("", (1e-5, 1e6), (0.61234, 0.61235))
    drawing = Drawing.of(draw(panel(series, x=Dimension("C", log=True), width=width)))
    boxes = [box for box in drawing.boxes() if box[4] not in ("Heading", "loss", "C")]
    for i, (left, top, right, bottom, _) in enumerate(boxes):
        for other_left, other_top, other_right, other_bottom, _ in boxes[i + 1 :]:
            apart = right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
            assert apart


def test_steps() -> None:
    corners = [(0.0, 1.0), (2.0, 3.0), (5.0, 2.0)]
    assert stepped(corners, "") == corners
    assert stepped(corners, "post") == [(0, 1), (2, 1), (2, 3), (5, 3), (5, 2)]
    assert stepped(corners, "pre") == [(0, 1), (0, 3), (2, 3), (2, 2), (5, 2)]


def test_bars_have_their_heights() -> None:
    unit = Dimension("", also=(0.0, 1.0), fixed=True)
    drawing = Drawing.of(draw(panel(x=unit, y=unit, bars=((0.0, 0.5, 0.25), (0.5, 1.0, 0.75)))))
    (path,) = (one.get("d", "") for one in drawing.elements("bar"))
    tops = [float(piece.split()[1].partition("h")[0]) for piece in path.split("M")[1:]]
    assert drawing.numbers("end", tops) == pytest.approx([0.25, 0.75], abs=1e-3)


def test_the_same_chart_gives_the_same_bytes() -> None:
    drawn = panel(Series("a", (0.0, 1.0), (0.1, 0.2)))
    assert draw(drawn) == draw(drawn)
