"""Throughput compared with the usual alternatives, one script per subject; `embank bench NAME`."""

import ast
from pathlib import Path

#: Modules used by the scripts.
_PARTS = {"__init__", "common", "crowd", "simulate"}


def subjects() -> dict[str, str]:
    """Return name -> summary of each script, without importing them."""
    files = sorted(path for path in Path(__file__).parent.glob("*.py") if path.stem not in _PARTS)
    return {path.stem: _first_line(path) for path in files}


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]
