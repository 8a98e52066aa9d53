"""Label efficiency: low-shot curves of several models on the same draws of labelled images."""

import math
from collections.abc import Sequence
from dataclasses import replace

from engine.report.json_parts import members, objects
from engine.report.page.blocks import Chart, Column, DataTable, Paragraph, Section, Value
from engine.report.page.cells import score_cell
from engine.report.page.groups import Group, Member, groups_of, having, looks_for
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.room import fitting
from engine.report.page.svg.curves import Dimension, Panel, Series, draw
from engine.report.page.svg.element import panels
from engine.report.page.svg.looks import Look
from engine.report.record_values import at, number, numbers
from stores.json_types import JsonObject

#: Metric -> its name; a panel each.
METRICS = {"accuracy": "accuracy", "auroc": "AUROC"}
#: Factor from the largest number of images to the place of all images.
_ALL = 2.2
#: Share of the page for tables.
_TABLED = 0.02
_BANDS = "Bands: 95 % Student intervals over the draws."
_NO_BANDS = "Intervals over the draws are in the table."
#: Curves up to which bands are drawn.
_MOST_BANDS = 4
_REMEDY = "Run the probe with --low-shot COUNTS, e.g. 1,2,5,10"


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section, or none where no probe was trained on few images."""
    every = groups_of(page, "probe")
    drawn = [group for group in every if any(at(m.record.metrics, "low_shot.curve") for m in group.members)]
    if not drawn:
        return ()
    drawn, notes = having(drawn, "low_shot.curve", _REMEDY)
    charts = [_chart(page, group, place, drawn, options) for place, group in enumerate(drawn, 1)]
    lead = Paragraph(
        "How good a probe is when it learns from few labelled images of each class. A curve that is higher "
        "at the left needs fewer labels."
    )
    return (Section("label-efficiency", "Label efficiency", (lead, *charts, *map(Paragraph, notes))),)


def _chart(page: PageInput, group: Group, place: int, drawn: Sequence[Group], options: PageOptions) -> Chart:
    identity = f"label-efficiency-{place}"
    best = sorted(group.members, key=lambda member: -_last(member))
    looks = looks_for(page, [m.model for m in group.members], [m.model for m in best])
    drawings = [draw(_panel(group, metric, looks, f"plot-{identity}-{metric}", drawn)) for metric in METRICS]
    draws = sorted({number(at(m.record.metrics, "low_shot.seeds")) for m in group.members})
    over = "/".join(f"{count:g}" for count in draws)
    images = sorted({number(at(m.record.metrics, "images.test")) for m in group.members})
    tested = "/".join(f"{count:,.0f}" for count in images)
    notes = [
        f"Means over {over} draws of the labelled images, the same for all models, on {tested} test images. "
        f"Points at the right: trained on all images. {_BANDS if _banded(looks) else _NO_BANDS}"
    ]
    if muted := sum(look.place is None for look in looks.values()):
        notes.append(f"The {len(looks) - muted} best models have colours; {muted} others are grey.")
    title = f"{group.title}: test score against labelled images per class"
    table = fitting(_table(group, identity), options, _TABLED, len(drawn))
    return Chart(identity, title, panels(drawings), _alt(group), table, tuple(notes))


def _banded(looks: dict[str, Look]) -> bool:
    """Return whether bands are drawn; of many curves they would hide one another."""
    return len(looks) <= _MOST_BANDS


def _last(member: Member) -> float:
    means = [number(at(point, "accuracy.mean")) for point in _points(member)]
    value = means[-1] if means else math.nan
    return value if math.isfinite(value) else -math.inf


def _points(member: Member) -> list[JsonObject]:
    return objects(at(member.record.metrics, "low_shot.curve"))


def _panel(group: Group, metric: str, looks: dict[str, Look], identity: str, drawn: Sequence[Group]) -> Panel:
    shots = sorted({v for m in group.members for v in numbers(at(m.record.metrics, "low_shot.shots"))})
    shots = [float(value) for value in shots if math.isfinite(value) and value > 0]
    end = (shots[-1] if shots else 1.0) * _ALL
    series: list[Series] = []
    for member in group.members:
        look = looks[member.model]
        curve = _curve(member, metric, look)
        curve = curve if _banded(looks) else replace(curve, low=(), high=())
        series += [curve, _trained_on_all(member, metric, look, end)]
    values = tuple(v for other in drawn for m in other.members for v in _ends(m, metric))
    name = METRICS[metric]
    return Panel(
        identity,
        f"{name}",
        f"Test {name} of {len(group.members)} models against labelled images per class; {group.title}.",
        tuple(series),
        Dimension(
            "labelled images per class",
            log=True,
            also=(*(shots[:1] or [1.0]), end),
            ticks=(*((value, f"{value:g}") for value in shots), (end, "all")),
        ),
        Dimension("", also=values, within=(0.0, 1.0)),
    )


def _ends(member: Member, metric: str) -> list[float]:
    """Return all numbers of a curve, so that the curves of all data sets share one scale."""
    curve = _curve(member, metric, Look())
    return [*curve.y, *curve.low, *curve.high, number(at(member.record.metrics, f"test.{metric}"))]


def _curve(member: Member, metric: str, look: Look) -> Series:
    scores = [members(point.get(metric)) for point in _points(member)]
    mean = [number(score.get("mean")) for score in scores]
    half = [number(score.get("ci95")) for score in scores]
    return Series(
        member.model if look.place is not None else "",
        tuple(number(point.get("shots")) for point in _points(member)),
        tuple(mean),
        tuple(middle - width for middle, width in zip(mean, half, strict=True)),
        tuple(middle + width for middle, width in zip(mean, half, strict=True)),
        look,
        marked=look.place is not None,
    )


def _trained_on_all(member: Member, metric: str, look: Look, place: float) -> Series:
    value = number(at(member.record.metrics, f"test.{metric}"))
    return Series("", (place,), (value,), look=look, marked=True, lined=False)


def _alt(group: Group) -> str:
    ranked = sorted(group.members, key=lambda member: -_last(member))
    best = ranked[0]
    if not math.isfinite(_last(best)):
        return f"Low-shot curves of {len(ranked)} models; all undefined."
    return (
        f"Low-shot curves of {len(ranked)} models. With most labelled images {best.model} has the highest "
        f"accuracy, {_last(best):.3f}."
    )


def _table(group: Group, identity: str) -> DataTable:
    shots = sorted(
        {number(point.get("shots")) for m in group.members for point in _points(m)},
        key=lambda value: (math.isnan(value), value),
    )
    columns = [Column("model")]
    for name in METRICS.values():
        columns += [Column(f"{count:g} per class", True, group=name) for count in shots]
        columns.append(Column("all images", True, group=name))
    rows = tuple(_row(member, shots) for member in group.members)
    caption = (
        f"{group.title}: mean test score over draws with its 95 % Student interval; all images: with its "
        "bootstrap interval."
    )
    return DataTable(f"table-{identity}", caption, tuple(columns), rows)


def _row(member: Member, shots: Sequence[float]) -> tuple[Value, ...]:
    points = {number(point.get("shots")): point for point in _points(member)}
    cells = [Value(member.model)]
    for metric in METRICS:
        for count in shots:
            score = members(points.get(count, {}).get(metric))
            mean, half = number(score.get("mean")), number(score.get("ci95"))
            cells.append(score_cell(mean, mean - half, mean + half))
        body = member.record.metrics
        low, high = (number(at(body, f"test.intervals.{metric}.{end}")) for end in ("low", "high"))
        cells.append(score_cell(number(at(body, f"test.{metric}")), low, high))
    return tuple(cells)
