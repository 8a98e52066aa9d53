"""What may be imported where, as far as import-linter cannot see it (its rules are in pyproject.toml)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("stores", "engine", "benchmarks")
SOURCES = [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]
SOURCES.append(ROOT / "cli.py")


def loaded(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after a statement."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        # `--help` and a few-shot rerun stay under a second only without these.
        (
            "cli",
            {"torch", "torchvision", "nvidia", "pandas", "pyarrow", "zarr", "sklearn", "scipy", "matplotlib"},
        ),
        ("stores.read", {"torch", "nvidia", "pandas", "pyarrow", "zarr", "sklearn", "scipy"}),
        ("stores.manifest", {"torch", "nvidia", "zarr", "sklearn", "scipy"}),
        ("engine.datasets", {"torch", "nvidia", "sklearn", "skimage", "pooch"}),
        ("engine.decode", {"nvidia"}),
    ],
)
def test_import_is_light(module: str, absent: set[str]) -> None:
    names = loaded(f"import {module}")
    assert module.partition(".")[0] in names
    assert not names & absent


def cuda_uses(tree: ast.AST) -> Iterator[int]:
    """Lines that name `torch.cuda`, under whatever name torch was imported."""
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "torch"
    } | {"torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "cuda":
            if isinstance(node.value, ast.Name) and node.value.id in names:
                yield node.lineno
        elif isinstance(node, ast.Import):
            if any(f"{alias.name}.".startswith("torch.cuda.") for alias in node.names):
                yield node.lineno
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            named = {alias.name for alias in node.names}
            if f"{module}.".startswith("torch.cuda.") or (module == "torch" and "cuda" in named):
                yield node.lineno


def loads_dali(tree: ast.AST) -> Iterator[int]:
    """Lines that import DALI, by a statement or by its name in a call of `import_module` or `__import__`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            importing = called in ("import_module", "__import__")
            names = [text for text in texts if importing and isinstance(text, str)]
        else:
            continue
        if any(f"{name}.".startswith("nvidia.dali.") for name in names):
            yield node.lineno


@pytest.mark.parametrize(
    ("finder", "home"), [(cuda_uses, "engine/runtime.py"), (loads_dali, "engine/decode/dali.py")]
)
def test_one_file_knows_the_device_library(finder: object, home: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        if path != ROOT / home
        for line in finder(ast.parse(path.read_text(), str(path)))  # type: ignore[operator]
    }
    assert not found, f"belongs into {home}"
    assert list(finder(ast.parse((ROOT / home).read_text()))), "the finder finds where it is"  # type: ignore[operator]


@pytest.mark.parametrize(
    ("finder", "code", "count"),
    [
        (cuda_uses, "import torch\ntorch.cuda.is_available()", 1),
        (cuda_uses, "import torch as t\nt.cuda.Stream()", 1),
        (cuda_uses, "from torch import cuda", 1),
        (cuda_uses, "from torch.cuda.amp import autocast", 1),
        (cuda_uses, "import torch.cuda", 1),
        (cuda_uses, "tensor.cuda()\nself.cuda = 1\n'torch.cuda'", 0),
        (loads_dali, "import nvidia.dali.fn as fn", 1),
        (loads_dali, "def f():\n    from nvidia.dali import fn", 1),
        (loads_dali, "importlib.import_module('nvidia.dali')", 1),
        (loads_dali, "find_spec('nvidia.dali')\nimport nvidia_other", 0),
    ],
)
def test_finders(finder: object, code: str, count: int) -> None:
    assert len(list(finder(ast.parse(code)))) == count  # type: ignore[operator]
