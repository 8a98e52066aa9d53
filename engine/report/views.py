"""Pictures of invariances: a contact sheet of views with their cosines, and a figure of all transforms."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import Refused
from engine.evals.invariance.result import Invariance
from engine.kernels.intervals.cluster_robust import mean_interval
from engine.kernels.transforms import find_transform
from engine.report import text_drawing
from engine.report.drawing import save_figure, save_picture
from stores.manifest.uri_policy import plain

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, MARGIN, LINE = 144, 10, 15
_PAPER, _INK, _SOFT = "#ffffff", "#222222", "#6a6a6a"
#: Level of a tile whose image cannot be read.
_GREY = 200
#: Number of views beside each image, and of images if the sheet has a single transform.
VIEWS, IMAGES = 8, 5
#: Parameter of a transform -> label of its axis, with the unit.
LABELS = {
    "degrees": "rotation, degrees counter-clockwise",
    "factor": "factor (1: unchanged)",
    "turns": "hue, turns of the colour circle",
    "sigma_px": "standard deviation of the blur, pixels",
    "bits": "bits a channel",
}


def views_sheet(results: Sequence[Invariance], out: Path) -> int:
    """Draw images and some of their views, with parameters and cosines.

    With one transform, there is a row for each of up to `IMAGES` images, evenly spaced in the order of their
    mean cosine; with several transforms, a row for each, with the image of the median cosine.

    Returns:
        The number of rows drawn.

    Raises:
        Refused: no transform has a scored image.
    """
    from PIL import Image, ImageDraw

    strips = []
    for result in results:
        if len(result.rows):
            mean = np.nan_to_num(result.cosine.mean(axis=1), nan=-2.0)
            order = np.argsort(mean, kind="stable")
            count = min(IMAGES if len(results) == 1 else 1, len(order))
            ranks = np.linspace(0, len(order) - 1, count) if count > 1 else np.array([len(order) // 2])
            strips += _strips(result, order[ranks.round().astype(int)])
    if not strips:
        raise Refused("No image was scored", "A sheet shows scored images", "choose another --transform")
    width = max(strip.width for strip in strips)
    setting = results[0].setting
    head = text_drawing.lines_of(
        text_drawing.measure(),
        [
            f"Views of images of {setting.bank}, by {setting.model}",
            "Under each view: its parameter, and the cosine of the whitened features before and after; "
            "1 is perfectly invariant",
            *(f"{r.transform}: {_undefined(r)}" for r in results if _undefined(r)),
        ],
        width - 2 * MARGIN,
    )
    top = MARGIN + text_drawing.LINE * len(head) + MARGIN // 2
    sheet = Image.new("RGB", (width, top + sum(s.height for s in strips) + MARGIN), _PAPER)
    text_drawing.write(ImageDraw.Draw(sheet), MARGIN, MARGIN - 2, head, _INK)
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    save_picture(sheet, out, "invariance")
    return len(strips)


def _strips(result: Invariance, positions: Any) -> "list[Image]":
    """Draw one strip for each of the given positions among the result's rows."""
    count = result.views.count
    views = np.unique(np.linspace(0, count - 1, min(VIEWS, count)).round().astype(int)).tolist()
    rows = [int(result.rows[position]) for position in positions]
    pictures = result.pictures(rows, views)
    return [
        _strip(result, int(position), views, pixels)
        for position, pixels in zip(positions, pictures, strict=True)
    ]


def _strip(result: Invariance, position: int, views: list[int], pixels: Any) -> "Image":
    from PIL import Image, ImageDraw, ImageFont

    width, height = SIDE + MARGIN, SIDE + 2 * LINE + MARGIN
    strip = Image.new("RGB", ((VIEWS + 1) * width + MARGIN, height), _PAPER)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(12)
    row = int(result.rows[position])
    captions = [(result.transform, f"row {row}, mean {result.cosine[position].mean():.3f}")]
    captions += [(_caption(result, view), f"cosine {result.cosine[position, view]:.3f}") for view in views]
    if isinstance(pixels, str):  # a reason: the features are kept, but the file cannot be read
        captions = [(captions[0][0], f"no picture: {pixels}"), *captions[1:]]
        pixels = np.full((len(captions), SIDE, SIDE, 3), _GREY, np.uint8)
    for i, (picture, (first, second)) in enumerate(zip(pixels, captions, strict=True)):
        left = MARGIN + i * width
        tile = Image.fromarray(np.ascontiguousarray(picture)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        strip.paste(tile, (left, 0))
        draw.text((left, SIDE + 2), first, fill=_INK, font=font)
        draw.text((left, SIDE + 2 + LINE), second, fill=_SOFT if i else _INK, font=font)
    return strip


def _caption(result: Invariance, view: int) -> str:
    names, values = find_transform(result.views.transform).parameters, result.views.parameters[view]
    if len(result.views.parameters) <= 2:  # the transform has no strength: it is applied or not
        return names[0] if values[0] else "as it is"
    if len(values) == 1:
        return f"{names[0]} {values[0]:.3g}"
    return ", ".join(f"{value:.3g}" for value in values)


def invariance_figure(results: Sequence[Invariance], out: Path) -> Path:
    """Draw bars of all transforms beside the baseline, and the cosine along each single parameter.

    Bands and error bars are 95 % intervals over patients or images; dotted lines are the mean cosine of
    different images. A transform with too few images is shown as undefined, without a number.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = draw_invariances(results)
    save_figure(figure, out, "invariance", dpi=110)
    plt.close(figure)
    return out


def draw_invariances(results: Sequence[Invariance]) -> Any:
    """Return the matplotlib figure of `invariance_figure`, of at least one result."""
    import matplotlib.pyplot as plt

    curves = [result for result in results if len(result.views.parameters[0]) == 1 and result.views.count > 2]
    columns, rows = 3, -(-len(curves) // 3)
    heights = [1.5 + 0.32 * len(results), 2.9 * rows]
    figure = plt.figure(figsize=(11, 0.5 + sum(heights)), layout="constrained")
    figure.suptitle(_title(results), fontsize=10)
    parts = 2 if curves else 1
    subfigures: Any = figure.subfigures(parts, 1, squeeze=False, height_ratios=heights[:parts])
    _bars(subfigures[0][0].subplots(), results)
    if curves:
        grid = list(subfigures[1][0].subplots(rows, columns, squeeze=False).flat)
        for number, (axes, result) in enumerate(zip(grid, curves, strict=False), start=1):
            _curve(axes, result, number)
        for axes in grid[len(curves) :]:
            axes.set_axis_off()
    return figure


def _title(results: Sequence[Invariance]) -> str:
    """Return the title: model, bank, mode, and the images of the covariance."""
    setting = results[0].setting
    statistics = setting.statistics
    as_published = ", as the study's code" if setting.options.published else ""
    lines = (
        f"Invariance of {setting.model} on {setting.bank}{as_published}",
        f"whitened by the covariance of {statistics.whitener.count:,} images ({statistics.how})",
    )
    return "\n".join(_literal(line) for line in lines)


def _literal(text: str) -> str:
    """Return text that Matplotlib draws literally: a dollar would begin a formula."""
    return plain(text).replace("$", r"\$")


def _undefined(result: Invariance) -> str:
    """Return why a transform has no number, in a few words; empty if it has one."""
    if not result.reason:
        return ""
    if not len(result.rows):
        return "undefined: all images are grey"
    n = result.summary.n
    return f"undefined: rests on {n} image{'' if n == 1 else 's'}"


def _curve(axes: Any, result: Invariance, number: int) -> None:
    name = find_transform(result.views.transform).parameters[0]
    axes.set_title(f"({chr(97 + number)}) {result.transform}", fontsize=9, loc="left")
    axes.set_xlabel(LABELS.get(name, name), fontsize=8)
    axes.set_ylabel("mean cosine", fontsize=8)
    axes.set_ylim(-0.15, 1.05)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    x = [parameters[0] for parameters in result.views.parameters]
    if reason := _undefined(result):
        axes.set_xlim(min(x), max(x))
        axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", fontsize=8, color=_SOFT)
        return
    estimates = [
        mean_interval(column[np.isfinite(column)], result.groups[np.isfinite(column)])
        for column in result.cosine.T
    ]
    mean = np.array([estimate.mean for estimate in estimates])
    half_width = np.array([estimate.ci95 for estimate in estimates])
    axes.plot(x, mean, color="#1f4e9c", linewidth=1.2)
    axes.fill_between(x, mean - half_width, mean + half_width, color="#1f4e9c", alpha=0.2, linewidth=0)
    axes.axhline(result.summary.baseline.mean, color="black", linestyle=":", linewidth=1)


def _bars(axes: Any, results: Sequence[Invariance]) -> None:
    positions = np.arange(len(results))[::-1]
    for y, result in zip(positions, results, strict=True):
        summary = result.summary
        if reason := _undefined(result):
            axes.text(0.01, y, reason, va="center", fontsize=8, color=_SOFT)
            continue
        axes.barh(y, summary.cosine, xerr=summary.ci95, color="#4a7ab5", height=0.6)
        axes.plot([summary.baseline.mean] * 2, [y - 0.4, y + 0.4], color="black", linestyle=":")
    names = [f"{r.transform} (n = {r.summary.n:,})" for r in results]
    axes.set_yticks(positions, names, fontsize=9)
    axes.set_ylim(-0.7, len(results) - 0.3)
    axes.set_xlim(min([0.0, *(r.summary.cosine - 0.05 for r in results if not _undefined(r))]), 1.05)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel(
        "mean cosine of whitened features before and after (bars: 95 % interval; dotted: different images)",
        fontsize=9,
    )
    axes.set_title("(a) all transforms, mean over images and views; n: images", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
