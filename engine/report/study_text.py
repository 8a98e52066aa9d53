"""A study on the terminal: a grid of its cells by state, what a run has left behind, and failures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.report import tables
from stores.json_types import JsonObject
from stores.manifest.uri_policy import plain

#: State of a cell -> its mark in the grid.
MARKS: Mapping[str, str] = {
    "done": "done",
    "running": "run",
    "failed": "FAIL",
    "missing": ".",
    "impossible": "n/a",
}
LEGEND = "done, run: being made, FAIL: failed, . missing, n/a: the data set cannot have it"
#: What stands in the column of models beside a comparison.
COMPARISON = "(comparison)"


@dataclass(frozen=True)
class GridCell:
    """A cell of a study, as the grid shows it.

    Attributes:
        dataset, model, evaluation: names; model is "" for a comparison.
        state: a key of `MARKS`.
    """

    dataset: str
    model: str
    evaluation: str
    state: str


def grid_lines(cells: Iterable[GridCell], width: int, *, rule: str = "-", ellipsis: str = "~") -> list[str]:
    """Lay out a grid with a row for each data set and model, and a column for each evaluation.

    Args:
        width: of the terminal in columns.
        rule, ellipsis: characters, as for `engine.report.tables.lines`.
    """
    states: dict[tuple[str, str], dict[str, list[str]]] = {}
    evaluations: dict[str, None] = {}
    for cell in cells:
        evaluations[cell.evaluation] = None
        row = states.setdefault((cell.dataset, cell.model or COMPARISON), {})
        row.setdefault(cell.evaluation, []).append(cell.state)
    columns = ["data set", "model", *map(plain, evaluations)]
    rows = [
        [plain(dataset), plain(model), *(mark(own.get(name, ())) for name in evaluations)]
        for (dataset, model), own in states.items()
    ]
    return tables.lines(columns, rows, width, ellipsis=ellipsis, rule=rule)


def mark(states: Sequence[str]) -> str:
    """Return the mark of one or several cells: of several, how many are done, and the worst of the others."""
    if not states:
        return ""
    if len(set(states)) == 1:
        return MARKS[states[0]]
    counted = [state for state in states if state != "impossible"]
    share = f"{counted.count('done')}/{len(counted)}"
    for state in ("failed", "running"):
        if state in states:
            return f"{MARKS[state]} {share}"
    return share if len(set(counted)) > 1 else MARKS[counted[0]]


def counts(cells: Iterable[GridCell]) -> str:
    """Return how many cells are in each state, in words."""
    states = [cell.state for cell in cells]
    parts = [f"{states.count(state):,} {state}" for state in MARKS if state in states]
    return f"{_cells(len(states))}: {', '.join(parts)}"


def print_failures(failures: Sequence[tuple[str, str]]) -> None:
    """Say on stderr which cells failed, and why; cells that failed for one reason share a line.

    Args:
        failures: (cell, why it failed), of all cells.
    """
    from engine.report import console

    cells_of: dict[str, list[str]] = {}
    for cell, why in failures:
        cells_of.setdefault(why, []).append(cell)
    for why, cells in cells_of.items():
        more = (
            f" and {len(cells) - 1} more cells" if len(cells) > 2 else f" and {cells[1]}" if cells[1:] else ""
        )
        console.say(f"Failed: {cells[0]}{more}: {why}")


def print_grid(cells: Sequence[GridCell], what: str = "") -> None:
    """Print the grid of a study on stdout, and what is being done besides cells."""
    from engine.report import console

    lines = grid_lines(cells, console.width())
    print("", *lines, "", counts(cells), LEGEND, *([plain(what)] if what else []), sep="\n")


def print_outcome(document: JsonObject) -> None:
    """Print what a run has left behind; the report's path is the last line."""
    from engine.report import console

    failed = document["failed"]
    counted = [f"{document[name]:,} {name}" for name in ("done", "impossible") if document[name]]
    if isinstance(failed, list) and failed:
        counted.append(f"{len(failed):,} failed")
    seconds = document["seconds"]
    took = console.duration(seconds) if isinstance(seconds, float) else "?"
    console.write(f"{_cells(document['cells'])}: {', '.join(counted)}; {document['made']:,} made in {took}")
    if document["report"]:
        console.write(str(document["report"]))


def _cells(count: object) -> str:
    return f"{count:,} cell{'s' * (count != 1)}" if isinstance(count, int) else "no cells"
