"""How galleries are cut: evenly, within their bytes, and only as many pictures are made as are shown."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from engine.report.page.blocks import Gallery, Paragraph, Picture
from engine.report.page.budget import budget_of, evenly, size_of
from engine.report.page.galleries import cut_galleries
from engine.report.page.inputs import PageInput, PageOptions, Source
from engine.report.page.render import render_page
from stores.backends.location import place
from stores.bank.record_index import RecordEntry
from stores.bank.records import RunRecord


def _picture(size: int) -> Picture:
    return Picture("a title", bytes(size), "image/jpeg", 8, 8, "what it shows")


def _group(size: int) -> Callable[[], tuple[Picture, ...]]:
    return lambda: (_picture(size),)


sizes = st.lists(st.lists(st.integers(0, 3000), max_size=5), max_size=5)


@given(sizes, st.integers(0, 40_000))
def test_no_shelf_has_more_than_another_unless_it_ends(shelves: list[list[int]], budget: int) -> None:
    taken = evenly([[_group(size) for size in shelf] for shelf in shelves], budget)
    assert sum(size_of(group) for groups in taken for group in groups) <= budget
    for shelf, groups in zip(shelves, taken, strict=True):
        assert [len(group[0].data) for group in groups] == shelf[: len(groups)]
    counts = [len(groups) for groups in taken]
    most = max(counts, default=0)
    for shelf, count in zip(shelves, counts, strict=True):
        assert count == len(shelf) or count == most or most == 1


@given(sizes)
def test_everything_is_taken_where_there_is_room(shelves: list[list[int]]) -> None:
    taken = evenly([[_group(size) for size in shelf] for shelf in shelves], 10**9)
    assert [len(groups) for groups in taken] == [len(shelf) for shelf in shelves]


def test_what_is_left_out_is_said_and_not_made() -> None:
    made = []

    def group(number: int) -> Callable[[], tuple[Picture, ...]]:
        return lambda: made.append(number) or (_picture(3000),)  # type: ignore[func-returns-value]

    shelves = [(f"shelf {i}", [(f"{j}", group(10 * i + j)) for j in range(50)]) for i in range(2)]
    blocks = cut_galleries("g", shelves, 3 * 2 * 5000, "images")
    galleries = [block for block in blocks if isinstance(block, Gallery)]
    assert [one.title for one in galleries] == [f"shelf {i}: {j}" for i in range(2) for j in range(3)]
    assert len({one.id for one in galleries}) == 6
    notes = [block.text for block in blocks if isinstance(block, Paragraph)]
    assert notes == ["94 of 100 images are left out, evenly, to keep the page small."]
    assert len(made) <= 8


def test_the_size_of_pictures_is_at_least_what_they_take_on_the_page() -> None:
    from engine.report.page.blocks import Page, Section

    def bytes_of(count: int) -> int:
        pictures = tuple(_picture(1001) for _ in range(count))
        return len(render_page(Page("p", sections=(Section("s", "s", (Gallery("g", "g", pictures),)),))))

    assert 0 < bytes_of(11) - bytes_of(1) <= size_of([_picture(1001)] * 10)


def test_kinds_share_the_bytes_alike() -> None:
    page = PageInput("p", ())
    assert budget_of("errors", page, PageOptions(max_bytes=1_000_000)) == 500_000
    record = RunRecord.now("saliency", asked={}, used={}, metrics={}, seconds={})
    entries = tuple(RecordEntry(f"{number}", "", record) for number in range(150))
    page = PageInput("p", (Source("s", place("bank"), entries),))
    two_kinds = [budget_of(kind, page, PageOptions(max_bytes=1_000_000)) for kind in ("errors", "saliency")]
    # 150 records leave 0.95 - 0.6 MB: a half for each of the two kinds, all of it for the only one.
    assert two_kinds == [175_000, 350_000]
    assert budget_of("saliency", page, PageOptions(max_bytes=100_000)) == 5_000
