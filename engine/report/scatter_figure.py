"""The scatter plot of a bank: images in the plane, coloured by a column of the manifest."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.report.console import clipped, write
from engine.report.drawing import draw_figure
from engine.report.probe_plots.style import COLOURS, GREY, literal, tidy
from engine.report.record_values import number, numbers, text
from stores.json_types import Json

_MARKERS = "osD^vPX"
#: Distinct numbers from which a column of numbers is drawn with a colour bar.
_SCALE = 12
_NAME = 28
#: Smallest and largest area of a point, square points.
_SIZES = (4, 26)


def scatter_figure(
    coordinates: NDArray[np.float64], cells: Sequence[str], report: Mapping[str, Json], out: Path
) -> Path:
    """Draw images in the plane.

    Args:
        coordinates: [n, 2].
        cells: n texts of the column that colours them, "" where missing; empty without a column.
        report: `{model, method, column, images, of, explained}`.
        out: PNG, SVG or PDF by its ending, written atomically; missing folders are made.

    Raises:
        Refused: the folder is not writable.
    """
    return draw_figure(lambda: draw_scatter(coordinates, cells, report), out, "bank scatter", dpi=150)


def draw_scatter(coordinates: NDArray[np.float64], cells: Sequence[str], report: Mapping[str, Json]) -> Any:
    """Return the matplotlib figure of `scatter_figure`."""
    import matplotlib.pyplot as plt

    across, up = np.ptp(coordinates, axis=0)
    height = 0.6 + 5.2 * float(np.clip(up / across if across else 1.0, 0.4, 1.1))
    figure = plt.figure(figsize=(7.0, height), layout="constrained")
    axes = figure.subplots()
    size = float(np.clip(4000 / len(coordinates), *_SIZES))
    scale = _numbers(cells)
    if scale is not None:
        _draw_scale(figure, axes, coordinates, scale, text(report.get("column")), size)
    else:
        _draw_groups(axes, coordinates, cells, size)
    if axes.get_legend_handles_labels()[0]:
        title = None if scale is not None else literal(clipped(text(report.get("column")), _NAME))
        legend: Any = figure.legend(
            title=title, fontsize=7, title_fontsize=7, frameon=False, loc="outside right upper"
        )
        for handle in legend.legend_handles:
            handle.set_sizes([_SIZES[1]])
    shares = numbers(report.get("explained"))
    for axis, place in ((axes.xaxis, 0), (axes.yaxis, 1)):
        name = f"PC {place + 1} ({shares[place]:.1%} of the variance)" if len(shares) else f"UMAP {place + 1}"
        axis.set_label_text(name, fontsize=8)
    axes.set_aspect("equal", adjustable="datalim")
    drawn, usable = number(report["images"]), number(report["of"])
    count = f"{drawn:,.0f} images" if drawn == usable else f"{drawn:,.0f} of {usable:,.0f} images"
    split = f", split {report['split']}" if report.get("split") else ""
    tidy(axes, f"{text(report.get('model'))}{split}: {count}")
    return figure


def _numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """Return the cells as numbers, NaN where missing, if they are many different numbers."""
    if len(set(cells)) < _SCALE:
        return None
    try:
        values = np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        return None
    return values if np.isfinite(values[[bool(cell) for cell in cells]]).all() else None


def _draw_scale(
    figure: Any,
    axes: Any,
    coordinates: NDArray[np.float64],
    values: NDArray[np.float64],
    name: str,
    size: float,
) -> None:
    missing = np.isnan(values)
    if missing.any():
        _points(axes, coordinates[missing], size, GREY, "x", f"missing ({missing.sum():,})")
    there = ~missing
    points = axes.scatter(
        *coordinates[there].T,
        c=values[there],
        s=size,
        cmap="viridis",
        linewidths=0,
        rasterized=len(values) > 2000,
    )
    bar = figure.colorbar(points, ax=axes, shrink=0.7)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(literal(clipped(name, _NAME)), fontsize=8)


def _draw_groups(axes: Any, coordinates: NDArray[np.float64], cells: Sequence[str], size: float) -> None:
    """Draw the most frequent values in colours of their own, the most frequent one below; the others grey."""
    if not cells:
        _points(axes, coordinates, size, COLOURS[0], "o", "")
        return
    frequent = [name for name, _ in Counter(cell for cell in cells if cell).most_common()]
    shown = frequent if len(frequent) <= len(COLOURS) else frequent[: len(COLOURS) - 1]
    texts = np.array(cells, object)
    for place, name in enumerate(shown):
        mine = texts == name
        label = f"{literal(clipped(name, _NAME))} ({mine.sum():,})"
        _points(axes, coordinates[mine], size, COLOURS[place], _MARKERS[place], label)
    rest = (texts != "") & ~np.isin(texts, shown)
    for marker, name, mine in (
        (".", f"{len(frequent) - len(shown):,} others", rest),
        ("x", "missing", texts == ""),
    ):
        if mine.any():
            _points(axes, coordinates[mine], size, GREY, marker, f"{name} ({mine.sum():,})")


def _points(
    axes: Any, coordinates: NDArray[np.float64], size: float, colour: str, marker: str, label: str
) -> None:
    """Draw points; of very many an SVG or PDF has pixels."""
    axes.scatter(
        *coordinates.T,
        s=size,
        c=colour,
        marker=marker,
        linewidths=0.7 if marker == "x" else 0,
        alpha=0.75,
        zorder=1 if colour == GREY else 2,
        label=f" {label}" if label.startswith("_") else label,  # Matplotlib hides those that begin so
        rasterized=len(coordinates) > 2000,
    )


def print_scatter(report: Mapping[str, Json], out: Path) -> None:
    """Print what was drawn."""
    drawn, usable = number(report["images"]), number(report["of"])
    drawn_of = f"{drawn:,.0f} images" if drawn == usable else f"{drawn:,.0f} of {usable:,.0f} images, drawn"
    write(f"{text(report['model'])}: {drawn_of}; {number(report['failed']):,.0f} without an embedding")
    if len(shares := numbers(report.get("explained"))):
        parts = " and ".join(f"{share:.1%}" for share in shares)
        write(f"Principal components 1 and 2 have {parts} of the variance.")
    write(f"{out}: scatter plot, {text(report['method']).upper()}")
