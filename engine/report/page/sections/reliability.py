"""Reliability of probes' probabilities, before and after temperature scaling."""

import math
from collections.abc import Sequence

import numpy as np

from engine.report.page.blocks import Chart, Column, DataTable, Paragraph, Section, Value
from engine.report.page.cells import number_cell
from engine.report.page.fit_charts import charts_of_fits, folded
from engine.report.page.fits import Fit, fits_of
from engine.report.page.groups import Group
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.room import best_fits, fitting, left_out_note, notes_of, panels_each
from engine.report.page.svg.curves import NARROW, Dimension, Panel, Series, draw
from engine.report.page.svg.element import panels
from engine.report.page.svg.looks import Look
from engine.report.record_values import at, number, numbers

_NEEDS = "calibration.bins"
#: Share of the page for drawings and for tables, and bytes of a panel.
_DRAWN, _TABLED, _SIZE = 0.045, 0.02, 3000
_TICKS = ((0.0, "0"), (0.5, "0.5"), (1.0, "1"))
_SIDES = {"before": "as fitted", "after": "after scaling"}


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section, or none without probes that were scaled."""
    charts, notes = charts_of_fits(page, options, _NEEDS, _chart, published=False)
    if not charts:
        return ()
    lead = Paragraph(
        "A probability is reliable where it equals the observed frequency: on the dotted diagonal. Open "
        "circles: as fitted; filled: after one temperature, chosen on validation images, has scaled all "
        "scores. Bars: share of the test images in each bin after scaling; outlines: before."
    )
    shown = folded(charts, "reliability-all", "Reliability diagrams", 3)
    return (Section("reliability", "Reliability of probabilities", (lead, *shown, *notes)),)


def _chart(group: Group, place: int, charts: int, options: PageOptions) -> Chart:
    identity = f"reliability-{place}"
    fits = fits_of(group, _NEEDS)
    shown = best_fits(fits, panels_each(options, _DRAWN, charts, _SIZE))
    drawings = [draw(_panel(fit, f"plot-{identity}-{count}")) for count, fit in enumerate(shown, 1)]
    errors = [(number(at(fit.body, f"{_error(fit)}.after")), fit.title) for fit in shown]
    finite = [pair for pair in errors if math.isfinite(pair[0])]
    best = f" Smallest error after scaling: {min(finite)[1]}, {min(finite)[0]:.3f}." if finite else ""
    images = "/".join(sorted({f"{number(at(fit.body, 'images.test')):,.0f}" for fit in shown} - {"nan"}))
    notes = [_axes(fits[0]) + (f" On {images} test images." if images else "")]
    notes.append("ECE: expected calibration error as fitted → after scaling; T: the temperature.")
    notes.append(left_out_note(len(shown), len(fits)))
    return Chart(
        identity,
        f"{group.title}: reliability",
        panels(drawings, "small"),
        f"Reliability diagrams of {len(shown)} fits before and after temperature scaling.{best}",
        fitting(_table(group, fits, identity), options, _TABLED, charts),
        notes_of(notes),
    )


def _is_of_two(fit: Fit) -> bool:
    classes = at(fit.body, "classes")
    return isinstance(classes, list) and len(classes) == 2


def _error(fit: Fit) -> str:
    """Return the path of the error of the probabilities that are drawn."""
    return f"calibration.{'class_ece' if _is_of_two(fit) else 'ece'}"


def _axes(fit: Fit) -> str:
    classes = at(fit.body, "classes")
    if isinstance(classes, list) and _is_of_two(fit):
        return f"Across: probability of {classes[1]}; upwards: its observed frequency."
    return "Across: confidence, the largest probability; upwards: accuracy."


def _panel(fit: Fit, identity: str) -> Panel:
    before, after = (number(at(fit.body, f"{_error(fit)}.{side}")) for side in _SIDES)
    temperature = number(at(fit.body, "calibration.temperature"))
    scaled = f"{after:.3f}, T {temperature:.3g}" if math.isfinite(temperature) else "no temperature"
    note = f"ECE {before:.3f} → {scaled}" if math.isfinite(before) else "ECE undefined"
    return Panel(
        identity,
        fit.title,
        f"Reliability of {fit.title}: {note}.",
        (
            _series(fit, "after", Look(0, dash="solid")),
            _series(fit, "before", Look(None, hollow=True, dash="dashed")),
        ),
        Dimension("", also=(0.0, 1.0), fixed=True, ticks=_TICKS),
        Dimension("", also=(0.0, 1.0), fixed=True, ticks=_TICKS),
        width=NARROW,
        height=140.0,
        note=note,
        keyed=False,
        guides=((0.0, 0.0, 1.0, 1.0),),
        bars=_bars(fit, "after"),
        outlines=_bars(fit, "before"),
    )


def _series(fit: Fit, side: str, look: Look) -> Series:
    count = numbers(at(fit.body, f"{_NEEDS}.{side}.count"))
    x, y = (numbers(at(fit.body, f"{_NEEDS}.{side}.{part}")) for part in ("probability", "frequency"))
    filled = np.flatnonzero(count[: min(len(x), len(y))] > 0)
    return Series("", tuple(x[filled].tolist()), tuple(y[filled].tolist()), look=look, marked=True)


def _bars(fit: Fit, side: str) -> tuple[tuple[float, float, float], ...]:
    """Return (from, to, share of the images) of each bin."""
    count = numbers(at(fit.body, f"{_NEEDS}.{side}.count"))
    total, bins = float(np.nansum(count)), len(count)
    if not total > 0:
        return ()
    return tuple((i / bins, (i + 1) / bins, float(count[i]) / total) for i in range(bins) if count[i] > 0)


def _table(group: Group, fits: Sequence[Fit], identity: str) -> DataTable:
    names = {_error(fits[0]).partition(".")[2]: "ECE", "brier": "Brier score", "log_loss": "log loss"}
    columns = [Column("model"), Column("temperature", True)]
    columns += [Column(side, True, group=name) for name in names.values() for side in _SIDES.values()]
    rows = []
    for fit in fits:
        temperature = number(at(fit.body, "calibration.temperature"))
        cells = [Value(fit.title), number_cell(temperature, reason="no temperature was fitted")]
        cells += [number_cell(number(at(fit.body, f"calibration.{n}.{s}"))) for n in names for s in _SIDES]
        rows.append(tuple(cells))
    caption = f"{group.title}: calibration on the test images as fitted and after temperature scaling."
    return DataTable(f"table-{identity}", caption, tuple(columns), tuple(rows))
