"""Elements: escaped, without style and script."""

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.report.page.svg.element import Markup, drawing, element, escaped, number
from engine.report.page.svg.words import label

HOSTILE = (
    '<script>alert("1")</script>',
    "\"><img src=x onerror='alert(1)'>",
    "]]><!-- & &amp; -->",
    "a\u202egnp.exe",
    "nul\x00 bell\x07 \ufffe",
    "\ud800 lone",
    "$x_1$ \\alpha",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts(text: str) -> None:
    svg = drawing("plot-1", 10, 10, text, text, label(1, 2, text, "tick"))
    root = ET.fromstring(svg)
    assert {one.tag.rpartition("}")[2] for one in root.iter()} == {"svg", "title", "desc", "text"}
    assert all(not name.startswith("on") for one in root.iter() for name in one.attrib)
    svg.encode()  # no lone surrogate
    assert "\u202e" not in svg
    assert "\x00" not in svg


@given(st.text())
def test_any_text_gives_well_formed_markup(text: str) -> None:
    ET.fromstring(element("text", escaped(text), x=1.0, class_=text))


@pytest.mark.parametrize("tag", ["script", "style", "foreignObject", "a b", ""])
def test_forbidden_elements(tag: str) -> None:
    with pytest.raises(ValueError, match="element"):
        element(tag)


@pytest.mark.parametrize("name", ["style", "onload", "x y", 'x"'])
def test_forbidden_attributes(name: str) -> None:
    with pytest.raises(ValueError, match="attribute"):
        element("path", **{name: "x"})


def test_forbidden_ids() -> None:
    with pytest.raises(ValueError, match="id"):
        drawing('x" onload="', 1, 1, "", "", "")


def test_names_are_announced() -> None:
    root = ET.fromstring(drawing("plot-1", 10, 20, "Title", "What it shows", Markup("")))
    assert root.get("role") == "img"
    named = {one.get("id"): one.text for one in root}
    assert [named[name] for name in root.get("aria-labelledby", "").split()] == ["Title", "What it shows"]
    assert root.get("viewBox") == "0 0 10 20"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (1.005, "1"), (2.345678, "2.35"), (-0.001, "0"), (10.5, "10.5"), (100, "100"), (-3.1, "-3.1")],
)
def test_coordinates_are_short(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(-1e6, 1e6))
def test_coordinates_are_rounded_to_hundredths(value: float) -> None:
    assert abs(float(number(value)) - value) <= 0.005 + 1e-9


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_place_is_undefined(value: float) -> None:
    with pytest.raises(ValueError, match="coordinate"):
        number(value)
