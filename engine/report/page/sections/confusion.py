"""Confusion matrices of probes: which class is taken for which."""

from engine.report.page.blocks import Chart, Column, DataTable, Paragraph, Section, Value
from engine.report.page.cells import count_cell, number_cell
from engine.report.page.fit_charts import charts_of_fits, folded
from engine.report.page.fits import Fit, fits_of
from engine.report.page.groups import Group
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.repeats import repeats_of
from engine.report.page.room import best_fits, fitting, left_out_note, notes_of, panels_each
from engine.report.page.svg.element import panels
from engine.report.page.svg.heat import HeatMap, draw_heat_map, shares_of
from engine.report.record_values import at, numbers

_NEEDS = "test.confusion_matrix"
#: Share of the page for drawings and for tables, and bytes of a panel of three classes.
_DRAWN, _TABLED, _SIZE = 0.045, 0.02, 3100
#: Classes up to which a table has all counts.
_COUNTED = 4


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section, or none without probes that have confusion matrices."""
    charts, notes = charts_of_fits(page, options, _NEEDS, _chart)
    if not charts:
        return ()
    lead = Paragraph(
        "Rows are true classes, columns predicted ones; numbers are test images, with their share of the "
        "row. The stronger the colour of a cell, the larger its share: a good model has a strong diagonal."
    )
    shown = folded(charts, "confusion-all", "Confusion matrices", 0)
    return (Section("confusion", "Confusion", (lead, *shown, *notes)),)


def _chart(group: Group, place: int, charts: int, options: PageOptions) -> Chart:
    identity = f"confusion-{place}"
    fits = fits_of(group, _NEEDS)
    classes = max(len(_counts(fit)) for fit in fits)
    size = _SIZE + 90 * max(min(classes, 30) ** 2 - 9, 0)
    shown = best_fits(fits, panels_each(options, _DRAWN, charts, size))
    drawings = [
        draw_heat_map(_heat_map(fit, f"plot-{identity}-{count}")) for count, fit in enumerate(shown, 1)
    ]
    return Chart(
        identity,
        f"{group.title}: confusion on the test images",
        panels(drawings),
        f"Confusion matrices of {len(shown)} fits. {_worst(shown)}",
        fitting(_table(group, fits, identity), options, _TABLED, charts),
        notes_of(_repeated(group), left_out_note(len(shown), len(fits))),
    )


def _repeated(group: Group) -> str:
    """Say that images count several times, where a cross-validation has repeats."""
    repeats = repeats_of(group.members[0].record)
    return f"Each image counts {repeats} times: the cross-validation has {repeats} repeats." * (repeats > 1)


def _names(fit: Fit) -> tuple[str, ...]:
    classes, rows = at(fit.body, "classes"), len(_counts(fit))
    names = [str(name) for name in classes] if isinstance(classes, list) else []
    return tuple(names) if len(names) == rows else tuple(f"class {place}" for place in range(rows))


def _counts(fit: Fit) -> tuple[tuple[float, ...], ...]:
    """Return the matrix; cells that a row lacks are 0."""
    rows = at(fit.body, _NEEDS)
    counts = [numbers(row).tolist() for row in rows] if isinstance(rows, list) else []
    matrix = [[value if value >= 0 else 0.0 for value in row] for row in counts]
    size = len(matrix)
    return tuple(tuple([*row, *[0.0] * size][:size]) for row in matrix)


def _heat_map(fit: Fit, identity: str) -> HeatMap:
    return HeatMap(
        identity, fit.title, f"Confusion of {fit.title}. {_worst([fit])}", _names(fit), _counts(fit)
    )


def _worst(fits: list[Fit]) -> str:
    """Return the most frequent confusion of some fits, in words."""
    mistakes = [
        (count, share, fit.title, names[i], names[j])
        for fit in fits
        for names in [_names(fit)]
        for i, row in enumerate(_counts(fit))
        for j, (count, share) in enumerate(zip(row, shares_of(row), strict=True))
        if i != j and count > 0
    ]
    if not mistakes:
        return "No image is taken for another class."
    count, share, model, true, predicted = max(mistakes, key=lambda one: one[:2])
    images = f"{count:,.0f} image{'' if count == 1 else 's'}, {share:.0%} of that class"
    return f"Most often {true} is taken for {predicted}: {images} ({model})."


def _table(group: Group, fits: list[Fit], identity: str) -> DataTable:
    """Return the counts of small matrices, and of larger ones the recall of each class."""
    columns = [Column("model"), Column("true class"), Column("images", True), Column("recall", True)]
    names = list(dict.fromkeys(name for fit in fits for name in _names(fit)))
    small = len(names) <= _COUNTED
    columns += [Column(f"as {name}", True) for name in names] if small else []
    rows = []
    for fit in fits:
        for i, (name, row) in enumerate(zip(_names(fit), _counts(fit), strict=True)):
            share = shares_of(row)[i]
            cells = [Value(fit.title), Value(name), count_cell(sum(row))]
            cells.append(number_cell(share, reason="no test image of this class"))
            predicted = dict(zip(_names(fit), row, strict=True))
            cells += [count_cell(predicted.get(other, float("nan"))) for other in names] if small else []
            rows.append(tuple(cells))
    caption = f"{group.title}: recall of each class on the test images"
    caption += ", and how many images are predicted as which class." if small else "."
    return DataTable(f"table-{identity}", caption, tuple(columns), tuple(rows))
