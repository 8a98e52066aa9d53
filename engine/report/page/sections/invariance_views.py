"""Invariance along the parameter of a transform, and of all transforms side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.report.invariance_figure import LABELS, undefined
from engine.report.page.blocks import Block, Chart, Column, DataTable, Paragraph, Section, Value
from engine.report.page.cells import compact, score_cell
from engine.report.page.groups import MODES, Group, Member, groups_of, looks_for
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.room import fitting
from engine.report.page.svg.curves import Dimension, Panel, Series, draw
from engine.report.page.svg.element import Markup, panels
from engine.report.page.svg.looks import COLOURS, Look
from engine.report.page.svg.rows import Dot, Row, RowsPanel, draw_rows
from engine.report.record_values import at, number, numbers, text

#: Curves of a panel up to which bands are drawn.
_BANDS = 4
#: Share of the page for tables.
_TABLED = 0.025
#: Ticks of an axis of degrees.
_DEGREES = tuple((float(value), f"{value}°") for value in range(0, 361, 90))


@dataclass(frozen=True)
class View:
    """The cosine along a parameter, of one model.

    Attributes:
        values, cosine, half: parameter, mean cosine and half the width of its 95 % interval.
    """

    values: tuple[float, ...]
    cosine: tuple[float, ...]
    half: tuple[float, ...]

    @classmethod
    def of(cls, member: Member) -> "View":
        """Read a record: in order of the parameter; without points where it has none or several."""
        metrics = member.record.metrics
        names, parameters = at(metrics, "by_view.names"), at(metrics, "by_view.parameters")
        cosine, half = numbers(at(metrics, "by_view.cosine")), numbers(at(metrics, "by_view.ci95"))
        views = parameters if isinstance(parameters, list) else []
        single = isinstance(names, list) and len(names) == 1 and len(views) > 2
        if not single or not len(views) == len(cosine) == len(half):
            return cls((), (), ())
        values = [number(view[0]) if isinstance(view, list) and view else math.nan for view in views]
        points = sorted(zip(values, cosine.tolist(), half.tolist(), strict=True), key=lambda p: p[0])
        return cls(*(tuple(column) for column in zip(*points, strict=True)))


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section, or none without invariances."""
    groups = groups_of(page, "invariance")
    if not groups:
        return ()
    lead = Paragraph(
        "Cosine between whitened features of an image and of its transformed copy: 1 says that the "
        "transform changes nothing. Dotted: mean cosine of different images, which says nothing is left."
    )
    blocks: list[Block] = [lead]
    together = _together(groups)
    for place, sharing in enumerate(together, 1):
        chart = _chart(page, sharing, f"invariance-views-{place}")
        table = fitting(chart.table, options, _TABLED, len(together)) if chart.table else None
        blocks.append(replace(chart, table=table))
    return (Section("invariance-views", "Invariance", tuple(blocks)),)


def _together(groups: Sequence[Group]) -> list[list[Group]]:
    """Return the groups of one data set and mode together; these differ in their transforms."""
    parts: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        parts.setdefault((group.dataset, group.mode), []).append(group)
    return list(parts.values())


def _transform(group: Group) -> str:
    """Return the transform, with further settings that tell it from others."""
    name = text(group.members[0].record.asked.get("transform"))
    words = [w for w in group.setting.split(", ") if w and not w.startswith("transform ")]
    return ", ".join([name, *words])


def _chart(page: PageInput, groups: Sequence[Group], identity: str) -> Chart:
    models = list(dict.fromkeys(member.model for group in groups for member in group.members))
    shown = _best(groups, models)
    looks = looks_for(page, shown)
    title = f"{groups[0].dataset}, {MODES.get(groups[0].mode, groups[0].mode)}: invariance to transforms"
    drawings: list[Markup] = [draw_rows(_overview(groups, looks, title, f"plot-{identity}-all"))]
    for count, group in enumerate(groups, 1):
        views = {member.model: View.of(member) for member in group.members if member.model in looks}
        if any(view.values for view in views.values()):
            drawings.append(draw(_panel(group, views, looks, f"plot-{identity}-{count}")))
    images = sorted({number(m.record.metrics.get("n")) for group in groups for m in group.members})
    tested = "/".join(f"{count:,.0f}" for count in images if math.isfinite(count))
    over = (
        f"intervals{' and bands' * (len(shown) <= _BANDS)}: 95 % over patients, or images where none is known"
    )
    notes = [f"On {tested or 'no'} images; {over}."]
    if len(shown) < len(models):
        notes.append(f"The {len(shown)} most invariant of {len(models)} models are drawn; the table has all.")
    return Chart(
        identity, title, panels(drawings), _alt(groups), _table(groups, title, identity), tuple(notes)
    )


def _best(groups: Sequence[Group], models: Sequence[str]) -> list[str]:
    """Return the models to draw, in their order: those with the highest mean cosine over transforms."""
    cosines: dict[str, list[float]] = {model: [] for model in models}
    for group in groups:
        for member in group.members:
            value = number(member.record.metrics.get("cosine"))
            cosines[member.model] += [value] if math.isfinite(value) else []
    means = {model: math.fsum(own) / len(own) if own else -math.inf for model, own in cosines.items()}
    best = sorted(models, key=lambda model: -means[model])[:COLOURS]
    return [model for model in models if model in best]


def _alt(groups: Sequence[Group]) -> str:
    sentences = []
    for group in groups:
        values = [(number(m.record.metrics.get("cosine")), m.model) for m in group.members]
        defined = [pair for pair in values if math.isfinite(pair[0])]
        if defined:
            best = max(defined)
            sentences.append(f"{_transform(group)}: {best[1]} is the most invariant, cosine {best[0]:.3f}.")
    return " ".join(sentences) or "All invariances are undefined."


def _dot(member: Member, look: Look) -> Dot:
    metrics = member.record.metrics
    value, half = number(metrics.get("cosine")), number(metrics.get("ci95"))
    n = number(metrics.get("n"))
    if metrics.get("reason") or not math.isfinite(value):
        few = undefined(n, "views" not in metrics).removeprefix("undefined: ") if math.isfinite(n) else ""
        return Dot(math.nan, look=look, reason=few)
    return Dot(value, value - half, value + half, look)


def _overview(groups: Sequence[Group], looks: dict[str, Look], title: str, identity: str) -> RowsPanel:
    rows = []
    for group in groups:
        drawn = (member for member in group.members if member.model in looks)
        dots = tuple(_dot(member, looks[member.model]) for member in drawn)
        rows.append(Row(_transform(group), dots))
    return RowsPanel(
        identity,
        "All transforms",
        f"{title}: mean cosine of each transform and model.",
        tuple(rows),
        Dimension("mean cosine over images and views", also=(0.0, 1.0), within=(-1.0, 1.0)),
        series=tuple(looks.items()),
    )


def _panel(group: Group, views: dict[str, View], looks: dict[str, Look], identity: str) -> Panel:
    names = at(group.members[0].record.metrics, "by_view.names")
    parameter = text(names[0]) if isinstance(names, list) and names else ""
    banded = len(views) <= _BANDS
    series = [_series(model, view, looks[model], banded) for model, view in views.items() if view.values]
    levels = [number(m.record.metrics.get("baseline")) for m in group.members]
    floor = tuple(v for v in (*levels, *(y for one in series for y in one.low)) if math.isfinite(v))
    degrees = parameter == "degrees"
    return Panel(
        identity,
        _transform(group),
        f"Mean cosine of {len(series)} models along {LABELS.get(parameter, parameter)}; {group.title}.",
        tuple(series),
        Dimension(
            LABELS.get(parameter, parameter),
            also=(0.0, 360.0) if degrees else (),
            ticks=_DEGREES if degrees else None,
        ),
        Dimension("mean cosine", also=(0.0, 1.0, *floor), within=(-1.0, 1.0), most=8),
        height=160.0,
        levels=tuple(levels),
    )


def _series(model: str, view: View, look: Look, banded: bool) -> Series:
    pairs = list(zip(view.cosine, view.half, strict=True))
    return Series(
        model if look.place is not None else "",
        view.values,
        view.cosine,
        tuple(mean - half for mean, half in pairs) if banded else (),
        tuple(mean + half for mean, half in pairs) if banded else (),
        look,
        marked=look.place is not None and len(view.values) <= 30,
    )


def _table(groups: Sequence[Group], title: str, identity: str) -> DataTable | None:
    """Return the cosine at each parameter; means and baselines are in a table of their own on the page."""
    columns = (
        Column("model"),
        Column("transform"),
        Column("parameter", True, "Of the transform, e.g. degrees"),
        Column("cosine", True, "Mean over images, with its 95 % interval"),
    )
    rows = []
    for group in groups:
        for member in group.members:
            view = View.of(member)
            for value, cosine, half in zip(view.values, view.cosine, view.half, strict=True):
                parameter = Value(compact(value, 4), value if math.isfinite(value) else None)
                score = score_cell(cosine, cosine - half, cosine + half)
                rows.append((Value(member.model), Value(_transform(group)), parameter, score))
    if not rows:
        return None
    caption = f"{title}: mean cosine of whitened features before and after each transform, by its parameter."
    return DataTable(f"table-{identity}", caption, columns, tuple(rows))
