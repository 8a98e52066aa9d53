"""How figures of the paper look: colours and markers of models, captions, axes."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.paper.names import MIMIC_CHEXPERT, MOCO_CXR, SSL, SUPERVISED, group_of, model_label
from engine.report.probe_plots.style import COLOURS as OKABE
from engine.report.probe_plots.style import GREY, GRID, literal

#: One hue a group, which people with any colour vision tell apart; within a group from dark to light.
COLOURS = {
    "SSL": "#0072B2",
    "Supervised": "#D55E00",
    "MIMIC-CheXpert": "#009E73",
    "MoCo-CXR": "#AA4499",
    "": GREY,
}
_SHADES = {
    **dict(zip(SSL, ("#08306B", "#0B55A5", "#2E86C8", "#55A9DF", "#86C3EA"), strict=True)),
    **dict(zip(SUPERVISED, ("#8A3500", "#D55E00", "#F6A04D"), strict=True)),
    **dict(zip(MIMIC_CHEXPERT, ("#00503A", "#009E73", "#6CCBAE"), strict=True)),
    **dict(zip(MOCO_CXR, ("#6E2163", "#C77DBA"), strict=True)),
}
#: The authors' markers: a plus for self-supervised and domain-specific models, a hexagon for supervised ones.
_MARKERS = {"SSL": "P", "Supervised": "h", "MIMIC-CheXpert": "P", "MoCo-CXR": "P", "": "o"}
#: What stands beside a point.
_CODES = {
    "simclr-v1": "Sim",
    "moco-v2": "MoCo",
    "swav": "SwAV",
    "byol": "BYOL",
    "pirl": "PIRL",
    "supervised-r50": "r50",
    "supervised-r18": "r18",
    "supervised-d121": "d121",
    "mimic-chexpert-lr0.01": "M.01",
    "mimic-chexpert-lr0.1": "M.1",
    "mimic-chexpert-lr1.0": "M1",
    "moco-cxr-r18": "C-r18",
    "moco-cxr-d121": "C-d121",
}
_DPI = 150
#: Characters of a caption that fit into an inch.
_PER_INCH = 17.5
_CAPTION = 7.5


def colour(model: str) -> str:
    """Return the colour of a model."""
    return _SHADES.get(model, COLOURS[""])


def marker(model: str) -> str:
    """Return the marker of a model."""
    return _MARKERS[group_of(model)]


def code(model: str) -> str:
    """Return a short name that stands beside a point; the first letters of models that the paper has not."""
    return _CODES.get(model, model.rpartition("/")[2][:8])


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure, inches."""
    import matplotlib.pyplot as plt

    return plt.figure(figsize=(width, height), layout="constrained")


def caption(figure: Any, text: str) -> None:
    """Write a caption below everything, broken to the figure's width."""
    width = int(figure.get_figwidth() * _PER_INCH)
    lines = textwrap.wrap(literal(" ".join(text.split())), width)
    figure.supxlabel("\n".join(lines), x=0.008, ha="left", fontsize=_CAPTION, color="#333333")


def finish(axes: Any, *, grid: str = "both") -> None:
    """Set small tick labels and a grid behind, without a frame at the top and the right."""
    axes.tick_params(labelsize=7.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=GRID, linewidth=0.6)


def model_handles(models: Sequence[str], *, codes: bool = False) -> list[Any]:
    """Return a legend's handles of models, with their markers.

    Args:
        codes: put what stands beside the points before the names.
    """
    from matplotlib.lines import Line2D

    return [
        Line2D(
            [],
            [],
            linestyle="",
            marker=marker(model),
            color=colour(model),
            markeredgecolor="white",
            markeredgewidth=0.4,
            markersize=7,
            label=literal(_entry(model) if codes else model_label(model)),
        )
        for model in models
    ]


def _entry(model: str) -> str:
    label = model_label(model)
    return label if code(model) in label else f"{label}: {code(model)}"


def draw_points(
    axes: Any, x: Sequence[float], y: Sequence[float], models: Sequence[str], size: float
) -> None:
    """Draw a marker of each model; size in square points."""
    for across, up, model in zip(x, y, models, strict=True):
        axes.scatter(
            [across],
            [up],
            s=size,
            marker=marker(model),
            color=colour(model),
            edgecolors="white",
            linewidths=0.5,
            zorder=4,
        )


def pale(colour: str) -> str:
    """Return a light tint of a colour `#RRGGBB`."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(255 - (255 - part) * 0.3):02X}" for part in (red, green, blue))


def legend_of_groups(figure: Any, groups: Iterable[str], models: Sequence[str]) -> None:
    """Draw a legend of bars and of the models' markers, at the right."""
    from matplotlib.patches import Patch

    bars = [
        Patch(facecolor=pale(COLOURS[group]), edgecolor=COLOURS[group], label=f"{group}, mean")
        for group in groups
    ]
    handles = [*bars, *model_handles(models)]
    figure.legend(handles=handles, fontsize=7.5, frameon=False, loc="outside right upper")


def legend_of_models(figure: Any, models: Sequence[str]) -> None:
    """Draw a legend of the models' markers, at the right."""
    figure.legend(handles=model_handles(models), fontsize=7.5, frameon=False, loc="outside right upper")


def jitter(axes: Any, places: Sequence[tuple[int, float]], index: int, label: str) -> None:
    """Draw a small marker of a data set at each place, beside those of the others.

    Args:
        places: x and y of each.
        index: of the data set, which gives marker, colour and offset.
    """
    shapes = "osD^v<>p*X"
    axes.scatter(
        [across + (index % 8 - 3.5) * 0.055 for across, _ in places],
        [up for _, up in places],
        s=24,
        marker=shapes[index % len(shapes)],
        color=(*OKABE, GREY)[index % (len(OKABE) + 1)],
        edgecolors="white",
        linewidths=0.5,
        zorder=4,
        label=literal(label),
    )


def save(draw: Any, out: Any, page: str) -> None:
    """Draw a figure without a display and write it; its metadata name the page."""
    from engine.report.drawing import draw_figure

    draw_figure(draw, out, f"paper {page}", _DPI)
