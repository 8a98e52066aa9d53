"""Write the tables of `reference/study-file.md` from the reader's rules: `python -m docs.study_tables`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.study import schema
from engine.study.document import MAX_BYTES, MAX_DEPTH
from engine.study.kinds import KINDS_BY_NAME, TRANSFORMS, Kind, Option
from engine.study.read import MAX_CELLS
from engine.study.schema import Key

PAGE = Path(__file__).parent / "reference" / "study-file.md"
#: Lines between which a table stands.
_BEGIN, _END = "<!-- table: {} -->", "<!-- end -->"
_TAKES = {
    "text": "text",
    "integer": "whole number",
    "number": "number",
    "switch": "true or false",
    "texts": "list of texts",
    "integers": "list of whole numbers",
    "numbers": "list of numbers",
}


def tables() -> dict[str, str]:
    """Return the name of each table, and the table."""
    keys = {"study": schema.STUDY, "data set": schema.DATASET, "model": schema.MODEL}
    made = {name: _of_keys(own) for name, own in {**keys, "evaluation": schema.EVALUATION}.items()}
    made["embed"] = _of_options(schema.EMBED)
    made["kinds"] = _of_kinds()
    made |= {kind.name: _of_options(kind.options) for kind in KINDS_BY_NAME.values()}
    made["limits"] = (
        f"A file has at most {MAX_BYTES:,} bytes, {MAX_DEPTH} levels and {MAX_CELLS:,} cells.\n\n"
        f"Transforms: {', '.join(f'`{name}`' for name in TRANSFORMS)}."
    )
    return made


def _of_keys(keys: Iterable[Key]) -> str:
    return _table(("key", "takes", "what"), [(f"`{key.name}`", key.takes, key.help) for key in keys])


def _of_options(options: Iterable[Option]) -> str:
    rows = [(f"`{option.name}`", _TAKES[option.type], option.help) for option in options]
    return _table(("option", "takes", "what"), rows)


def _of_kinds() -> str:
    columns = ("kind", "command", "modes", "seeds", "controls", "compared by", "a cell for each")
    return _table(columns, [_kind(kind) for kind in KINDS_BY_NAME.values()])


def _kind(kind: Kind) -> tuple[str, ...]:
    has = ("yes" if value else "" for value in (kind.modes, kind.seeds, kind.controls))
    metrics = ", ".join(f"`{name}`" for name in kind.metrics)
    part = {"label": "label column", "transforms": "transform"}.get(kind.part, "")
    return (f"`{kind.name}`", f"`embank {' '.join(kind.words)}`", *has, metrics, part)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def written(page: str) -> str:
    """Return the page with its tables as the code has them.

    Raises:
        ValueError: a table has no place in the page, or a place has no table.
    """
    made = tables()
    for name, table in made.items():
        begin = _BEGIN.format(name)
        before, found, rest = page.partition(begin)
        _, end, after = rest.partition(_END)
        if not (found and end):
            raise ValueError(f"{PAGE.name} has no place for the table {name!r}")
        page = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    if page.count(_END) != len(made):
        raise ValueError(f"{PAGE.name} has {page.count(_END)} places for {len(made)} tables")
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
