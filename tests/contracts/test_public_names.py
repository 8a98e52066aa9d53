"""What `import embank` gives: each name is the engine's own, and its types are seen by a type checker."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import embank

ROOT = Path(__file__).parents[2]
PROMISED = {"Manifest", "Bank", "Features", "embed", "fewshot", "knn", "probe"} | {
    *("invariance", "saliency", "reconstruct", "search", "models", "datasets", "__version__")
}
TREE = ast.parse(Path(inspect.getsourcefile(embank)).read_text())


def typed() -> dict[str, tuple[str, str]]:
    """Public name -> (module, name there), as the imports for type checkers say."""
    (block,) = [
        node
        for node in TREE.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    return {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_it_is_this_source() -> None:
    assert Path(inspect.getsourcefile(embank)).resolve() == ROOT / "engine" / "embank" / "__init__.py"


def test_every_promised_name_is_public_and_listed() -> None:
    assert PROMISED <= set(embank.__all__) <= set(dir(embank))
    assert set(typed()) | {"__version__"} == set(embank.__all__)


@pytest.mark.parametrize("name", sorted(typed()))
def test_a_name_is_what_a_type_checker_takes_it_for(name: str) -> None:
    module, there = typed()[name]
    parent = importlib.import_module(module)
    expected = getattr(parent, there, None) or importlib.import_module(f"{module}.{there}")
    assert getattr(embank, name) is expected
    if callable(expected) and module != "stores.errors":
        assert expected.__doc__, "described where it is made"


def test_the_docstring_has_every_name() -> None:
    options = {
        *("FinetuneOptions", "InvarianceOptions", "KnnOptions", "PerceptualOptions"),
        *("ProbeOptions", "Protocol", "ReconstructionOptions", "SaliencyOptions"),
    }
    rows = [line.split("|")[1] for line in embank.__doc__.splitlines() if line.startswith("|")][2:]
    assert {word for row in rows for word in row.replace("`", "").replace(",", "").split()} == (
        set(embank.__all__) - options - {"__version__"}
    )
    assert all(name in embank.__doc__ for name in options)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        embank.nonsense  # noqa: B018
    with pytest.raises(ImportError):
        from embank import nonsense  # noqa: F401


def test_its_packages_tell_type_checkers_so() -> None:
    for package in ("engine", "engine/embank", "stores"):
        assert (ROOT / package / "py.typed").is_file()
