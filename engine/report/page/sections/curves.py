"""ROC and precision-recall curves of probes, from the predictions beside their records."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.kernels.intervals.curve_bands import Curve, precision_recall_curve, roc_curve
from engine.kernels.metrics import auroc, average_precision
from engine.kernels.operating_points import one_sided
from engine.report.page.answers import Answers, answers_of
from engine.report.page.blocks import Block, Chart, Column, DataTable, Paragraph, Section, Value
from engine.report.page.cells import count_cell, number_cell
from engine.report.page.fit_charts import folded
from engine.report.page.groups import Group, first_seeds, groups_of, looks_for
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.room import fitting, panels_each
from engine.report.page.svg.curves import Dimension, Panel, Series, draw, stepped
from engine.report.page.svg.element import Markup, panels
from engine.report.page.svg.looks import Look
from engine.report.page.svg.thin import thinned

#: Curves of a panel, and classes of a chart, at most.
_CURVES, _CLASSES = 8, 4
#: Share of the page for drawings and for tables, and bytes of both drawings of a class.
_DRAWN, _TABLED, _SIZE = 0.07, 0.03, 8000
_FOLDS = (
    "Cross-validated: each image is scored once, by the probe of a fold that did not learn from it; of "
    "several repeats the first is drawn. Scores of different probes are ranked together."
)
_TICKS = ((0.0, "0"), (0.2, "0.2"), (0.4, "0.4"), (0.6, "0.6"), (0.8, "0.8"), (1.0, "1"))
#: Width of a panel and side of its plot in units, and how far a left-out corner may be from the line.
_WIDTH, _SIDE, _TOLERANCE = 260.0, 210.0, 0.3


@dataclass(frozen=True, eq=False)
class _Areas:
    """The areas of one model for one class: NaN with a reason where there is no curve."""

    answers: Answers
    auroc: float
    average_precision: float
    reason: str

    @classmethod
    def of(cls, answers: Answers) -> "_Areas":
        """Compute the areas from all scores."""
        if reason := one_sided(answers.positive):
            return cls(answers, math.nan, math.nan, reason)
        scores = np.stack([-answers.score, answers.score], axis=1)
        area, _ = auroc(answers.positive.astype(np.int64), scores)
        return cls(answers, float(area), float(average_precision(answers.positive, answers.score)), "")


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section, or none without probes."""
    groups, seeds = first_seeds(groups_of(page, "probe"))
    blocks: list[Block] = []
    notes: list[str] = []
    for place, group in enumerate(groups, 1):
        classes, missing = answers_of(group)
        notes += missing
        if classes:
            most = min(_CLASSES, panels_each(options, _DRAWN, len(groups), _SIZE) - 1)
            chart = _chart(page, group, classes, f"curves-{place}", most)
            assert chart.table is not None
            blocks.append(replace(chart, table=fitting(chart.table, options, _TABLED, len(groups))))
    if not blocks and not notes:
        return ()
    lead = Paragraph(
        "Sensitivity against the false positive rate (ROC), and precision against recall, of each class "
        "against the rest. The areas are of all scores; drawn lines leave out corners that could not be seen."
    )
    charts = folded(blocks, "curves-all", "ROC and precision-recall curves", 2)
    said = [Paragraph(note) for note in (*notes, *([seeds] if seeds else []))]
    return (Section("curves", "ROC and precision-recall", (lead, *charts, *said)),)


def _chart(
    page: PageInput, group: Group, classes: dict[str, list[Answers]], identity: str, most: int
) -> Chart:
    areas = {name: [_Areas.of(answers) for answers in own] for name, own in classes.items()}
    names = sorted(areas, key=lambda name: -max(int(one.answers.positive.sum()) for one in areas[name]))
    shown = [name for name in areas if name in set(names[:most])]
    drawings: list[Markup] = []
    for place, name in enumerate(shown, 1):
        drawings += _pair(page, areas[name], name, f"plot-{identity}-{place}")
    notes = []
    if group.members[0].record.asked.get("cross_validation"):
        notes.append(_FOLDS)
    if len(shown) < len(areas):
        notes.append(f"The {len(shown)} classes with most positive images are drawn; the table has all.")
    if any(len(own) > _CURVES for own in areas.values()):
        notes.append(f"The {_CURVES} largest areas of each class are drawn; the table has all.")
    return Chart(
        identity,
        f"{group.title}: ROC and precision-recall curves on the test images",
        panels(drawings, "medium"),
        _alt(areas, shown),
        _table(group, areas, identity),
        tuple(notes),
    )


def _alt(areas: dict[str, list[_Areas]], shown: Sequence[str]) -> str:
    sentences = [f"ROC and precision-recall curves of {len(shown)} classes."]
    for name in shown:
        defined = [one for one in areas[name] if math.isfinite(one.auroc)]
        if defined:
            best = max(defined, key=lambda one: one.auroc)
            sentences.append(f"{name}: the largest AUROC is {best.auroc:.3f} of {best.answers.model}.")
    return " ".join(sentences)


def _pair(page: PageInput, own: Sequence[_Areas], name: str, identity: str) -> list[Markup]:
    """Return both curves of one class."""
    ranked = sorted(own, key=lambda one: -one.auroc if math.isfinite(one.auroc) else math.inf)
    best = [one.answers.model for one in ranked[:_CURVES]]
    drawn = [one for one in own if one.answers.model in best]
    looks = looks_for(page, [one.answers.model for one in drawn], best)
    positive, images = (
        "/".join(sorted({f"{count:,}" for count in counts}))
        for counts in (
            [int(one.answers.positive.sum()) for one in own],
            [len(one.answers.positive) for one in own],
        )
    )
    note = f"{positive} of {images} images are positive"
    roc = [_roc(one, looks[one.answers.model]) for one in drawn]
    precision = [_precision_recall(one, looks[one.answers.model]) for one in drawn]
    share = np.mean([one.answers.positive.mean() for one in own])
    level = (0.0, float(share), 1.0, float(share))
    return [
        draw(_panel(identity, f"{name}: ROC", note, roc, (0.0, 0.0, 1.0, 1.0))),
        draw(_panel(identity, f"{name}: precision-recall", note, precision, level)),
    ]


def _panel(
    identity: str,
    heading: str,
    note: str,
    series: Sequence[Series],
    guide: tuple[float, float, float, float],
) -> Panel:
    roc = heading.endswith("ROC")
    across, up = ("false positive rate", "sensitivity") if roc else ("recall (sensitivity)", "precision")
    return Panel(
        f"{identity}-{'roc' if roc else 'pr'}",
        heading,
        f"{heading} curves of {len(series)} models; {note}.",
        tuple(series),
        Dimension(across, also=(0.0, 1.0), fixed=True, ticks=_TICKS),
        Dimension(up, also=(0.0, 1.0), fixed=True, ticks=_TICKS),
        width=_WIDTH,
        height=_SIDE,
        note=note,
        guides=(guide,),
        beside=False,
    )


def _roc(one: _Areas, look: Look) -> Series:
    curve = roc_curve(one.answers.positive, one.answers.score, _alone(one.answers), 0)
    name = f"{one.answers.model}  {_area(one.auroc)}"
    return Series(name, *_thin(list(zip(curve.x.tolist(), curve.y.tolist(), strict=True))), look=look)


def _precision_recall(one: _Areas, look: Look) -> Series:
    curve = precision_recall_curve(one.answers.positive, one.answers.score, _alone(one.answers), 0)
    corners = stepped([*_start(curve), *zip(curve.x.tolist(), curve.y.tolist(), strict=True)], "pre")
    return Series(f"{one.answers.model}  {_area(one.average_precision)}", *_thin(corners), look=look)


def _alone(answers: Answers) -> NDArray[np.int64]:
    """Return no groups: curves without bands need none."""
    return np.full(len(answers.score), -1, np.int64)


def _start(curve: Curve) -> list[tuple[float, float]]:
    """Return the beginning of the first step, at recall 0."""
    return [(0.0, float(curve.y[0]))] if len(curve.y) else []


def _thin(corners: list[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    places = [(x * _SIDE, y * _SIDE) for x, y in corners]
    thin = [(x / _SIDE, y / _SIDE) for x, y in thinned(places, _TOLERANCE)]
    return tuple(x for x, _ in thin), tuple(y for _, y in thin)


def _area(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "undefined"


def _table(group: Group, areas: dict[str, list[_Areas]], identity: str) -> DataTable:
    columns = (
        Column("model"),
        Column("class or finding"),
        Column("positive", True, "Test images of this class"),
        Column("images", True, "Test images"),
        Column("AUROC", True, "Area under the ROC curve, of all scores"),
        Column("average precision", True, "Area under the steps of the precision-recall curve"),
    )
    rows = tuple(
        (
            Value(one.answers.model),
            Value(name),
            count_cell(float(one.answers.positive.sum())),
            count_cell(float(len(one.answers.positive))),
            number_cell(one.auroc, reason=one.reason),
            number_cell(one.average_precision, reason=one.reason),
        )
        for name, own in areas.items()
        for one in own
    )
    caption = f"{group.title}: areas under the curves of each class against the rest, on the test images."
    return DataTable(f"table-{identity}", caption, columns, rows)
