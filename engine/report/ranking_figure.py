"""The ranking of a comparison: models with rank intervals, and the sets that cannot be told apart.

It shows what the critical difference diagram of Demšar, Journal of Machine Learning Research 7 (2006) 1,
shows: models in order, and bars over those that are not different. Here the sets come from paired tests on
the images, adjusted by Holm's method, not from ranks over data sets: there is no single critical difference.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.report.compare_text import HEADINGS, tested_on
from engine.report.drawing import draw_figure
from engine.report.json_parts import members, objects
from engine.report.marks import LEGEND, MARK
from engine.report.probe_plots.style import COLOURS, GREY, GRID, literal, tidy
from engine.report.record_values import number, text
from engine.report.tables import shortened
from stores.json_types import Json, JsonObject

#: Models that are drawn, and characters of a name.
_ROWS, _NAME = 40, 34
#: One letter of the letter display: after z they are numbered.
_LETTER = re.compile(r"[a-z]\d*")


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        name: shortened, with a mark where a control is better.
        value, low, high: of the metric; NaN where undefined.
        rank_low, rank_high: interval of its rank; NaN where the value is undefined.
        mean_rank: over findings or classes; NaN without them.
        letters: of the sets that it is in.
    """

    name: str
    value: float
    low: float
    high: float
    rank_low: float
    rank_high: float
    mean_rank: float
    letters: tuple[str, ...]


def ranking_figure(document: Mapping[str, Json], out: Path) -> Path:
    """Draw the ranking of a comparison.

    Args:
        document: of a comparison, as `--json` prints it.
        out: PNG, SVG or PDF by its ending, written atomically; missing folders are made.

    Raises:
        Refused: the folder is not writable.
    """
    return draw_figure(lambda: draw_ranking(document), out, "compare", dpi=150)


def draw_ranking(document: Mapping[str, Json]) -> Any:
    """Return the matplotlib figure of `ranking_figure`: values, ranks and sets, side by side."""
    import matplotlib.pyplot as plt

    rows = rows_of(document)
    sets = sets_of(rows)
    figure = plt.figure(
        figsize=(8.8 + 0.16 * max(0, len(sets) - 5), 2.1 + 0.3 * len(rows)), layout="constrained"
    )
    widths = [3.6, 2.6, 0.3 + 0.16 * max(1, len(sets))]
    values, ranks, bars = figure.subplots(1, 3, sharey=True, width_ratios=widths)
    _draw_values(values, rows, document)
    _draw_ranks(ranks, rows, len(objects(document["models"])))
    _draw_sets(bars, sets)
    values.set_ylim(len(rows) - 0.4, -0.6)
    left_out = len(objects(document["models"])) - len(rows)
    title = f"{document['evaluation']}, {document['task']}: {tested_on(document)}"
    title += f"; the best {len(rows)} of {len(rows) + left_out} models" if left_out else ""
    figure.suptitle(literal(title), fontsize=9, x=0.01, ha="left")
    _legend(figure, document, rows)
    return figure


def rows_of(document: Mapping[str, Json]) -> list[Row]:
    """Return the models to draw, the best first."""
    models = objects(document["models"])
    short = shortened([text(model["model"]) for model in models], _NAME)
    means = _mean_ranks(document, [text(model["model"]) for model in models])
    return [_row(model, short[text(model["model"])], means[place]) for place, model in enumerate(models)][
        :_ROWS
    ]


def _row(model: JsonObject, name: str, mean_rank: float) -> Row:
    rank = members(model.get("rank"))
    return Row(
        literal(name) + (MARK if model.get("below_control") else ""),
        number(model.get("value")),
        number(model.get("low")),
        number(model.get("high")),
        number(rank.get("low")),
        number(rank.get("high")),
        mean_rank,
        tuple(_LETTER.findall(text(model.get("letters")))),
    )


def _mean_ranks(document: Mapping[str, Json], names: Sequence[str]) -> list[float]:
    """Return the mean rank of each model over findings in which all have a value; ties share their ranks."""
    from scipy.stats import rankdata

    sign = 1.0 if document["metric"] == "log_loss" else -1.0
    ranks = []
    for finding in objects(document["findings"]) if "findings" in document else ():
        values = {text(model["model"]): sign * number(model["value"]) for model in objects(finding["models"])}
        own = np.array([values.get(name, np.nan) for name in names])
        if np.isfinite(own).all():
            ranks.append(rankdata(own))
    return [float(rank) for rank in np.mean(ranks, axis=0)] if ranks else [float("nan")] * len(names)


def sets_of(rows: Sequence[Row]) -> list[list[int]]:
    """Return the places of the models of each set that cannot be told apart, sets of one model last."""
    letters = dict.fromkeys(letter for row in rows for letter in row.letters)
    sets = [[place for place, row in enumerate(rows) if letter in row.letters] for letter in letters]
    return sorted(sets, key=lambda places: len(places) == 1)


def _draw_values(axes: Any, rows: Sequence[Row], document: Mapping[str, Json]) -> None:
    from matplotlib.transforms import blended_transform_factory

    beside = blended_transform_factory(axes.transAxes, axes.transData)
    for y, row in enumerate(rows):
        if row.value != row.value:
            axes.text(0.02, y, "undefined", transform=beside, va="center", fontsize=8, color=GREY)
            continue
        if row.low == row.low:
            axes.plot([row.low, row.high], [y, y], color=COLOURS[0], linewidth=1.6, solid_capstyle="butt")
        axes.plot(row.value, y, "s", color=COLOURS[0], markersize=5.5)
        axes.text(1.02, y, f"{row.value:.3f}", transform=beside, va="center", fontsize=8, family="monospace")
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    better = ", lower is better" if document["metric"] == "log_loss" else ""
    axes.set_xlabel(
        f"{HEADINGS[str(document['metric'])]}{better}\n(95 % over {document['unit']})", fontsize=8
    )
    _plain(axes)


def _draw_ranks(axes: Any, rows: Sequence[Row], models: int) -> None:
    for y, row in enumerate(rows):
        if row.rank_low == row.rank_low:
            axes.plot([row.rank_low, row.rank_high], [y, y], color=COLOURS[1], linewidth=1.6)
            axes.plot([row.rank_low, row.rank_high], [y, y], "|", color=COLOURS[1], markersize=8)
            axes.plot(y + 1, y, "o", color=COLOURS[1], markersize=5)
        if row.mean_rank == row.mean_rank:
            axes.plot(row.mean_rank, y + 0.24, "D", color="black", markerfacecolor="white", markersize=5)
    axes.set_xlim(0.6, models + 0.4)
    step = max(1, -(-models // 10))
    axes.set_xticks(range(1, models + 1, step))
    axes.set_xlabel("rank, 1 is the best\n(all intervals hold together)", fontsize=8)
    _plain(axes)


def _draw_sets(axes: Any, sets: Sequence[Sequence[int]]) -> None:
    """Draw a bar from the first to the last model of each set, with a point at each of its models."""
    for x, places in enumerate(sets):
        if len(places) > 1:
            axes.plot([x, x], [places[0], places[-1]], color="black", linewidth=1.2)
        axes.plot([x] * len(places), places, "o", color="black", markersize=5, clip_on=False)
    axes.set_xlim(-0.8, max(1, len(sets)) - 0.2)
    axes.set_xticks([])
    axes.set_xlabel("cannot be\ntold apart", fontsize=8)
    _plain(axes)
    axes.spines["bottom"].set_visible(False)


def _plain(axes: Any) -> None:
    tidy(axes, "")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.grid(axis="x", color=GRID, linewidth=0.6)


def _legend(figure: Any, document: Mapping[str, Json], rows: Sequence[Row]) -> None:
    from matplotlib.lines import Line2D

    adjusted = "after Holm's adjustment " if number(document["tests"]) > 1 else ""
    alpha = f"at {number(document['alpha']):g}"
    handles = [
        Line2D([], [], color=COLOURS[1], marker="o", label="place and interval of the rank"),
        Line2D([], [], color="black", marker="o", label=f"not told apart {adjusted}{alpha}"),
    ]
    if any(row.mean_rank == row.mean_rank for row in rows):
        look: dict[str, Any] = {"color": "black", "marker": "D", "markerfacecolor": "white", "linestyle": ""}
        handles.append(Line2D([], [], **look, label="mean rank over findings or classes"))
    if any(row.name.endswith(MARK) for row in rows):
        handles.append(Line2D([], [], linestyle="", label=LEGEND))
    figure.legend(handles=handles, fontsize=7, frameon=False, ncols=2, loc="outside lower right")
