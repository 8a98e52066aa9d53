"""What may be imported where, as far as import-linter cannot see it (its rules are in pyproject.toml)."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision import models

from tests.command import embank

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
        ("stores.bank.reader", {"torch", "nvidia", "pandas", "pyarrow", "zarr", "sklearn", "scipy"}),
        ("stores.manifest.manifest", {"torch", "nvidia", "zarr", "sklearn", "scipy"}),
        ("engine.datasets", {"torch", "nvidia", "sklearn", "skimage", "pooch"}),
        ("engine.decode", {"nvidia"}),
        ("embank", {"stores", "engine", "numpy", "torch", "nvidia", "pandas", "pyarrow", "zarr", "sklearn"}),
    ],
)
def test_import_is_light(module: str, absent: set[str]) -> None:
    names = loaded(f"import {module}")
    assert module.partition(".")[0] in names
    assert not names & absent


def test_public_names_cost_what_they_need() -> None:
    names = loaded(
        "import embank; embank.Bank, embank.fewshot, embank.datasets, embank.__version__, dir(embank)"
    )
    assert not names & {"torch", "torchvision", "nvidia", "pandas", "pyarrow", "zarr", "sklearn"}


def finished(words: list[str], cache: str) -> tuple[dict[str, Any], set[str]]:
    """What a command says in a fresh interpreter, but for its seconds; and top-level modules afterwards."""
    code = (
        "import sys, cli\n"
        "try:\n    cli.main()\n"
        "finally:\n    print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "EMBANK_CACHE": cache},
    )
    said = json.loads(done.stdout)
    return {**said, "seconds": 0, "stages": 0}, set(done.stderr.splitlines()[-1].split())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["random/shufflenet_v2_x0_5", "torchvision/resnet18", "efficientnet-lite0"])
def test_a_finished_bank_is_gone_through_without_torch(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if model == "efficientnet-lite0":
        pytest.importorskip("timm")
    cache = str(tmp_path / "cache")
    monkeypatch.setenv("EMBANK_CACHE", cache)
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 40), "grey").save(folder / "0.png")
    assert embank("manifest", "folder", folder.parent, "-o", tmp_path / "m.parquet").code == 0
    words = ["embed", tmp_path / "m.parquet", "--model", model, "--bank", tmp_path / "bank", "--json"]
    words += ["--device", "cpu", "--dtype", "float32"]  # random weights give small numbers
    if model == "torchvision/resnet18":
        torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "w.pth")
        words += ["--weights", tmp_path / "w.pth"]
    first = embank(*words).json
    assert first["embedded"] == 1
    again = [str(word) for word in words]
    said, names = finished(again, cache)
    heavy = {"torch", "torchvision", "timm", "transformers", "sklearn", "scipy", "zarr"}
    assert names & heavy == set()
    assert said == {**first, "embedded": 0, "img_per_s": 0, "seconds": 0, "stages": 0}
    if not model.startswith("random/"):
        return  # the rest is the same code, after seconds of imports
    without, names = finished(again, "")
    assert "torch" in names, "what is not kept is found"
    assert without == said


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
    ("finder", "home"), [(cuda_uses, "engine/runtime"), (loads_dali, "engine/decode/dali/graph.py")]
)
def test_one_place_knows_the_device_library(finder: object, home: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        if path != ROOT / home and ROOT / home not in path.parents
        for line in finder(ast.parse(path.read_text(), str(path)))  # type: ignore[operator]
    }
    assert not found, f"belongs into {home}"
    files = sorted((ROOT / home).glob("*.py")) or [ROOT / home]
    uses = [line for file in files for line in finder(ast.parse(file.read_text()))]  # type: ignore[operator]
    assert uses, "the finder finds where it is"


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
