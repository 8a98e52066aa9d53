"""Numbers beyond all reason, for every option that takes one: refused with words, and nothing is changed."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

import cli
from stores import limits
from stores.errors import Refused
from tests.command import Ran, embank

ROOT = Path(__file__).parents[1]
WHOLE = (-1, 10**12, 2**70, 10**30)
BROKEN = ("nan", "inf", "-inf", "-1", "1e308")
#: Whole numbers that are absurd elsewhere and all right here.
FINE = {("seed", 10**12)}
MODEL = ["--model", "random/squeezenet1_1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 40 small images in three splits, and their bank."""
    place = tmp_path_factory.mktemp("absurd")
    generator, rows = np.random.default_rng(0), ["path,finding,split,patient"]
    (place / "images").mkdir()
    for i in range(40):
        image = generator.integers(0, 120, (24, 24, 3)) + 100 * (i % 2)
        Image.fromarray(image.astype(np.uint8)).save(place / "images" / f"{i}.png")
        rows.append(f"{i}.png,{'ab'[i % 2]},{('train', 'train', 'val', 'test')[i // 2 % 4]},p{i // 2}")
    (place / "t.csv").write_text("\n".join(rows))
    (place / "recipe.json").write_text(json.dumps({"size": 32, "crop": 32}))
    (place / "s.yaml").write_text(
        "{study: s, datasets: {m: {bank: bank}}, models: [random/squeezenet1_1], evaluations: [audit]}"
    )
    columns = ["--uri", "path", "--label", "finding", "--split", "split", "--group", "patient"]
    words = [
        "manifest",
        "table",
        place / "t.csv",
        *columns,
        "--root",
        place / "images",
        "-o",
        place / "m.parquet",
    ]
    assert embank(*words).code == 0
    ran = embank(*command(place, "embed"))
    assert ran.code == 0, ran.err
    return place


def command(place: Path, name: str) -> list[object]:
    """A command that succeeds; every command that takes a number has one."""
    bank, manifest = place / "bank", place / "m.parquet"
    embed = ["embed", manifest, *MODEL, "--recipe", place / "recipe.json", "--bank", bank, "--device", "cpu"]
    few = ["--n-way", 2, "--n-shot", 2, "--n-query", 2]
    return {
        "": ["bank", "ls", bank],
        "embed": embed,
        "manifest split": [
            "manifest",
            "split",
            manifest,
            "--folds",
            5,
            "--replace-split",
            "-o",
            place / "s.parquet",
        ],
        "bank audit": ["bank", "audit", bank, *MODEL, "--device", "cpu"],
        "bank scatter": ["bank", "scatter", bank, *MODEL, "-o", place / "new.png"],
        "compare": ["compare", bank],
        "fewshot": ["fewshot", bank, *MODEL, *few],
        "finetune": ["finetune", *embed[1:], "--steps", 1, "--batch-size", 4],
        "knn": ["knn", bank, *MODEL, "--leave-one-out", "--device", "cpu"],
        "probe": ["probe", bank, *MODEL, "--device", "cpu", "--low-shot", "1,2"],
        "search": ["search", bank, *MODEL, "--id", "0.png", "--device", "cpu"],
        "saliency": ["saliency", bank, *MODEL, "--device", "cpu", "--images", 1],
        "reconstruct": ["reconstruct", bank, *MODEL, "--device", "cpu", "--images", 1, "--steps", 1],
        "perceptual": ["perceptual", place, place, "--net", "alex", "--device", "cpu"],
        "invariance": ["invariance", bank, *MODEL, "--device", "cpu", "--transform", "rotation"],
        "study run": ["study", "run", place / "s.yaml", "--dir", place / "s", "--device", "cpu"],
    }[name]


def numeric() -> Iterator[tuple[str, str, str, bool]]:
    """Command, option, its parameter's name, and whether it is a whole number; of the program as it is."""

    def walk(group: Any, path: list[str]) -> Iterator[tuple[str, str, str, bool]]:
        for option in group.params:
            kind = option.type.name  # "integer", "integer range", "float", ...
            if kind.startswith(("int", "float")):
                yield " ".join(path), option.opts[-1], str(option.name), kind.startswith("int")
        for name, each in getattr(group, "commands", {}).items():
            yield from walk(each, [*path, name])

    yield from walk(typer.main.get_command(cli.app), [])


NUMERIC = sorted(numeric())


def state(place: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()}


def refused(ran: Ran, words: object) -> None:
    assert ran.code == 2, (words, ran.code, ran.err)
    assert "Traceback" not in ran.err
    assert "remedy:" in ran.err or "Invalid value" in ran.err, ran.err


def test_the_program_has_numbers() -> None:
    assert len(NUMERIC) > 30
    assert ("probe", "--c-max", "c_max", False) in NUMERIC
    assert ("", "--store-timeout", "store_timeout", False) in NUMERIC


@pytest.mark.parametrize(("name", "option", "parameter", "whole"), NUMERIC)
def test_absurd_numbers_are_refused(place: Path, name: str, option: str, parameter: str, whole: bool) -> None:
    before = state(place)
    for value in WHOLE if whole else BROKEN:
        if (parameter, value) in FINE:
            continue
        own = [option, value]
        base = command(place, name)
        words = [*own, *base] if not name else [*base, *own]
        refused(embank(*words), words)
    assert state(place) == before


TEXTS = [
    ("probe", "--low-shot", ["1,10000000000", "9" * 5000, "0", "-1", "1,,2", "1e3"]),
    (
        "invariance",
        "--shrinkage",
        ["ridge=1.2.3", "ridge=1e999", "ridge=0", "ridge=nan", "components=1" + "0" * 400],
    ),
    ("saliency", "--fill", ["256,0,0", "nan,0,0", f"{'9' * 5000},0,0"]),
    ("embed", "--depth", ["window:nan,1", "window:0,1e999", "window:1,0", "window:1"]),
    ("embed", "--device", ["cuda:99999999999999999999", "cuda:-1", "gpu"]),
]


@pytest.mark.parametrize(("name", "option", "value"), [(n, o, v) for n, o, vs in TEXTS for v in vs])
def test_absurd_numbers_in_texts_are_refused(place: Path, name: str, option: str, value: str) -> None:
    refused(embank(*command(place, name), option, value), value[:40])


@pytest.mark.parametrize("seed", ["-1", str(2**63), "9" * 5000, "1.5"])
def test_seeds_of_data_sets(tmp_path: Path, seed: str) -> None:
    from engine.datasets._splits import seed_of

    with pytest.raises(Refused):
        seed_of(seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fewshot", "probe", "invariance", "saliency", "embed"])
def test_the_largest_seed_is_one(place: Path, name: str, tmp_path: Path) -> None:
    words = command(place, name)
    if name == "embed":
        words[words.index(place / "bank")] = tmp_path / "bank"
    if name == "invariance":
        words += ["--images", 2, "--views", 2, "--shrinkage", "ridge=1"]
    ran = embank(*words, "--seed", limits.MAX_SEED)
    assert ran.code == 0, ran.err


def test_numbers_are_checked_for_what_they_are() -> None:
    limits.check_whole("n", np.int64(3), 1, 3)
    for value in (True, 2.0, "2", None, 4, 10**5000):
        with pytest.raises(Refused):
            limits.check_whole("n", value, 1, 3)


def test_memory_that_is_not_there_is_refused() -> None:
    limits.check_memory(1 << 20, "a little", "")
    with pytest.raises(Refused, match=r"GiB are available"):
        limits.check_memory(1 << 50, "a lot", "ask for less")
    assert 2**26 < limits.available_memory() < 2**50


def test_a_limit_of_the_process_is_known() -> None:
    code = "from stores import limits; print(int(limits.available_memory()))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )  # fmt: skip
    assert 0 < int(run.stdout) < 1 << 30


def test_an_audit_of_everything_is_not_stalled(place: Path) -> None:
    ran = embank(*command(place, "bank audit"), "--threshold", "1e-300", "--max-pairs", 10_000_000, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["pairs"] <= 40 * 39 // 2
