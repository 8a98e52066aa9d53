"""The forest plot of a comparison: paired differences with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.report.compare_text import HEADINGS, tested_on
from engine.report.drawing import draw_figure
from engine.report.json_parts import objects
from engine.report.record_values import number
from engine.report.tables import shortened
from stores.json_types import Json, JsonObject
from stores.manifest.uri_policy import plain

#: Colours of Okabe and Ito, which people with any colour vision tell apart; shapes say the same in print.
_APART, _ALIKE = "#0072B2", "#6B6B6B"
#: Rows that are drawn, and models up to which all pairs are; of more the pairs with the best one.
_ROWS, _ALL_PAIRS = 40, 5
_NAME = 34


@dataclass(frozen=True)
class Row:
    """One difference.

    Attributes:
        name: of the pair or finding.
        difference, low, high: how much better the first model is; NaN where undefined.
        p_holm: adjusted p; NaN where there is none.
        different: whether the models can be told apart.
    """

    name: str
    difference: float
    low: float
    high: float
    p_holm: float
    different: bool

    @classmethod
    def of(cls, pair: Mapping[str, Json], name: str, sign: float) -> "Row":
        """Take a pair.

        Args:
            sign: -1 where smaller values are better.
        """
        low, high = sorted(sign * number(pair[end]) for end in ("low", "high"))
        difference, p_holm = sign * number(pair["difference"]), number(pair["p_holm"])
        return cls(name, difference, low, high, p_holm, pair["different"] is True)


def comparison_figure(document: Mapping[str, Json], out: Path) -> Path:
    """Draw the differences of a comparison.

    Filled blue squares are pairs that can be told apart after the adjustment, open grey circles others.

    Args:
        document: of a comparison, as `--json` prints it.
        out: PNG, SVG or PDF by its ending, written atomically; missing folders are made.

    Raises:
        Refused: the folder is not writable.
    """
    return draw_figure(lambda: draw_comparison(document), out, "compare", dpi=150)


def draw_comparison(document: Mapping[str, Json]) -> Any:
    """Return the matplotlib figure of `comparison_figure`."""
    import matplotlib.pyplot as plt

    rows, title = _rows(document)
    figure = plt.figure(figsize=(8.6, 1.9 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        _draw_row(axes, row, len(rows) - 1 - place)
    axes.set_yticks(range(len(rows))[::-1], [row.name for row in rows], fontsize=8)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.axvline(0, color="black", linewidth=0.8, zorder=0)
    axes.margins(x=0.05)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    heading = HEADINGS[str(document["metric"])]
    axes.set_xlabel(
        f"difference of {heading}, above 0 where the first model is better\n"
        f"(bars: 95 % intervals over {document['unit']})",
        fontsize=8,
    )
    axes.set_title(_literal(title), fontsize=9, loc="left")
    _legend(figure, document)
    return figure


def _rows(document: Mapping[str, Json]) -> tuple[list[Row], str]:
    """Return the rows to draw and the title."""
    models = [str(model["model"]) for model in objects(document["models"])]
    sign = -1.0 if document["metric"] == "log_loss" else 1.0
    short = shortened(models, _NAME)
    pairs = objects(document["pairs"])
    named = [(pair, f"{short[str(pair['a'])]} − {short[str(pair['b'])]}") for pair in pairs]
    if len(models) > _ALL_PAIRS:
        named = [(pair, f"− {short[str(pair['b'])]}") for pair in pairs if pair["a"] == models[0]]
    rows = [Row.of(pair, _literal(name), sign) for pair, name in named]
    what = f"{document['evaluation']}, {document['task']}"
    title = f"{what}: {tested_on(document)}"
    if len(models) > _ALL_PAIRS:
        title = f"{title}\n{short[models[0]]} less each other model"
    if len(models) == 2 and "findings" in document:
        rows = [Row.of(pairs[0], "mean", sign), *_finding_rows(document, models, sign)]
        title = f"{title}\n{short[models[0]]} − {short[models[1]]}"
    return rows[:_ROWS], title


def _finding_rows(document: Mapping[str, Json], models: Sequence[str], sign: float) -> list[Row]:
    """Return a row for each finding of two models, in the order of the first pair."""
    rows = []
    for finding in objects(document["findings"]):
        pair = objects(finding["pairs"])[0]
        turned = pair if pair["a"] == models[0] else _turned(pair)
        rows.append(Row.of(turned, _literal(str(finding["name"])), sign))
    return rows


def _turned(pair: JsonObject) -> JsonObject:
    numbers = {name: -number(pair[name]) for name in ("difference", "low", "high")}
    return {**pair, **numbers}


def _draw_row(axes: Any, row: Row, y: int) -> None:
    from matplotlib.transforms import blended_transform_factory

    beside = blended_transform_factory(axes.transAxes, axes.transData)
    if row.difference != row.difference:
        axes.text(0.01, y, "undefined", transform=beside, va="center", fontsize=8, color=_ALIKE)
        return
    colour = _APART if row.different else _ALIKE
    if row.low == row.low:
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    face = colour if row.different else "white"
    marker = "s" if row.different else "o"
    axes.plot(row.difference, y, marker=marker, color=colour, markerfacecolor=face, markersize=6)
    p = row.p_holm
    text = f"{row.difference:+.3f}   " + ("" if p != p else "p < 0.001" if p < 0.001 else f"p = {p:.3f}")
    axes.text(1.02, y, text, transform=beside, va="center", fontsize=8, family="monospace")


def _legend(figure: Any, document: Mapping[str, Json]) -> None:
    from matplotlib.lines import Line2D

    adjusted = "after Holm's adjustment" if number(document["tests"]) > 1 else f"at {document['alpha']:g}"
    handles = [
        Line2D([], [], color=_APART, marker="s", label=f"can be told apart {adjusted}"),
        Line2D([], [], color=_ALIKE, marker="o", markerfacecolor="white", label="cannot"),
    ]
    figure.legend(handles=handles, fontsize=7, frameon=False, ncols=2, loc="outside lower right")


def _literal(text: str) -> str:
    """Return text that Matplotlib draws literally: a dollar would begin a formula."""
    return plain(text).replace("$", r"\$").replace(r"\n", "\n")
