"""The report page of many cells: seconds to make it, bytes, and its first paint in Chromium.

Cells are records of real evaluations (few-shot, k-NN, probes, comparisons) of drawn features, in banks that
are written as every bank is. Seconds are those of reading all records and making the page. The first paint
is what the browser says of itself (Paint Timing), from the start of the navigation to a file on the disk;
without Chromium it is left out, which the output states.
"""

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.common import Spread, finish, machine, markdown_table, parser, say
from engine.report.page.assemble import report_html
from engine.report.page.collect import bank_source
from engine.report.page.inputs import PageInput, PageOptions
from stores.bank.keys import ChunkResult, FeatureKey
from stores.bank.reader import Bank
from stores.bank.record_index import read_index
from stores.bank.writer import FeatureWriter, open_or_create
from stores.manifest.manifest import Manifest

#: Images of a data set, dimension of its features, and seeds of each few-shot protocol.
ROWS, DIM, SEEDS = 120, 16, 2
_CLASSES = ("normal", "pneumonia", "effusion")
_ENTRIES = "performance.getEntriesByType('paint').map(e => [e.name, e.startTime])"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def made_bank(path: Path, models: int, seed: int) -> Bank:
    """Write a bank of one data set with features of `models` models that know the classes more or less."""
    import pandas as pd

    rows = np.arange(ROWS)
    frame = pd.DataFrame(
        {
            "image_id": [f"image {row:05d}" for row in rows],
            "uri": [f"{row:05d}.png" for row in rows],
            "label": [_CLASSES[row % 3] for row in rows],
            "split": [("train", "train", "val", "test", "test")[row // 6 % 5] for row in rows],
            "group": [f"patient {row // 2}" for row in rows],
        }
    )
    bank = open_or_create(path, Manifest.from_frame(frame, path.parent / "images"), chunk_rows=ROWS)
    generator = np.random.default_rng(seed)
    for number in range(models):
        features = generator.normal(size=(ROWS, DIM)).astype(np.float32)
        features[rows, rows % 3] += 3 * number / models
        _fill(bank, f"bench/model-{number:02d}", features)
    return bank


def _fill(bank: Bank, model: str, features: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    key = FeatureKey(
        model=model,
        weights="w" * 64,
        architecture="drawn",
        recipe="r" * 64,
        precision="fp32",
        decoder="reference",
        layer="gap",
        images=bank.image_digest,
    )
    with FeatureWriter(bank, key, features.shape[1]) as writer:
        for index in writer.todo:
            start, stop = writer.bounds(index)
            writer.commit(ChunkResult(index, features[start:stop], np.ones(stop - start, np.bool_), ()))
        writer.seal()


def evaluate(bank: Bank, models: Sequence[str]) -> None:
    """Keep records of all models: few-shot in both modes, k-NN and probes, and comparisons of them."""
    from engine.evals.fewshot.bank import fewshots_from_bank
    from engine.evals.fewshot.evaluate import Protocol
    from engine.evals.neighbours.knn import knn_from_bank
    from engine.evals.neighbours.options import KnnOptions
    from engine.evals.probe.bank import probes_from_bank
    from engine.study.comparing import comparison_records

    home = str(bank.path)
    for mode in ("default", "as-published"):
        for seed in range(SEEDS):
            protocol = Protocol(n_way=3, n_shot=2, n_query=2, episodes=100, seed=seed, mode=mode)
            fewshots_from_bank(home, models, protocol, device="cpu")
    for model in models:
        knn_from_bank(home, model, KnnOptions(k=(5,), device="cpu"))
    probes_from_bank(home, models)
    for entry in comparison_records(home, read_index(home)):
        assert entry.record is not None
        entry.record.write(home)


def run(datasets: int, models: int, repeats: int, folder: Path | None = None) -> dict[str, Any]:
    """Make the page of all records `repeats` times, and open it as often.

    Args:
        datasets, models: of the study; each pair has six cells, and each data set comparisons.
        folder: for banks and page; None takes a temporary one.

    Returns:
        `{cells, datasets, models, repeats, machine, bytes, seconds, cpu_seconds, first_paint,
        first_contentful_paint}`, seconds as {n, median, min, max}; the paints are None without a browser.
    """
    with tempfile.TemporaryDirectory() as temporary:
        home = folder or Path(temporary)
        banks = [home / f"set-{number}.bank" for number in range(datasets)]
        for number, path in enumerate(banks):
            if not path.exists():
                say(f"writing {path.name}")
                bank = made_bank(path, models, seed=number)
                evaluate(bank, [info.name for info in bank.list()])
        timed, cells, page = _timed(banks, repeats)
        file = home / "report.html"
        file.write_bytes(page)
        return {
            "cells": cells,
            "datasets": datasets,
            "models": models,
            "repeats": repeats,
            "machine": machine(),
            "bytes": len(page),
            **{name: Spread.of(values) for name, values in timed.items()},
            **_paints(file, repeats),
        }


def _timed(banks: Sequence[Path], repeats: int) -> tuple[dict[str, list[float]], int, bytes]:
    """Return the seconds of each repetition, by the clock and of the processor; number of cells; the page."""
    timed: dict[str, list[float]] = {"seconds": [], "cpu_seconds": []}
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        sources = tuple(bank_source(path)[0] for path in banks)
        page = report_html(PageInput("A study", sources), PageOptions())
        timed["seconds"].append(time.perf_counter() - start)
        timed["cpu_seconds"].append(time.process_time() - cpu)
    return timed, sum(len(source.entries) for source in sources), page


def _paints(file: Path, repeats: int) -> dict[str, Spread | None]:
    """Return the seconds from the navigation to the first paints of a file in Chromium."""
    names = ("first-paint", "first-contentful-paint")
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    paints: dict[str, list[float]] = {name: [] for name in names}
    if program is not None:
        try:
            from playwright.sync_api import sync_playwright
        except ImportError:
            program = None
    for _ in range(repeats if program else 0):
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(file.as_uri())
            entries: list[tuple[str, float]] = []
            while len(entries) < len(names):  # the page's policy forbids what playwright waits with
                page.wait_for_timeout(20)
                entries = page.evaluate(_ENTRIES)
            for name, start in entries:
                paints[name].append(start / 1000)
            browser.close()
    return {name.replace("-", "_"): Spread.of(times) if times else None for name, times in paints.items()}


def _table(result: dict[str, Any]) -> str:
    head = (
        f"{result['cells']:,} cells: {result['models']} models x {result['datasets']} data sets x 6, and "
        f"comparisons; the page has {result['bytes'] / 1e6:.2f} MB\n\n"
    )
    paint = {name: result[name] for name in ("first_paint", "first_contentful_paint")}
    lines = [["reading the records and making the page", str(result["seconds"])]]
    lines += [["the same, of the processor", str(result["cpu_seconds"])]]
    lines += [[name.replace("_", " "), str(value or "no browser here")] for name, value in paint.items()]
    return head + markdown_table(["", "seconds"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--datasets", type=int, default=8)
    options.add_argument("--models", type=int, default=20)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--folder", type=Path, help="for banks and page; banks there are taken as they are")
    args = options.parse_args(argv)
    result = run(args.datasets, args.models, args.repeats, args.folder)
    finish(result, _table(result), args)


if __name__ == "__main__":
    main()
