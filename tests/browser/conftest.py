"""A report page of hostile names, and Chromium to open it in; skipped, visibly, where there is none."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.report.page.assemble import page_of, report_html
from engine.report.page.blocks import Page
from engine.report.page.inputs import Gap, PageInput, PageOptions, Source
from stores.backends.location import place
from stores.bank.record_index import read_index
from stores.manifest.manifest import Manifest
from tests.command import embank

#: Names of browsers, the first one on PATH is taken.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: What a page must not run, wherever a name comes from.
HOSTILE = "<script>window.pwned=1</script>"
BROKEN_OUT = "\"><img src=x onerror=window.pwned=1> '&amp;"
RIGHT_TO_LEFT = "שלום\u202egpj.exe"
LONG = "a-very-long-name-" * 14
MODEL = "m<img src=x onerror=window.pwned=1>"
LABELS = (HOSTILE, BROKEN_OUT)
ROWS = 48


@dataclass(frozen=True)
class Report:
    """A page on disk.

    Attributes:
        path: of the file.
        page: what it shows.
    """

    path: Path
    page: Page


def _bank(root: Path) -> Path:
    """Make a bank of an untrained network, with records of most kinds."""
    generator = np.random.default_rng(0)
    frame: dict[str, list[str]] = {"image_id": [], "uri": [], "label": [], "split": [], "group": []}
    for row in range(ROWS):
        path = root / "images" / f"{row:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # What tells the classes apart is their brightness, and that a little only.
        pixels = generator.integers(0, 200 + 55 * (row % 2), (40, 40, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        frame["image_id"].append(f"{HOSTILE} {row}" if row % 7 else f"{LONG} {row}")
        frame["uri"].append(path.name)
        frame["label"].append(LABELS[row % 2])
        frame["split"].append(("train", "train", "val", "test")[row // 2 % 4])
        frame["group"].append(f"patient {row // 2}")
    import pandas as pd

    Manifest.from_frame(pd.DataFrame(frame), root / "images").write(root / "m.parquet")
    (root / "recipe.json").write_text(json.dumps({"size": 32, "crop": 32}))
    bank, model = root / "bank", ("--model", MODEL)
    slug = ("--model", "random/squeezenet1_1", "--name", MODEL, "--recipe", root / "recipe.json")
    commands: tuple[tuple[object, ...], ...] = (
        ("embed", root / "m.parquet", "--bank", bank, *slug, "--device", "cpu", "--threads", 1, "--certify"),
        ("knn", bank, *model, "--k", 3),
        ("fewshot", bank, *model, "--n-shot", 2, "--n-query", 2, "--episodes", 20, "--controls"),
        ("probe", bank, *model, "--bootstrap", 50, "--values", 5),
        ("saliency", bank, *model, "--size", 16, "--stride", 16, "--images", 2),
        ("invariance", bank, *model, "--transform", "h_flip", "--images", 10),
    )
    for words in commands:
        ran = embank(*words)
        assert ran.code == 0, ran.err
    return bank


def _page_input(bank: Path) -> PageInput:
    """Return records of the bank, once more under names that no bank would give, and gaps."""
    entries = [entry for entry in read_index(bank) if entry.record and entry.record.kind != "embed"]
    for number, name in enumerate((HOSTILE, RIGHT_TO_LEFT, LONG)):
        for entry in entries[:3]:
            record = entry.record
            assert record is not None
            changed = replace(
                record,
                asked={**record.asked, "model": name},
                used={**record.used, "title": name, "feature": ""},
                predictions={},
            )
            entries.append(replace(entry, id=f"{number}{entry.id[1:]}", record=changed, model=name))
    gap = Gap(BROKEN_OUT, HOSTILE, "probe", "default", 0, "failed", RIGHT_TO_LEFT, BROKEN_OUT)
    sources = (Source(HOSTILE, place(bank), tuple(entries)), Source(LONG, place(bank), tuple(entries[:3])))
    return PageInput(f"{BROKEN_OUT} {LONG}", sources, gaps=(gap,), study=f"study: {HOSTILE}\n")


@pytest.fixture(scope="session")
def program() -> str:
    """Return the browser; what needs it, or what is opened in it, is skipped where there is none."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on PATH")
    return path


@pytest.fixture(scope="module")
def report(program: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    root = tmp_path_factory.mktemp("report")
    page, options = _page_input(_bank(root)), PageOptions(thumbnails=True)
    path = root / "report.html"
    path.write_bytes(report_html(page, options))
    return Report(path, page_of(page, options))


@dataclass
class Opened:
    """The page in a browser, with what it did beside showing itself.

    Attributes:
        page: of playwright.
        requests: addresses other than the file's own.
        messages: of the console, uncaught errors, and violations of the content security policy.
    """

    page: Any
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


Open = Callable[..., Any]


@pytest.fixture(scope="module")
def open_page(program: str) -> Iterator[Open]:
    """Give a context manager that opens a file: `open_page(path, width=1440, **settings)`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])

        @contextmanager
        def opened(path: Path, width: int = 1440, **settings: Any) -> Iterator[Opened]:
            context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
            one = Opened(context.new_page())
            one.page.on("console", lambda message: one.messages.append(f"{message.type}: {message.text}"))
            one.page.on("pageerror", lambda error: one.messages.append(f"error: {error}"))
            one.page.on("dialog", lambda dialog: (one.messages.append("a dialog"), dialog.dismiss()))
            own = path.as_uri()
            one.page.on(
                "request",
                lambda request: request.url.startswith((own, "data:")) or one.requests.append(request.url),
            )
            one.page.goto(own)
            yield one
            context.close()

        yield opened
        browser.close()
