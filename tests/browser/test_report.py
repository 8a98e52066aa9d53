"""The report page in a real browser, opened from the disk: what it asks for, shows, and lets a person do."""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.report.page.blocks import Block, Chart, DataTable, Details
from tests.browser.conftest import HOSTILE, LABELS, LONG, MODEL, Open, Opened, Report

pytestmark = pytest.mark.slow

SCHEMES = ("light", "dark")
_OPEN_ALL = "document.querySelectorAll('details').forEach(one => one.open = true)"
_OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
_BACKGROUND = "getComputedStyle(document.documentElement).backgroundColor"


def _tables(blocks: Iterable[Block]) -> Iterator[DataTable]:
    for block in blocks:
        if isinstance(block, DataTable):
            yield block
        elif isinstance(block, Details):
            yield from _tables(block.blocks)
        elif isinstance(block, Chart) and block.table is not None:
            yield block.table


def _table(report: Report, id: str) -> DataTable:
    every = [table for section in report.page.sections for table in _tables(section.blocks)]
    return next(table for table in every if table.id == id)


def _downloaded(opened: Opened, id: str, ending: str) -> str:
    with opened.page.expect_download() as waiting:
        opened.page.locator(f"#{id} [data-save={ending}]").click()
    assert waiting.value.suggested_filename == f"{id}.{ending}"
    return Path(waiting.value.path()).read_bytes().decode()


def _first_column(opened: Opened, id: str) -> list[str]:
    return opened.page.locator(f"#{id} tbody tr > :first-child").all_inner_texts()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_asks_for_nothing_and_complains_of_nothing(
    scheme: str, report: Report, open_page: Open
) -> None:
    with open_page(report.path, color_scheme=scheme) as opened:
        opened.page.evaluate(_OPEN_ALL)
        opened.page.wait_for_load_state("networkidle")
        assert opened.requests == [] and opened.messages == []
        assert opened.page.evaluate("window.pwned") is None


def test_the_policy_forbids_requests_and_foreign_scripts(
    report: Report, open_page: Open, tmp_path: Path
) -> None:
    """What the other tests listen for is heard: the same page, with a picture and a script of others."""
    changed = tmp_path / "changed.html"
    other = b"<img src='http://127.0.0.1:9/x.png'><script>window.pwned = 1</script></body>"
    changed.write_bytes(report.path.read_bytes().replace(b"</body>", other))
    with open_page(changed) as opened:
        text = " ".join(opened.messages)
        assert "img-src data:" in text and "script-src" in text
        assert opened.page.evaluate("window.pwned") is None


def test_hostile_names_are_shown_as_they_are(report: Report, open_page: Open) -> None:
    with open_page(report.path) as opened:
        opened.page.evaluate(_OPEN_ALL)
        text = opened.page.locator("main").inner_text()
        for name in (HOSTILE, LONG, MODEL, *LABELS):
            assert name in text
        assert "\u202e" not in opened.page.content()
        assert opened.page.locator("main img:not([src^='data:image/'])").count() == 0
        assert opened.page.locator("script").count() == 2  # its own, and its data


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (360, "light"),
        (1440, "dark"),
        pytest.param(360, "dark", marks=pytest.mark.thorough),
        pytest.param(1440, "light", marks=pytest.mark.thorough),
    ],
)
def test_axe_finds_nothing_serious(width: int, scheme: str, report: Report, open_page: Open) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with open_page(report.path, width, color_scheme=scheme) as opened:
        opened.page.evaluate(_OPEN_ALL)
        found: list[dict[str, Any]] = axe.run(opened.page).response["violations"]
        grave = [one for one in found if one["impact"] in ("serious", "critical")]
        assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in grave] == []


def test_axe_would_find_a_picture_without_words(report: Report, open_page: Open) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with open_page(report.path) as opened:
        opened.page.evaluate("document.querySelector('main img').removeAttribute('alt')")
        found = axe.run(opened.page, context="main figure.gallery").response["violations"]
        assert "image-alt" in [one["id"] for one in found]


def test_columns_sort_by_keyboard(report: Report, open_page: Open) -> None:
    table = _table(report, "table-errors")
    numeric = next(i for i, column in enumerate(table.columns) if column.title == "errors")
    numbers = [row[numeric].number for row in table.rows]
    with open_page(report.path) as opened:
        page = opened.page
        button = page.locator(f"#{table.id} th button[data-column='{numeric}']")
        head = page.locator(f"#{table.id} th:has(button[data-column='{numeric}'])")
        cells = page.locator(f"#{table.id} tbody tr > :nth-child({numeric + 1})")
        before = _first_column(opened, table.id)
        button.focus()
        for wanted, order in (
            ("descending", sorted((n for n in numbers if n is not None), reverse=True)),
            ("ascending", sorted(n for n in numbers if n is not None)),
        ):
            page.keyboard.press("Enter")
            assert head.get_attribute("aria-sort") == wanted
            shown = [text.split("\n")[0] for text in cells.all_inner_texts()]
            assert [float(text) for text in shown if text != "–"] == order
        page.keyboard.press("Space")
        assert head.get_attribute("aria-sort") is None
        assert _first_column(opened, table.id) == before


def test_the_table_of_cells_filters(report: Report, open_page: Open) -> None:
    table = _table(report, "table-cells-1")
    wanted = [row[1].text for row in table.rows if "saliency" in " ".join(value.text for value in row)]
    assert 0 < len(wanted) < len(table.rows)
    with open_page(report.path) as opened:
        opened.page.evaluate(_OPEN_ALL)
        opened.page.locator(f"#{table.id} [data-filter]").fill("SALIENCY")
        shown = opened.page.locator(f"#{table.id} tbody tr:visible > :nth-child(2)").all_inner_texts()
        assert shown == wanted
        assert f"{len(wanted)} of {len(table.rows)} rows" in opened.page.locator("#said").inner_text()


def test_csv_has_every_cell_in_full_precision(report: Report, open_page: Open) -> None:
    table = _table(report, "table-errors")
    with open_page(report.path) as opened:
        rows = list(csv.DictReader(io.StringIO(_downloaded(opened, table.id, "csv"))))
    names = [f"{c.group}: {c.title}" if c.group else c.title for c in table.columns]
    assert len(rows) == len(table.rows)
    for row, values in zip(rows, table.rows, strict=True):
        for name, column, value in zip(names, table.columns, values, strict=True):
            if column.numeric:
                assert (float(row[name]) if row[name] else None) == value.number
            else:
                assert row[name] == value.text.replace("\u202e", "\\u202e")


def test_latex_escapes_what_tex_would_read(report: Report, open_page: Open) -> None:
    table = _table(report, "table-errors")
    with open_page(report.path) as opened:
        text = _downloaded(opened, table.id, "tex")
    assert text.count("\\\\\n") >= len(table.rows) + 1 and "\\toprule" in text
    label = LABELS[1].replace("&", "\\&")
    assert label.split(" ")[-1] in text
    body = text[text.index("\\midrule") : text.index("\\bottomrule")]
    for line in body.splitlines()[1:]:
        assert line.replace("\\&", "").count("&") == len(table.columns) - 1


def test_the_theme_changes_by_its_button(report: Report, open_page: Open) -> None:
    with open_page(report.path, color_scheme="light") as opened:
        page = opened.page
        automatic = page.evaluate(_BACKGROUND)
        colours = []
        for _ in range(3):
            page.locator("#theme").press("Enter")
            colours.append(page.evaluate(_BACKGROUND))
        assert colours[0] == automatic == colours[2] and colours[1] != automatic


def test_it_prints_dark_on_white_without_its_buttons(report: Report, open_page: Open) -> None:
    with open_page(report.path, color_scheme="dark") as opened:
        page = opened.page
        assert page.locator("button:visible").count() > 3
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate(_BACKGROUND) == "rgb(255, 255, 255)"
        assert page.locator(".tools:visible, #theme:visible").count() == 0
        assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("width", [360, 800, 1440])
def test_nothing_is_wider_than_the_window(width: int, report: Report, open_page: Open) -> None:
    with open_page(report.path, width) as opened:
        assert opened.page.evaluate(_OVERFLOW) == 0
        opened.page.evaluate(_OPEN_ALL)
        assert opened.page.evaluate(_OVERFLOW) == 0


def test_without_scripts_everything_is_there(report: Report, open_page: Open) -> None:
    with open_page(report.path, java_script_enabled=False) as opened:
        page = opened.page
        assert page.locator(".needs-script:visible").count() == 0
        for section in report.page.sections:
            assert page.locator("h2", has_text=section.title).first.is_visible()
        tables = [table for section in report.page.sections for table in _tables(section.blocks)]
        assert page.locator("figure.table").count() == len(tables)
        assert page.locator("figure.table tbody tr").count() == sum(len(table.rows) for table in tables)
        folded = page.locator("details.more").first
        folded.locator("summary").first.press("Enter")
        assert folded.locator(".inside").first.is_visible()
        pictures = page.locator("figure.gallery img")
        assert pictures.count() > 5
