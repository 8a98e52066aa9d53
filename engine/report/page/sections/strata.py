"""Scores in strata of the test images, e.g. by view or site: where models are worse, and if ranks flip."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.report.json_parts import members, objects
from engine.report.page.blocks import Chart, Column, DataTable, Paragraph, Section, Value
from engine.report.page.cells import count_cell, score_cell
from engine.report.page.fit_charts import folded
from engine.report.page.fits import Fit, fits_of
from engine.report.page.groups import Group, first_seeds, groups_of, looks_for
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.room import fitting
from engine.report.page.svg.curves import Dimension
from engine.report.page.svg.element import panels
from engine.report.page.svg.looks import Look
from engine.report.page.svg.rows import Dot, Row, RowsPanel, draw_rows
from engine.report.page.svg.ticks import minus
from engine.report.record_values import at, number, text
from stores.json_types import JsonObject

#: Metric -> its name; a panel each.
METRICS = {"auroc": "AUROC", "accuracy": "accuracy"}
#: Strata and models of a panel, charts that stand open on the page, and those that a note names.
_STRATA, _MODELS, _OPEN, _NAMED = 24, 8, 4, 4
#: Share of the page for tables.
_TABLED = 0.03


@dataclass(frozen=True)
class Divided:
    """The fits of a group for one column and finding.

    Attributes:
        column: of the manifest. finding: "" where there is one fit a record.
        fits: (model, its strata by name, gaps), in the order of the group.
    """

    column: str
    finding: str
    fits: tuple[tuple[Fit, dict[str, JsonObject], JsonObject], ...]

    @property
    def names(self) -> list[str]:
        """Names of the strata, in the order of the records."""
        return list(dict.fromkeys(name for _, strata, _ in self.fits for name in strata))


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section, or none without probes that were tested in strata."""
    groups, seeds = first_seeds(groups_of(page, "probe"))
    charts: list[Chart] = []
    too_small: list[str] = []
    for group in groups:
        for one in _divided(group):
            if any(_has(one, metric) for metric in METRICS):
                charts.append(_chart(page, group, one, f"strata-{len(charts) + 1}"))
            else:
                too_small.append(_title(group, one))
    if not charts and not too_small:
        return ()
    lead = Paragraph(
        "The same test images, divided by what is known of them. A model that is good on all images can be "
        "bad in a stratum; and where intervals overlap, a difference between strata may be chance."
    )
    charts = [
        replace(one, table=fitting(one.table, options, _TABLED, len(charts))) if one.table else one
        for one in charts
    ]
    blocks = folded(charts, "strata-all", "Scores in strata", _OPEN)
    notes = [Paragraph(seeds)] if seeds else []
    if too_small:
        more = f"; and {len(too_small) - _NAMED} more" if len(too_small) > _NAMED else ""
        named = "; ".join(too_small[:_NAMED])
        notes.append(Paragraph(f"No stratum has enough images for a score: {named}{more}.", "note"))
    return (Section("strata", "Strata of the test images", (lead, *blocks, *notes)),)


def _divided(group: Group) -> list[Divided]:
    """Return the strata of a group by column and finding."""
    parts: dict[tuple[str, str], list[tuple[Fit, dict[str, JsonObject], JsonObject]]] = {}
    for fit in fits_of(group, "strata"):
        for division in objects(fit.body["strata"]):
            strata = {text(one.get("stratum")): one for one in objects(division.get("strata", []))}
            if strata:
                key = text(division.get("column")), fit.finding
                parts.setdefault(key, []).append((fit, strata, members(division.get("gaps"))))
    return [Divided(column, finding, tuple(fits)) for (column, finding), fits in parts.items()]


def _title(group: Group, one: Divided) -> str:
    return f"{group.title}{f', {one.finding}' if one.finding else ''}: by {one.column}"


def _chart(page: PageInput, group: Group, one: Divided, identity: str) -> Chart:
    title = _title(group, one)
    models = [fit.member.model for fit, _, _ in one.fits][:_MODELS]
    looks = looks_for(page, models)
    drawn = [name for name in METRICS if _has(one, name)]
    drawings = [draw_rows(_panel(one, metric, title, looks, f"plot-{identity}-{metric}")) for metric in drawn]
    notes = [_flips(one, metric) for metric in drawn]
    notes += [_gaps(one, metric) for metric in drawn]
    if len(one.fits) > len(models):
        notes.append(f"The first {len(models)} of {len(one.fits)} models are drawn; the table has all.")
    if len(one.names) > _STRATA:
        notes.append(f"The first {_STRATA} of {len(one.names)} strata are drawn; the table has all.")
    return Chart(
        identity,
        title,
        panels(drawings),
        f"{', '.join(METRICS[name] for name in drawn)} of {len(models)} models in {len(one.names)} strata. "
        f"{' '.join(notes[: len(drawn)])}",
        _table(one, title, identity),
        tuple(note for note in notes if note),
    )


def _has(one: Divided, metric: str) -> bool:
    """Return whether a metric is defined in any stratum."""
    return any(math.isfinite(number(s.get(metric))) for _, strata, _ in one.fits for s in strata.values())


def _panel(one: Divided, metric: str, title: str, looks: dict[str, Look], identity: str) -> RowsPanel:
    rows = []
    for name in one.names[:_STRATA]:
        dots = tuple(
            _dot(strata.get(name, {}), metric, looks[fit.member.model])
            for fit, strata, _ in one.fits
            if fit.member.model in looks
        )
        rows.append(Row(name or "(empty)", dots, _images(one, name)))
    return RowsPanel(
        identity,
        METRICS[metric],
        f"{title}: {METRICS[metric]} with 95 % intervals.",
        tuple(rows),
        Dimension(METRICS[metric], within=(0.0, 1.0), most=5),
        series=tuple(looks.items()),
    )


def _dot(stratum: JsonObject, metric: str, look: Look) -> Dot:
    low, high = (number(at(stratum, f"intervals.{metric}.{end}")) for end in ("low", "high"))
    reason = text(stratum.get("reason")) or text(stratum.get(f"{metric}_reason"))
    return Dot(number(stratum.get(metric)), low, high, look, reason if stratum else "no test image")


def _images(one: Divided, name: str) -> str:
    """Return how many images a stratum has; models differ where rows failed."""
    counts = {number(strata[name].get("images")) for _, strata, _ in one.fits if name in strata}
    shown = "/".join(f"{count:,.0f}" for count in sorted(c for c in counts if math.isfinite(c)))
    return f"n = {shown}" if shown else ""


def _flips(one: Divided, metric: str) -> str:
    """Say whether another model is the best one in some strata."""
    best: dict[str, str] = {}
    for name in one.names:
        own = [(number(strata.get(name, {}).get(metric)), fit.member.model) for fit, strata, _ in one.fits]
        defined = [pair for pair in own if math.isfinite(pair[0])]
        if len(defined) > 1:
            best[name] = max(defined, key=lambda pair: pair[0])[1]
    if len(set(best.values())) < 2:
        return ""
    words = "; ".join(f"{name}: {model}" for name, model in list(best.items())[:6])
    return f"The best {METRICS[metric]} changes its model between strata: {words}."


def _gaps(one: Divided, metric: str) -> str:
    """Return the largest gap of each model, with its interval."""
    words = []
    for fit, _, gaps in one.fits[:_MODELS]:
        gap = members(gaps.get(metric))
        value, low, high = (number(gap.get(part)) for part in ("value", "low", "high"))
        if math.isfinite(value):
            ends = f" ({minus(f'{low:.3f}')} to {minus(f'{high:.3f}')})" if math.isfinite(low) else ""
            words.append(f"{fit.member.model} {value:.3f}{ends}")
    return f"Largest gap of {METRICS[metric]} between strata: {'; '.join(words)}." if words else ""


def _table(one: Divided, title: str, identity: str) -> DataTable:
    columns = (
        Column("model"),
        Column(one.column or "stratum"),
        Column("images", True, "Test images in the stratum"),
        Column("patients", True, "An image without a patient counts as one of its own"),
        *(Column(name, True, "With its 95 % interval over patients or images") for name in METRICS.values()),
    )
    rows = tuple(_row(fit, name, stratum) for fit, strata, _ in one.fits for name, stratum in strata.items())
    caption = f"{title}: scores with 95 % intervals over patients, or images where none is known."
    return DataTable(f"table-{identity}", caption, columns, rows)


def _row(fit: Fit, name: str, stratum: JsonObject) -> tuple[Value, ...]:
    scores: Sequence[Value] = [
        score_cell(dot.value, dot.low, dot.high, reason=dot.reason)
        for dot in (_dot(stratum, metric, Look()) for metric in METRICS)
    ]
    counts = (count_cell(number(stratum.get(part))) for part in ("images", "patients"))
    return (Value(fit.member.model), Value(name), *counts, *scores)
