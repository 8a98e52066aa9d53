"""Pictures of invariances: a contact sheet of views with their cosines, and curves over the parameters."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import Refused
from engine.evals.invariance import Invariance
from engine.kernels.clusters import clustered
from engine.kernels.transforms import find
from engine.report.drawing import save_figure, save_picture
from stores.paths import plain

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, MARGIN, LINE = 144, 10, 15
_PAPER, _INK, _SOFT = "#ffffff", "#222222", "#6a6a6a"
#: Level of a tile whose image cannot be read.
_GREY = 200
#: Views beside each image, and images of a transform that has the sheet to itself.
VIEWS, IMAGES = 8, 5


def views_sheet(results: Sequence[Invariance], out: Path) -> int:
    """Draw images and some of their views with parameters and cosines; a row an image or a transform.

    With one transform up to `IMAGES` images, evenly spaced from the least to the most alike; with several,
    the image of the median cosine of each.

    Returns:
        How many rows were drawn.

    Raises:
        Refused: no transform has a scored image.
    """
    from PIL import Image

    strips = []
    for result in results:
        if len(result.rows):
            mean = np.nan_to_num(result.cosine.mean(axis=1), nan=-2.0)
            order = np.argsort(mean, kind="stable")
            wanted = min(IMAGES if len(results) == 1 else 1, len(order))
            at = np.linspace(0, len(order) - 1, wanted) if wanted > 1 else np.array([len(order) // 2])
            strips += _strips(result, order[at.round().astype(int)])
    if not strips:
        raise Refused("No image was scored", "A sheet shows scored images", "choose another --transform")
    width = max(strip.width for strip in strips)
    sheet = Image.new("RGB", (width, sum(s.height for s in strips) + MARGIN), _PAPER)
    top = MARGIN
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    save_picture(sheet, out, "invariance")
    return len(strips)


def _strips(result: Invariance, chosen: Any) -> "list[Image]":
    """One strip for each chosen position among the result's rows."""
    count = result.views.count
    views = np.unique(np.linspace(0, count - 1, min(VIEWS, count)).round().astype(int)).tolist()
    rows = [int(result.rows[i]) for i in chosen]
    pixels = result.pictures(rows, views)
    return [_strip(result, int(i), views, each) for i, each in zip(chosen, pixels, strict=True)]


def _strip(result: Invariance, position: int, views: list[int], pixels: Any) -> "Image":
    from PIL import Image, ImageDraw, ImageFont

    width, height = SIDE + MARGIN, SIDE + 2 * LINE + MARGIN
    drawn = Image.new("RGB", ((VIEWS + 1) * width + MARGIN, height), _PAPER)
    draw, font = ImageDraw.Draw(drawn), ImageFont.load_default(12)
    row = int(result.rows[position])
    captions = [(result.report["transform"], f"row {row}, mean {result.cosine[position].mean():.3f}")]
    captions += [(_caption(result, v), f"cosine {result.cosine[position, v]:.3f}") for v in views]
    if isinstance(pixels, str):  # its features are kept, but the file is gone
        captions = [(captions[0][0], f"no picture: {pixels}"), *captions[1:]]
        pixels = np.full((len(captions), SIDE, SIDE, 3), _GREY, np.uint8)
    for i, (picture, (first, second)) in enumerate(zip(pixels, captions, strict=True)):
        left = MARGIN + i * width
        tile = Image.fromarray(np.ascontiguousarray(picture)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        drawn.paste(tile, (left, 0))
        draw.text((left, SIDE + 2), first, fill=_INK, font=font)
        draw.text((left, SIDE + 2 + LINE), second, fill=_SOFT if i else _INK, font=font)
    return drawn


def _caption(result: Invariance, view: int) -> str:
    names, values = find(result.views.transform).parameters, result.views.parameters[view]
    if len(result.views.parameters) <= 2:  # done, or left as it is
        return names[0] if values[0] else "as it is"
    return ", ".join(f"{value:.3g}" for value in values)


def invariance_figure(results: Sequence[Invariance], out: Path) -> Path:
    """Bars of all transforms beside the baseline, and the cosine along each transform's single parameter.

    Bands and bars are 95 % intervals over patients or images; dotted is the mean cosine of different images.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    scored = [result for result in results if len(result.rows)]
    curves = [r for r in scored if len(r.views.parameters[0]) == 1 and r.views.count > 2]
    columns, lines = 3, -(-len(curves) // 3)
    heights = [1.2 + 0.32 * len(scored), 2.6 * lines]
    figure = plt.figure(figsize=(11, sum(heights)), layout="constrained")
    shown = 2 if curves else 1
    parts: Any = figure.subfigures(shown, 1, squeeze=False, height_ratios=heights[:shown])
    _bars(parts[0][0].subplots(), scored)
    if curves:
        grid = list(parts[1][0].subplots(lines, columns, squeeze=False).flat)
        for axes, result in zip(grid, curves, strict=False):
            _curve(axes, result)
        for axes in grid[len(curves) :]:
            axes.set_axis_off()
    save_figure(figure, out, "invariance", dpi=110)
    plt.close(figure)
    return out


def _curve(axes: Any, result: Invariance) -> None:
    each = [
        clustered(column[np.isfinite(column)], result.groups[np.isfinite(column)])
        for column in result.cosine.T
    ]
    x = [p[0] for p in result.views.parameters]
    mean, half = np.array([e.mean for e in each]), np.array([e.ci95 for e in each])
    axes.plot(x, mean, color="#1f4e9c", linewidth=1.2)
    axes.fill_between(x, mean - half, mean + half, color="#1f4e9c", alpha=0.2, linewidth=0)
    axes.axhline(result.report["baseline"], color="black", linestyle=":", linewidth=1)
    axes.set_title(f"{result.report['transform']} ({find(result.views.transform).parameters[0]})", fontsize=9)
    axes.set_ylim(-0.15, 1.05)
    axes.tick_params(labelsize=8)


def _bars(axes: Any, scored: Sequence[Invariance]) -> None:
    place = np.arange(len(scored))[::-1]
    means = [r.report["cosine"] for r in scored]
    axes.barh(place, means, xerr=[r.report["ci95"] for r in scored], color="#4a7ab5", height=0.6)
    for y, result in zip(place, scored, strict=True):
        axes.plot([result.report["baseline"]] * 2, [y - 0.4, y + 0.4], color="black", linestyle=":")
    names = [r.report["transform"] for r in scored]
    axes.set_yticks(place, names, fontsize=9)
    axes.set_xlabel("mean cosine of whitened deviations (dotted: different images)", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if scored:
        # A dollar would begin a formula.
        model = plain(scored[0].report["model"]).replace("$", r"\$")
        axes.set_title(f"{model}, {scored[0].report['mode']}", fontsize=10)
