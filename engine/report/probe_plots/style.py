"""Colours, line styles and axes that the pictures of probes share."""

from collections.abc import Sequence
from typing import Any

from stores.manifest.uri_policy import plain

#: Colours of Okabe and Ito, which people with any colour vision tell apart; darkest first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
#: Line styles tell curves apart where colours are printed in grey.
STYLES = ("-", "--", "-.", ":")
GREY, GRID = "#6B6B6B", "#DDDDDD"
#: Panels side by side.
_ACROSS = 3


def literal(text: str) -> str:
    """Return text that Matplotlib draws literally: a dollar would begin a formula."""
    return "\n".join(plain(line).replace("$", r"\$") for line in text.split("\n"))


def panels(count: int, width: float, height: float, below: float = 0.5) -> tuple[Any, list[Any]]:
    """Return a figure and the axes of its panels, at most three side by side.

    Args:
        width, height: of a panel, inches.
        below: inches for a legend below all.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    across = min(count, _ACROSS)
    down = -(-count // across)
    figure = plt.figure(figsize=(width * across, height * down + below), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, axes[:count]


def square(axes: Any, across: str, up: str, title: str) -> None:
    """Set up axes from 0 to 1 with a grid behind."""
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel(across, fontsize=8)
    axes.set_ylabel(up, fontsize=8)
    tidy(axes, title)
    axes.grid(color=GRID, linewidth=0.6)


def tidy(axes: Any, title: str) -> None:
    """Set the title, small tick labels, and no frame at the top and the right."""
    axes.set_title(literal(title), fontsize=9, loc="left")
    axes.tick_params(labelsize=7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Any, handles: Sequence[Any], columns: int = 3) -> None:
    """Draw a legend below all panels."""
    figure.legend(handles=handles, fontsize=7, frameon=False, ncols=columns, loc="outside lower center")
