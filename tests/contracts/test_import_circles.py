"""No circle of files: whatever a file imports, at its top, in a function or for type checking, lies below it.

import-linter keeps the order of packages; this keeps that of files. Nobody imports `cli`, which import-linter
sees to.
"""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest


def circle(*packages: str) -> list[str]:
    """Modules of a ring of imports, the first named again at its end; none if there is no ring."""
    graph = grimp.build_graph(*packages, exclude_type_checking_imports=False, cache_dir=None)
    below = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_file_is_in_a_circle() -> None:
    assert circle("benchmarks", "engine", "stores") == []


@pytest.mark.parametrize(
    ("name", "above", "below", "ring"),
    [
        ("plain", "from {0}.b import x", "x = 1", False),
        ("top", "from {0} import b", "from {0} import a", True),
        ("function", "import {0}.b", "def f():\n    from {0}.a import x", True),
        (
            "typing",
            "import {0}.b",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {0}.a import x",
            True,
        ),
    ],
)
def test_circles_of_every_kind_are_seen(
    name: str, above: str, below: str, ring: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"ring_{name}"  # a name each: Python remembers modules
    folder = tmp_path / package
    folder.mkdir()
    for file, text in (("__init__", ""), ("a", above), ("b", below)):
        (folder / f"{file}.py").write_text(text.format(package) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(circle(package)) == ({f"{package}.a", f"{package}.b"} if ring else set())
