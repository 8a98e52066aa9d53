"""Bars of groups and boxes of models: figures 2 to 5 and 9."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.paper.experiments import PROTOCOL_LABELS, Experiment
from benchmarks.paper.names import dataset_label
from benchmarks.paper.style import COLOURS, draw_points, finish, pale
from engine.report.page.blocks import Column, DataTable, Value
from engine.report.probe_plots.style import literal
from engine.report.statistics import Box, GroupMean, reasons_of

_WIDTH = 0.8


def draw_bars(
    axes: Any,
    bars: Sequence[Mapping[str, GroupMean]],
    points: Sequence[Mapping[str, float]],
    *,
    errors: bool = True,
) -> None:
    """Draw groups of bars side by side, their standard deviations and each model's marker.

    Args:
        bars: at each place, group -> mean over its models.
        points: at each place, model -> number.
        errors: whether to draw bars of one standard deviation.
    """
    groups = list(bars[0])
    width = _WIDTH / len(groups)
    for place, (means, numbers) in enumerate(zip(bars, points, strict=True)):
        for index, group in enumerate(groups):
            across = place + (index - (len(groups) - 1) / 2) * width
            _bar(axes, across, means[group], group, width, errors)
            models = means[group].models
            spots = _spread(across, width, len(models))
            draw_points(axes, spots, [numbers[model] for model in models], models, 30)


def _bar(axes: Any, across: float, mean: GroupMean, group: str, width: float, errors: bool) -> None:
    if math.isnan(mean.mean):
        axes.annotate(
            "none", (across, 0), (0, 3), textcoords="offset points", ha="center", fontsize=6, color="#333333"
        )
        return
    axes.bar([across], [mean.mean], width * 0.94, color=pale(COLOURS[group]), zorder=2)
    axes.plot(
        [across - width * 0.47, across + width * 0.47],
        [mean.mean] * 2,
        color=COLOURS[group],
        linewidth=1.6,
        zorder=3,
    )
    if errors and not math.isnan(mean.sd):
        axes.errorbar(
            [across],
            [mean.mean],
            yerr=[mean.sd],
            fmt="none",
            ecolor="#222222",
            elinewidth=1,
            capsize=3,
            zorder=3,
        )


def _spread(across: float, width: float, n: int) -> list[float]:
    """Return places of n markers within a bar, from left to right."""
    step = width * 0.7 / max(n, 1)
    return [across + (index - (n - 1) / 2) * step for index in range(n)]


def task_ticks(axes: Any, experiments: Sequence[Experiment]) -> None:
    """Write data set and protocol below each place."""
    labels = [f"{dataset_label(e.dataset)}\n{PROTOCOL_LABELS[e.protocol]}" for e in experiments]
    axes.set_xticks(range(len(experiments)), [literal(label) for label in labels])
    axes.set_xlim(-0.6, len(experiments) - 0.4)
    finish(axes, grid="y")
    axes.tick_params(axis="x", labelsize=7.5, length=0)


def separate(axes: Any, before: int, names: tuple[str, str]) -> None:
    """Draw a dotted line in front of a place, and write what is on its sides."""
    axes.axvline(before - 0.5, color="#444444", linewidth=1, linestyle=":")
    for name, place, side in ((names[0], before - 0.58, "right"), (names[1], before - 0.42, "left")):
        axes.annotate(
            name,
            (place, 1),
            (0, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha=side,
            va="top",
            fontsize=7.5,
            style="italic",
            color="#333333",
        )


def draw_box(axes: Any, across: float, box: Box, colour: str, width: float = 0.6) -> None:
    """Draw a box with whiskers to the extremes."""
    five = box.numbers
    if five.reason:
        return
    parts = {"color": colour, "linewidth": 1.2}
    axes.bxp(
        [
            {
                "med": five.median,
                "q1": five.q1,
                "q3": five.q3,
                "whislo": five.low,
                "whishi": five.high,
                "fliers": [],
            }
        ],
        positions=[across],
        widths=width,
        patch_artist=True,
        boxprops={"facecolor": pale(colour), "edgecolor": colour, "linewidth": 1.2},
        medianprops={"color": colour, "linewidth": 2.2},
        whiskerprops=parts,
        capprops=parts,
        manage_ticks=False,
        zorder=2,
    )


def means_table(
    identity: str,
    caption: str,
    rows: Sequence[tuple[str, str, GroupMean]],
    over: str = "models",
) -> DataTable:
    """Return a row for each place and group: mean, sd, n, who entered and who did not.

    Args:
        rows: place, group, mean.
        over: what n counts.
    """
    columns = (
        Column("shown"),
        Column("group"),
        Column("mean", numeric=True),
        Column("sd", numeric=True, hint="standard deviation over models, divisor n - 1"),
        Column("n", numeric=True, hint=over),
        Column(over),
        Column("left out"),
    )
    return DataTable(
        identity,
        caption,
        columns,
        tuple(
            (
                Value(place),
                Value(group),
                _number(mean.mean, mean.reason),
                _number(mean.sd, mean.reason),
                Value(str(mean.n), mean.n),
                Value(", ".join(mean.models) or "–"),
                Value(reasons_of(mean.left_out) or "–"),
            )
            for place, group, mean in rows
        ),
    )


def boxes_table(identity: str, caption: str, boxes: Mapping[str, Box]) -> DataTable:
    """Return a row for each box: extremes, quartiles, n and what is left out."""
    columns = (
        Column("box"),
        *(
            Column(name, numeric=True)
            for name in ("smallest", "quartile 1", "median", "quartile 3", "largest", "n")
        ),
        Column("left out"),
    )
    return DataTable(
        identity,
        caption,
        columns,
        tuple(
            (
                Value(name),
                *(
                    _number(number, one.numbers.reason)
                    for number in (
                        one.numbers.low,
                        one.numbers.q1,
                        one.numbers.median,
                        one.numbers.q3,
                        one.numbers.high,
                    )
                ),
                Value(str(one.n), one.n),
                Value(reasons_of(one.left_out) or "–"),
            )
            for name, one in boxes.items()
        ),
    )


def points_table(identity: str, caption: str, rows: Sequence[tuple[str, str, float]], what: str) -> DataTable:
    """Return a row for each point: place, model, number.

    Args:
        what: the number is, e.g. `scaled accuracy`.
    """
    columns = (Column("shown"), Column("model"), Column(what, numeric=True))
    return DataTable(
        identity,
        caption,
        columns,
        tuple((Value(place), Value(model), _number(number, "")) for place, model, number in rows),
    )


def _number(number: float, reason: str) -> Value:
    return Value("–", reason=reason) if math.isnan(number) else Value(f"{number:.3f}", number)
