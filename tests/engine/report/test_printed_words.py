"""The words of printed tables and lines are those of the documentation, not those of the code."""

import ast
import re
from pathlib import Path

import pytest

import engine.report

TEXTS = sorted(Path(engine.report.__path__[0]).glob("*_text.py"))
#: Words of the code and of JSON documents -> the word that users read.
READ_AS = {"masked": "missing", "sealed": "finished", "starved": "waiting", "per class": "balanced accuracy"}


def printed(source: str) -> list[str]:
    """Return the text constants that can be printed: neither docstrings nor keys that are looked up."""
    tree = ast.parse(source)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            skipped.add(id(node.value))
        elif isinstance(node, ast.Subscript):
            skipped.add(id(node.slice))
        elif isinstance(node, ast.Compare):
            skipped.add(id(node.left))
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped
    ]


def test_keys_and_docstrings_are_not_printed() -> None:
    source = '"""A masked text."""\nif "masked" in r:\n    print(f"{r[\'masked\']} sealed")\n'
    assert printed(source) == [" sealed"]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_no_word_of_the_code_is_printed(path: Path) -> None:
    for text in printed(path.read_text("utf-8")):
        for word, better in READ_AS.items():
            assert not re.search(rf"\b{word}\b", text), f"{text!r}: say {better!r}"
