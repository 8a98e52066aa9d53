"""How much of a page a section may take: panels and rows that fit, and what is left out.

Shares are estimates; `engine.report.page.cutting` measures the page.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from engine.report.page.blocks import DataTable
from engine.report.page.fits import Fit
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.record_values import at, number

#: Fewest panels of a chart and rows of a table, however little room there is.
_PANELS, _ROWS = 2, 12
#: Records of a page whose charts and tables have their shares and no more, and how much more others have.
_MANY, _MOST = 1_000, 8.0


def room_for(page: PageInput) -> float:
    """Return the factor for the shares of a page's charts and tables: 1 where there are many records."""
    records = sum(len(source.entries) for source in page.sources)
    return min(max(_MANY / max(records, 1), 1.0), _MOST)


def panels_each(options: PageOptions, share: float, charts: int, size: int) -> int:
    """Return how many panels each of some charts may have.

    Args:
        share: of the page's largest size that all of them may take.
        size: of a panel with its numbers, bytes.
    """
    return max(_PANELS, int(options.max_bytes * options.room * share / max(charts, 1) / size))


def fitting(table: DataTable, options: PageOptions, share: float, tables: int) -> DataTable:
    """Return a table with as many rows as fit, and a note where some are left out.

    Args:
        share: of the page's largest size that all such tables may take.
        tables: how many there are.
    """
    size = 190 * max(len(table.columns), 1)  # a cell is on the page twice, for reading and for CSV files
    most = max(_ROWS, int(options.max_bytes * options.room * share / max(tables, 1) / size))
    if len(table.rows) <= most:
        return table
    return first_rows(table, most)


def first_rows(table: DataTable, most: int) -> DataTable:
    """Return a table with its first rows, and a note about those that are left out."""
    left_out = len(table.rows) - most
    if left_out <= 0:
        return table
    what = "1 row is" if left_out == 1 else f"{left_out:,} rows are"
    note = f"To keep the page small {what} left out; `embank report --tables` writes them all."
    return replace(table, rows=table.rows[:most], notes=(*table.notes, note))


def best_fits(fits: Sequence[Fit], most: int) -> list[Fit]:
    """Return the fits with the best test scores, in the order that they have."""
    ranked = sorted(range(len(fits)), key=lambda place: (-_score(fits[place]), place))
    return [fits[place] for place in sorted(ranked[:most])]


def _score(fit: Fit) -> float:
    scores = (
        number(at(fit.body, f"test.{name}")) for name in ("mean_per_class_accuracy", "auroc", "accuracy")
    )
    return next((score for score in scores if score == score), -1.0)


def left_out_note(shown: int, fits: int) -> str:
    """Say how many of some fits are drawn; "" if all are."""
    return f"The {shown} best of {fits} fits are drawn, to keep the page small." if shown < fits else ""


def notes_of(*notes: str | Iterable[str]) -> tuple[str, ...]:
    """Return notes in one tuple, without empty ones."""
    flat = [note for one in notes for note in ([one] if isinstance(one, str) else one)]
    return tuple(note for note in flat if note)
