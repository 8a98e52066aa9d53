"""From image files to results on the pretended device, by the command line, against the same on the CPU."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.runtime import cuda_available
from stores.bank.reader import Bank
from tests.command import embank
from tests.pretended.session import pretend

pytestmark = pytest.mark.slow

MODEL = "random/resnet18"
IMAGES = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two banks of the same 48 pictures of three classes, made on the CPU and on the pretended device."""
    if cuda_available():
        pytest.skip("a CUDA device is here")
    root = tmp_path_factory.mktemp("pretended")
    y, x = np.mgrid[:40, :40]
    rows = [("uri", "label", "split", "group")]
    for i in range(IMAGES):
        stripes = np.sin((x, y, x + y)[i % 3] / 2.0) * 60 + 128
        noise = np.random.default_rng(i).normal(0, 25, (40, 40, 3))
        pixels = (stripes[..., None] + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.{'jpg' if i % 2 else 'png'}", quality=95)
        split = ("train", "train", "val", "test")[i // 3 % 4]
        rows.append((f"{i}.{'jpg' if i % 2 else 'png'}", "abc"[i % 3], split, f"patient {i // 2}"))
    with (root / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (root / "recipe.json").write_text(json.dumps({"size": 32, "crop": 32}))
    columns = [word for name in ("label", "split", "group") for word in (f"--{name}", name)]
    manifest = ("manifest", "table", root / "table.csv", *columns, "--root", root, "-o", root / "m.parquet")
    assert embank(*manifest).code == 0
    _embed(root, "cpu", "fp32")
    with pretend():
        _embed(root, "cuda", "fp32")
        yield root


def _embed(root: Path, device: str, precision: str) -> Path:
    bank = root / f"{device}-{precision}"
    words = ("--model", MODEL, "--recipe", root / "recipe.json", "--decoder", "turbo", "--batch-size", 16)
    more = ("--device", device, "--precision", precision, "--dtype", "float32")
    ran = embank("embed", root / "m.parquet", "--bank", bank, *words, *more)
    assert ran.code == 0, ran.err
    return bank


def _features(bank: Path) -> np.ndarray:
    return np.asarray(Bank.open(bank).features(MODEL).array, np.float64)


@pytest.mark.parametrize(("precision", "apart"), [("fp32", 1e-6), ("bf16", 0.03), ("fp16", 3e-3)])
def test_a_bank_made_on_the_device_is_the_cpus(precision: str, apart: float, folder: Path) -> None:
    bank = folder / "cuda-fp32" if precision == "fp32" else _embed(folder, "cuda", precision)
    found, truth = _features(bank), _features(folder / "cpu-fp32")
    error = np.linalg.norm(found - truth, axis=1) / np.linalg.norm(truth, axis=1)
    assert error.max() <= apart
    assert precision == "fp32" or error.max() > 0


EVALUATIONS = {
    "fewshot": ("fewshot", "--n-way", 3, "--n-shot", 4, "--n-query", 4, "--episodes", 20),
    "knn": ("knn", "-k", 5),
    "knn, euclidean": ("knn", "-k", 5, "--distance", "euclidean", "--leave-one-out"),
    "search": ("search", "--id", "3.jpg", "-k", 7),
    "audit": ("bank", "audit", "--threshold", 0.9),
    "probe": ("probe", "--values", 4, "--bootstrap", 0),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_on_the_device_is_the_cpus(name: str, folder: Path) -> None:
    results = {}
    for device in ("cpu", "cuda"):
        words = list(EVALUATIONS[name])
        at = 2 if words[0] == "bank" else 1
        words[at:at] = [folder / "cuda-fp32", "--model", MODEL]
        ran = embank(*words, "--device", device, "--json")
        assert ran.code == 0, ran.err
        results[device] = _numbers(ran.json)
    assert results["cuda"] == pytest.approx(results["cpu"], abs=1e-3)
    assert len(results["cpu"]) > 3


def _numbers(report: Any, place: str = "") -> dict[str, float]:
    """Every number of a report but seconds and counts of work, by where it is."""
    if isinstance(report, dict):
        parts = {f"{place}/{key}": value for key, value in report.items()}
    elif isinstance(report, list):
        parts = {f"{place}/{at}": value for at, value in enumerate(report)}
    else:
        fine = isinstance(report, int | float) and not isinstance(report, bool)
        return {place: float(report)} if fine else {}
    skipped = ("seconds", "searched_again", "iterations", "gradient", "stages", "flops")
    return {
        name: value
        for key, part in parts.items()
        if not any(word in key for word in skipped)
        for name, value in _numbers(part, key).items()
    }
