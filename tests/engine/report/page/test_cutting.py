"""The page within its bytes: measured, cut evenly, honest about what is left out, and never refused."""

import re

import pytest

from engine.report.page.blocks import (
    Block,
    Chart,
    Column,
    DataTable,
    Details,
    Gallery,
    Page,
    Paragraph,
    Picture,
    Section,
    Value,
)
from engine.report.page.cutting import within
from engine.report.page.render import render_page


def _table(name: str, rows: int) -> DataTable:
    cells = tuple((Value(f"model {row}"), Value("0.123", 0.123)) for row in range(rows))
    return DataTable(name, "a caption", (Column("model"), Column("accuracy", True)), cells)


def _chart(name: str, size: int, table: DataTable | None) -> Chart:
    return Chart(name, f"title of {name}", f'<svg><path d="{"M0 0" * (size // 4)}"/></svg>', "alt", table)


def _page(*blocks: Block, kept: tuple[Block, ...] = ()) -> Page:
    verdict = (Paragraph("densenet is better than vgg."),)
    sections = (Section("results", "Results", kept), Section("cells", "Cells", blocks))
    return Page("a page", verdict, sections, ("made by a test",))


def _blocks(page: Page) -> tuple[Block, ...]:
    return page.sections[-1].blocks


def test_a_page_that_fits_is_not_touched() -> None:
    page = _page(_table("a", 50))
    document = render_page(page)
    assert within(page, len(document)) == (page, document)


@pytest.mark.parametrize("share", [0.9, 0.6, 0.4])
def test_a_page_is_cut_to_its_bytes_and_small_blocks_stay(share: float) -> None:
    small, large = _table("small", 5), _table("large", 3000)
    inner = Details("more", "More", (_table("inner", 3000),))
    page = _page(small, large, inner, _chart("curves", 400, None))
    most = int(share * len(render_page(page)))
    cut, document = within(page, most)
    assert 0.8 * most < len(document) <= most
    first, second, third, fourth = _blocks(cut)
    assert (first, fourth) == (small, _blocks(page)[-1])
    assert isinstance(second, DataTable)
    assert isinstance(third, Details)
    (deep,) = third.blocks
    assert isinstance(deep, DataTable)
    for table in (second, deep):
        assert table.rows == large.rows[: len(table.rows)]
        assert table.notes == (
            f"To keep the page small {3000 - len(table.rows):,} rows are left out; "
            "`embank report --tables` writes them all.",
        )
    assert len(second.rows) == pytest.approx(len(deep.rows), rel=0.05)


def test_charts_are_left_out_before_their_numbers() -> None:
    page = _page(_chart("with", 60_000, _table("numbers", 3)), _chart("without", 60_000, None))
    cut, document = within(page, len(render_page(page)) - 80_000)
    first, second = _blocks(cut)
    assert isinstance(first, DataTable)
    assert first.caption == "title of with: not drawn, to keep the page small. a caption"
    assert second == Paragraph("title of without: not drawn, to keep the page small.")
    assert b"M0 0M0 0" not in document


def test_galleries_lose_their_last_pictures() -> None:
    pictures = tuple(Picture(f"{n}", bytes(3000), "image/jpeg", 8, 8, "alt") for n in range(10))
    page = _page(Gallery("maps", "Maps", pictures))
    cut, _ = within(page, len(render_page(page)) - 20_000)
    (gallery,) = _blocks(cut)
    assert isinstance(gallery, Gallery)
    assert 0 < len(gallery.pictures) < 6
    assert gallery.pictures == pictures[: len(gallery.pictures)]
    assert gallery.notes == (
        f"The first {len(gallery.pictures)} of 10 pictures are shown, to keep the page small.",
    )


def test_results_and_verdict_are_complete_and_a_page_that_is_too_large_says_so() -> None:
    results = _table("numbers", 400)
    page = _page(_table("cells", 400), kept=(results,))
    cut, document = within(page, 30_000)
    assert cut.sections[0].blocks == (results,)
    assert cut.verdict == page.verdict
    (left,) = _blocks(cut)
    assert isinstance(left, DataTable)
    assert len(left.rows) == 1
    assert cut.made[-1] == "The page is larger than 0.03 MB, although what can be cut is cut."
    assert re.search(r"larger than 0.03 MB", document.decode())
