"""The choice of a probe's regularisation: validation score against C, the chosen C marked."""

import math
from collections.abc import Sequence

from engine.report.page.blocks import Chart, Column, DataTable, Paragraph, Section, Value
from engine.report.page.cells import compact, count_cell, number_cell
from engine.report.page.fit_charts import charts_of_fits, folded
from engine.report.page.fits import Fit, fits_of
from engine.report.page.groups import Group
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.room import best_fits, fitting, left_out_note, notes_of, panels_each
from engine.report.page.svg.curves import NARROW, Dimension, Panel, Series, draw
from engine.report.page.svg.element import panels
from engine.report.page.svg.looks import Look
from engine.report.record_values import at, number, numbers, text

#: Score by which C is chosen -> its name.
SCORES = {
    "accuracy": "accuracy",
    "mean-per-class": "balanced accuracy",
    "auroc": "AUROC",
    "log-loss": "log loss",
}
#: Share of the page for drawings and for tables, and bytes of a panel.
_DRAWN, _TABLED, _SIZE = 0.045, 0.02, 2600
_NEEDS = "sweep.val_score"


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section, or none without probes that chose C."""
    charts, notes = charts_of_fits(page, options, _NEEDS, _chart)
    if not charts:
        return ()
    lead = Paragraph(
        "A probe is fitted for each C of a grid and chosen by its validation score. The ring marks the "
        "chosen C, crosses mark fits that did not converge. A curve that is flat around the ring says that "
        "the choice matters little; a ring at an edge, that the grid may be too narrow."
    )
    shown = folded(charts, "selection-all", "Validation score against C", 4)
    return (Section("selection", "Choice of the regularisation", (lead, *shown, *notes)),)


def _chart(group: Group, place: int, charts: int, options: PageOptions) -> Chart:
    identity = f"selection-{place}"
    fits = fits_of(group, _NEEDS)
    shown = best_fits(fits, panels_each(options, _DRAWN, charts, _SIZE))
    score = SCORES.get(text(fits[0].body.get("select")), text(fits[0].body.get("select")))
    across = tuple(v for fit in shown for v in numbers(at(fit.body, "sweep.C")) if math.isfinite(v))
    up = tuple(v for fit in shown for v in numbers(at(fit.body, _NEEDS)))
    drawings = [
        draw(_panel(fit, f"plot-{identity}-{number_of}", across, up))
        for number_of, fit in enumerate(shown, 1)
    ]
    images = "/".join(sorted({f"{number(at(fit.body, 'images.val')):,.0f}" for fit in shown} - {"nan"}))
    notes = [
        f"Upwards: validation {score}{f' on {images} images' if images else ''}, one scale for all panels."
    ]
    notes.append(left_out_note(len(shown), len(fits)))
    return Chart(
        identity,
        f"{group.title}: validation {score} against C",
        panels(drawings, "small"),
        f"Validation {score} against C for {len(shown)} fits. {_edges(fits)}",
        fitting(_table(group, fits, identity, score), options, _TABLED, charts),
        notes_of(notes),
    )


def _edges(fits: Sequence[Fit]) -> str:
    edge = [fit.title for fit in fits if _at_edge(fit)]
    if not edge:
        return "Each chosen C lies within the grid."
    return f"At the edge of the grid lies the C of {', '.join(edge)}."


def _at_edge(fit: Fit) -> bool:
    grid = numbers(at(fit.body, "sweep.C"))
    chosen = number(fit.body.get("best_C"))
    return bool(len(grid)) and any(math.isclose(chosen, end, rel_tol=1e-9) for end in (min(grid), max(grid)))


def _panel(fit: Fit, identity: str, across: tuple[float, ...], up: tuple[float, ...]) -> Panel:
    grid, scores = numbers(at(fit.body, "sweep.C")), numbers(at(fit.body, _NEEDS))
    converged = at(fit.body, "sweep.converged")
    trusted = converged if isinstance(converged, list) else [True] * len(grid)
    places = list(zip(grid.tolist(), scores.tolist(), strict=False))
    chosen = number(fit.body.get("best_C")), number(fit.body.get("val_score"))
    series = Series(
        "",
        tuple(x for x, _ in places),
        tuple(y for _, y in places),
        look=Look(0),
        ringed=(chosen,),
        crossed=tuple(place for place, good in zip(places, trusted, strict=False) if good is False),
    )
    return Panel(
        identity,
        fit.title,
        f"Validation score of {fit.title} against C; chosen: C = {compact(chosen[0])}, {compact(chosen[1])}.",
        (series,),
        Dimension("C", log=True, also=across, most=4),
        Dimension("", also=up, most=4),
        width=NARROW,
        height=92.0,
        keyed=False,
    )


def _table(group: Group, fits: Sequence[Fit], identity: str, score: str) -> DataTable:
    columns = (
        Column("model"),
        Column("chosen C", True),
        Column(f"validation {score}", True),
        Column("test accuracy", True),
        Column("fits", True, "Number of C that were tried"),
        Column("not converged", True, "Of these fits"),
        Column("at the edge", False, "Whether the chosen C is the smallest or largest of the grid"),
    )
    rows = []
    for fit in fits:
        converged = at(fit.body, "sweep.converged")
        flags = converged if isinstance(converged, list) else []
        chosen, edge = number(fit.body.get("best_C")), _at_edge(fit)
        rows.append(
            (
                Value(fit.title),
                Value(compact(chosen), chosen if math.isfinite(chosen) else None),
                number_cell(number(fit.body.get("val_score"))),
                number_cell(number(at(fit.body, "test.accuracy"))),
                count_cell(float(len(numbers(at(fit.body, "sweep.C"))))),
                count_cell(float(flags.count(False))),
                Value("yes" if edge else "no", tone="warning" if edge else None),
            )
        )
    caption = f"{group.title}: the chosen C of each fit. Choosing it took no test image."
    return DataTable(f"table-{identity}", caption, columns, tuple(rows))
