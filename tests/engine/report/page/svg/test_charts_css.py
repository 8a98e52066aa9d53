"""The style of charts: told apart by everybody, legible in both schemes, complete."""

import re
from importlib import resources
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.report.page import svg

TEMPLATES = resources.files("engine.report.page") / "templates"
CHARTS, PAGE = ((TEMPLATES / name).read_text("utf-8") for name in ("charts.css", "page.css"))
#: Linear sRGB of people without one of the cones: Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009) 1291.
VISION = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def variables(css: str, dark: bool) -> dict[str, str]:
    """Return the colours of one scheme: those of the first block, and those that the dark one replaces."""
    light, _, rest = css.partition("prefers-color-scheme: dark")
    colours = dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", light))
    return colours | dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", rest)) if dark else colours


SCHEMES = {
    name: variables(CHARTS, name == "dark") | variables(PAGE, name == "dark") for name in ("light", "dark")
}


def linear(colour: str) -> NDArray[np.float64]:
    """Return linear sRGB (IEC 61966-2-1)."""
    share = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """Return the contrast ratio of the WCAG 2.2."""
    lights = sorted(float(XYZ[1] @ linear(colour)) + 0.05 for colour in (a, b))
    return lights[1] / lights[0]


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return CIELAB of linear sRGB, D65."""
    share = XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    root = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_series_stand_out_from_the_page(scheme: str) -> None:
    colours = SCHEMES[scheme]
    for name in (*(f"--plot-{place}" for place in range(1, 9)), "--plot-muted"):
        assert contrast(colours[name], colours["--paper"]) >= 3, name


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_series_are_told_apart_by_everybody(scheme: str, vision: str) -> None:
    seen = [lab(VISION[vision] @ linear(SCHEMES[scheme][f"--plot-{place}"])) for place in range(1, 9)]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) >= 20


@pytest.mark.parametrize("scheme", SCHEMES)
def test_numbers_are_legible_on_every_shade(scheme: str) -> None:
    colours = SCHEMES[scheme]
    for shade in range(10):
        ink = colours["--heat-low-ink" if shade < 6 else "--heat-high-ink"]
        assert contrast(colours[f"--heat-{shade}"], ink) >= 4.5, shade


@pytest.mark.parametrize("scheme", SCHEMES)
def test_shades_go_one_way(scheme: str) -> None:
    lightness = [float(lab(linear(SCHEMES[scheme][f"--heat-{shade}"]))[0]) for shade in range(10)]
    assert lightness == sorted(lightness, reverse=scheme == "light")


def test_both_dark_blocks_are_alike() -> None:
    blocks = re.findall(r":root[^{]*\{([^}]*)\}", CHARTS)
    media, chosen = (dict(re.findall(r"(--[\w-]+): (#\w+)", block)) for block in blocks[1:])
    assert media == chosen


def test_every_class_has_a_style() -> None:
    styled = set(re.findall(r"\.([a-z][\w-]*)", CHARTS))
    code = "".join(path.read_text("utf-8") for path in Path(svg.__file__).parent.glob("*.py"))
    words = re.findall(r'class_(?:: str)?=f?"([^"]*)"', code) + re.findall(
        r'"((?:halo|tick|note)[\w -]*)"', code
    )
    used = {word for words_of in words for word in words_of.split() if re.fullmatch(r"[a-z][a-z-]*", word)}
    assert used
    assert used <= styled | {""}
