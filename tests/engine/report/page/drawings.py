"""Reads drawings back: numbers from places, by the tick labels that stand at them."""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_SVG = "{http://www.w3.org/2000/svg}"
_DIGITS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def tick_number(label: str) -> float:
    """Return what a tick label says."""
    text = label.replace("−", "-").replace(",", "").rstrip("°")
    if match := re.fullmatch(r"(-?)(?:([\d.]+)·)?10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text):
        sign, lead, exponent = match.groups()
        return float(f"{sign}{lead or 1}e{exponent.translate(_DIGITS)}")
    return float(text)


@dataclass
class Drawing:
    """An SVG that was parsed."""

    root: ET.Element

    @classmethod
    def of(cls, svg: str) -> "Drawing":
        return cls(ET.fromstring(svg))

    def elements(self, *classes: str) -> list[ET.Element]:
        """Return the elements that have all classes."""
        wanted = set(classes)
        return [one for one in self.root.iter() if wanted <= set(one.get("class", "").split())]

    def texts(self, *classes: str) -> list[str]:
        chosen = self.elements(*classes) if classes else self.root.iter(f"{_SVG}text")
        return ["".join(one.itertext()) for one in chosen if one.tag == f"{_SVG}text"]

    def ticks(self, anchor: str) -> list[tuple[float, float]]:
        """Return (place, number) of the ticks across (`middle`) or upwards (`end`)."""
        marks = []
        for one in self.elements("tick"):
            if one.get("text-anchor") == anchor:
                place = float(one.get("x", "")) if anchor == "middle" else float(one.get("y", "")) - 4
                try:
                    marks.append((place, tick_number("".join(one.itertext()))))
                except ValueError:
                    continue  # a word, e.g. `all`
        return marks

    def numbers(self, anchor: str, places: list[float], log: bool = False) -> list[float]:
        """Return the numbers at places, by a line through the ticks."""
        marks = np.array(self.ticks(anchor))
        values = np.log(marks[:, 1]) if log else marks[:, 1]
        slope, start = np.polyfit(marks[:, 0], values, 1)
        read = slope * np.array(places) + start
        return [float(value) for value in (np.exp(read) if log else read)]

    def corners(self, *classes: str) -> list[list[tuple[float, float]]]:
        """Return the corners of lines or bands: a list for each piece."""
        pieces = []
        for one in self.elements(*classes):
            for piece in re.split("M", one.get("d", ""))[1:]:
                flat = [float(value) for value in _NUMBER.findall(piece.replace("h0", ""))]
                pieces.append(list(zip(flat[::2], flat[1::2], strict=True)))
        return pieces

    def centres(self, *classes: str) -> list[tuple[float, float]]:
        """Return the centres of points, rings and crosses."""
        paths = "".join(one.get("d", "") for one in self.elements(*classes))
        return [(float(x), float(y)) for x, y in re.findall(r"M(-?[\d.]+) (-?[\d.]+)m", paths)]

    def spans(self, *classes: str) -> list[tuple[float, float, float]]:
        """Return (low, high, y) of horizontal intervals."""
        paths = "".join(one.get("d", "") for one in self.elements(*classes))
        spans = re.findall(r"M(-?[\d.]+) (-?[\d.]+)H(-?[\d.]+)", paths)
        return [(float(low), float(high), float(y)) for low, y, high in spans]

    def boxes(self) -> Iterator[tuple[float, float, float, float, str]]:
        """Return (left, top, right, bottom, text) of texts, with the width of usual letters."""
        for one in self.root.iter(f"{_SVG}text"):
            if one.get("transform"):
                continue
            text = "".join(one.itertext())
            width, x = 6.2 * len(text), float(one.get("x", ""))
            left = {"middle": x - width / 2, "end": x - width}.get(one.get("text-anchor", ""), x)
            y = float(one.get("y", ""))
            yield left, y - 9, left + width, y + 1, text


def drawings(markup: str) -> list[Drawing]:
    """Return all drawings of a chart."""
    return [Drawing.of(svg) for svg in re.findall(r"<svg .*?</svg>", markup, re.DOTALL)]


def same(a: list[float], b: list[float], tolerance: float) -> bool:
    """Return whether two lists agree."""
    return len(a) == len(b) and all(math.isclose(x, y, abs_tol=tolerance) for x, y in zip(a, b, strict=True))
