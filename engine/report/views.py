"""Pictures of invariances: a contact sheet of views with their cosines, and curves over the parameters."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import Refused
from engine.evals.invariance.result import Invariance
from engine.kernels.cluster_robust import clustered
from engine.kernels.transforms import find
from engine.report import lettering
from engine.report.drawing import save_figure, save_picture
from stores.manifest.uri_policy import plain

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, MARGIN, LINE = 144, 10, 15
_PAPER, _INK, _SOFT = "#ffffff", "#222222", "#6a6a6a"
#: Level of a tile whose image cannot be read.
_GREY = 200
#: Views beside each image, and images of a transform that has the sheet to itself.
VIEWS, IMAGES = 8, 5
#: What a transform's parameter is on an axis, with its unit.
LABELS = {
    "degrees": "rotation, degrees counter-clockwise",
    "factor": "factor (1: unchanged)",
    "turns": "hue, turns of the colour circle",
    "sigma_px": "standard deviation of the blur, pixels",
    "bits": "bits a channel",
}


def views_sheet(results: Sequence[Invariance], out: Path) -> int:
    """Draw images and some of their views with parameters and cosines; a row an image or a transform.

    With one transform up to `IMAGES` images, evenly spaced from the least to the most alike; with several,
    the image of the median cosine of each.

    Returns:
        How many rows were drawn.

    Raises:
        Refused: no transform has a scored image.
    """
    from PIL import Image, ImageDraw

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
    setting = results[0].setting
    head = lettering.lines_of(
        lettering.measure(),
        [
            f"Views of images of {setting.bank}, by {setting.model}",
            "Under each view: its parameter, and the cosine of the whitened features before and after; "
            "1 is perfectly invariant",
            *(f"{r.transform}: {_undefined(r)}" for r in results if _undefined(r)),
        ],
        width - 2 * MARGIN,
    )
    top = MARGIN + lettering.LINE * len(head) + MARGIN // 2
    sheet = Image.new("RGB", (width, top + sum(s.height for s in strips) + MARGIN), _PAPER)
    lettering.write(ImageDraw.Draw(sheet), MARGIN, MARGIN - 2, head, _INK)
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
    return [_strip(result, int(i), views, tiles) for i, tiles in zip(chosen, pixels, strict=True)]


def _strip(result: Invariance, position: int, views: list[int], pixels: Any) -> "Image":
    from PIL import Image, ImageDraw, ImageFont

    width, height = SIDE + MARGIN, SIDE + 2 * LINE + MARGIN
    drawn = Image.new("RGB", ((VIEWS + 1) * width + MARGIN, height), _PAPER)
    draw, font = ImageDraw.Draw(drawn), ImageFont.load_default(12)
    row = int(result.rows[position])
    captions = [(result.transform, f"row {row}, mean {result.cosine[position].mean():.3f}")]
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
    if len(values) == 1:
        return f"{names[0]} {values[0]:.3g}"
    return ", ".join(f"{value:.3g}" for value in values)


def invariance_figure(results: Sequence[Invariance], out: Path) -> Path:
    """Bars of all transforms beside the baseline, and the cosine along each transform's single parameter.

    Bands and bars are 95 % intervals over patients or images; dotted is the mean cosine of different images.
    A transform that rests on too few images is drawn as undefined, without a number.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = draw_invariances(results)
    save_figure(figure, out, "invariance", dpi=110)
    plt.close(figure)
    return out


def draw_invariances(results: Sequence[Invariance]) -> Any:
    """The matplotlib figure of `invariance_figure`, at least one result."""
    import matplotlib.pyplot as plt

    curves = [r for r in results if len(r.views.parameters[0]) == 1 and r.views.count > 2]
    columns, lines = 3, -(-len(curves) // 3)
    heights = [1.5 + 0.32 * len(results), 2.9 * lines]
    figure = plt.figure(figsize=(11, 0.5 + sum(heights)), layout="constrained")
    figure.suptitle(_title(results), fontsize=10)
    shown = 2 if curves else 1
    parts: Any = figure.subfigures(shown, 1, squeeze=False, height_ratios=heights[:shown])
    _bars(parts[0][0].subplots(), results)
    if curves:
        grid = list(parts[1][0].subplots(lines, columns, squeeze=False).flat)
        for at, (axes, result) in enumerate(zip(grid, curves, strict=False), start=1):
            _curve(axes, result, at)
        for axes in grid[len(curves) :]:
            axes.set_axis_off()
    return figure


def _title(results: Sequence[Invariance]) -> str:
    """Whose invariance it is, on what, and how the covariance came about."""
    setting = results[0].setting
    statistics = setting.statistics
    as_published = ", as the study's code" if setting.options.published else ""
    lines = (
        f"Invariance of {setting.model} on {setting.bank}{as_published}",
        f"whitened by the covariance of {statistics.whitener.count:,} images ({statistics.how})",
    )
    return "\n".join(_literal(line) for line in lines)


def _literal(text: str) -> str:
    """Text that Matplotlib draws as it is: a dollar would begin a formula."""
    return plain(text).replace("$", r"\$")


def _undefined(result: Invariance) -> str:
    """Why a transform has no number, in few words; empty if it has one."""
    if not result.reason:
        return ""
    if not len(result.rows):
        return "undefined: all images are grey"
    n = result.summary.n
    return f"undefined: rests on {n} image{'' if n == 1 else 's'}"


def _curve(axes: Any, result: Invariance, at: int) -> None:
    name = find(result.views.transform).parameters[0]
    axes.set_title(f"({chr(97 + at)}) {result.transform}", fontsize=9, loc="left")
    axes.set_xlabel(LABELS.get(name, name), fontsize=8)
    axes.set_ylabel("mean cosine", fontsize=8)
    axes.set_ylim(-0.15, 1.05)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    x = [p[0] for p in result.views.parameters]
    if why := _undefined(result):
        axes.set_xlim(min(x), max(x))
        axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", fontsize=8, color=_SOFT)
        return
    intervals = [
        clustered(column[np.isfinite(column)], result.groups[np.isfinite(column)])
        for column in result.cosine.T
    ]
    mean, half = np.array([i.mean for i in intervals]), np.array([i.ci95 for i in intervals])
    axes.plot(x, mean, color="#1f4e9c", linewidth=1.2)
    axes.fill_between(x, mean - half, mean + half, color="#1f4e9c", alpha=0.2, linewidth=0)
    axes.axhline(result.summary.baseline.mean, color="black", linestyle=":", linewidth=1)


def _bars(axes: Any, results: Sequence[Invariance]) -> None:
    place = np.arange(len(results))[::-1]
    for y, result in zip(place, results, strict=True):
        summary = result.summary
        if why := _undefined(result):
            axes.text(0.01, y, why, va="center", fontsize=8, color=_SOFT)
            continue
        axes.barh(y, summary.cosine, xerr=summary.ci95, color="#4a7ab5", height=0.6)
        axes.plot([summary.baseline.mean] * 2, [y - 0.4, y + 0.4], color="black", linestyle=":")
    names = [f"{r.transform} (n = {r.summary.n:,})" for r in results]
    axes.set_yticks(place, names, fontsize=9)
    axes.set_ylim(-0.7, len(results) - 0.3)
    axes.set_xlim(min([0.0, *(r.summary.cosine - 0.05 for r in results if not _undefined(r))]), 1.05)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel(
        "mean cosine of whitened features before and after (bars: 95 % interval; dotted: different images)",
        fontsize=9,
    )
    axes.set_title("(a) all transforms, mean over images and views; n: images", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
