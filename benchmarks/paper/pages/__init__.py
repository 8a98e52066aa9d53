"""One module a table or figure of the paper, registered by its file name.

A module has `TITLE: str`, and `draw(values: Values, out: Path) -> None` (PNG, SVG or PDF by the ending) or
`table(values: Values) -> DataTable`, or both. `points(values: Values) -> DataTable` gives what a figure
shows, point by point. `show(sources, out, mode, root)` draws a figure of pictures from the banks of a study
(`benchmarks.paper.picture_figures`). `published() -> Values`, if the module has it, gives the published
values that it is drawn from where no study is given; the default is the authors' stored results for figures,
their tables for tables.
"""

import ast
import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paper.values import Values, published_results, published_tables
from engine.errors import Refused
from engine.report.page.blocks import DataTable
from engine.report.page.inputs import Source

Draw = Callable[[Values, Path], object]
Tabulate = Callable[[Values], DataTable]
Show = Callable[[Sequence[Source], Path, str, Path | None], object]


@dataclass(frozen=True)
class PaperPage:
    """A table or figure of the paper.

    Attributes:
        name: of its module, e.g. `figure7`.
        title: its subject.
        draw: writes its figure; None for a table.
        table: returns its numbers; None where it has none.
        points: returns every point that is drawn; None where the table has all.
        published: returns the values as published.
        show: draws a figure of a study's pictures; None for others.
    """

    name: str
    title: str
    draw: Draw | None
    table: Tabulate | None
    points: Tabulate | None
    published: Callable[[], Values]
    show: Show | None = None


def titles() -> dict[str, str]:
    """Return name -> title of each page in the paper's order, without importing them."""
    files = [path for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__"]
    return {path.stem: _title(path) for path in sorted(files, key=lambda path: _order(path.stem))}


def _order(name: str) -> tuple[bool, str, bool, int, str]:
    """Return a key that sorts tables before figures, the appendix after both, and other pages last."""
    match = re.fullmatch(r"(table|figure)(a?)(\d+)(.*)", name)
    if match is None:
        return True, "", False, 0, name
    return False, match[2], match[1] == "figure", int(match[3]), match[4]


def _title(path: Path) -> str:
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if [target.id for target in targets if isinstance(target, ast.Name)] == ["TITLE"]:
                return str(ast.literal_eval(statement.value)) if statement.value else ""
    return ""


def page(name: str) -> PaperPage:
    """Import a page.

    Raises:
        Refused: there is none of that name.
    """
    if name not in (names := titles()):
        raise Refused(
            f"page {name!r}",
            f"It is one of {', '.join(names)}",
            "name one of these; `python -m benchmarks.paper` says what each shows",
        )
    module = importlib.import_module(f"{__name__}.{name}")
    draw = getattr(module, "draw", None)
    default = published_tables if draw is None else published_results
    return PaperPage(
        name,
        names[name],
        draw,
        getattr(module, "table", None),
        getattr(module, "points", None),
        getattr(module, "published", default),
        getattr(module, "show", None),
    )
