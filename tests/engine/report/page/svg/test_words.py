"""Words: as wide as they are estimated, distinct when shortened, moved apart as little as possible."""

import math
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageFont
from sklearn.isotonic import IsotonicRegression

from engine.report.page.svg.words import clipped, fitted, spread, width_of

NAMES = (
    "efficientnet-lite0",
    "random/shufflenet_v2_x0_5",
    "timm/vit_base_patch16_224",
    "MMMWWW",
    "illicit",
    "0.984 · #1–2",
)


@pytest.mark.parametrize("name", NAMES)
def test_widths_are_those_of_a_wide_face(name: str) -> None:
    file = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    width = ImageFont.truetype(str(file), 120).getlength(name) / 10
    assert 0.88 * width <= width_of(name) <= 1.3 * width


@given(names=st.lists(st.text(max_size=40), min_size=1, max_size=6), width=st.floats(40, 300))
def test_different_names_stay_different(names: list[str], width: float) -> None:
    short = fitted(names, width)
    assert len(set(short.values())) == len({name.encode("unicode_escape") for name in names}) or any(
        not name.isprintable() for name in names
    )


def test_names_are_shortened_in_the_middle() -> None:
    assert clipped("short", 200) == "short"
    long = clipped("facebook/dinov2-with-registers-giant", 120)
    assert width_of(long) <= 120
    assert long.startswith("facebook")
    assert long.endswith("giant")


@given(
    places=st.lists(st.floats(0, 300), min_size=1, max_size=12),
    gap=st.floats(1, 15),
)
def test_names_are_moved_as_little_as_possible(places: list[float], gap: float) -> None:
    low, high = -1e6, 1e6  # no limits: the least squares in order, as scikit-learn solves them
    moved = spread(places, gap, low, high)
    order = sorted(range(len(places)), key=lambda i: (places[i], i))
    offsets = np.arange(len(places)) * gap
    expected = IsotonicRegression().fit_transform(offsets, np.array(places)[order] - offsets) + offsets
    assert np.allclose(np.array(moved)[order], expected, atol=1e-6)


@given(places=st.lists(st.floats(-50, 350), min_size=1, max_size=30), gap=st.floats(1, 20))
def test_names_stay_within_the_plot(places: list[float], gap: float) -> None:
    moved = spread(places, gap, 0, 300)
    order = sorted(range(len(places)), key=lambda i: (places[i], i))
    steps = np.diff(np.array(moved)[order])
    least = min(gap, 300 / max(len(places) - 1, 1))
    assert (steps >= least - 1e-6).all()
    assert min(moved) >= -1e-6
    assert max(moved) <= 300 + 1e-6
    assert all(map(math.isfinite, moved))
