"""The page within its bytes: what is larger than others is cut, and says so.

Sections keep their charts and tables small by shares of the page (`engine.report.page.room`), which are
estimates. Here the finished page is measured. Where it is too large, a level is found to which tables and
galleries are cut, and above which charts are left out, so that small blocks stay as they are. The
verdict, the validity box and the tables of results are never cut.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from engine.report.page.blocks import (
    Block,
    Chart,
    Command,
    DataTable,
    Details,
    Gallery,
    Page,
    Paragraph,
    Section,
)
from engine.report.page.render import render_page, size_of, unique
from engine.report.page.room import first_rows

#: Ids of sections whose blocks are never cut, but for those that are folded away.
_KEPT_WHOLE = frozenset(("validity", "results", "about"))
#: How often a page is cut, and the share of its bytes that notes and heads of tables may take beside.
_TRIES, _BESIDE = 4, 0.04
#: Rows and pictures that are left at least.
_LEAST = 1
_SMALL = "to keep the page small"


@dataclass(frozen=True)
class _Sized:
    """A block that can be cut.

    Attributes:
        size: bytes that it takes on the page.
        parts: rows or pictures that it can be cut to; 0 for a chart, which is there or not.
    """

    size: int
    parts: int

    def at(self, level: float) -> float:
        """Return the bytes that are left of it at a level."""
        if self.size <= level:
            return self.size
        return max(level, self.size / self.parts * _LEAST) if self.parts else 0.0


def within(page: Page, max_bytes: int) -> tuple[Page, bytes]:
    """Return a page and its document, cut where the document is larger than `max_bytes`.

    It is never refused: a page that cannot be cut so far is returned as small as it gets, and says so.
    """
    document = render_page(page)
    if len(document) <= max_bytes:
        return page, document
    page = unique(page)  # sizes are known by the ids
    sizes = {identity: sized for one in page.sections for identity, sized in _sizes(one)}
    fixed = len(document) - sum(one.size for one in sizes.values())
    cut, target = page, (1 - _BESIDE) * max_bytes
    for _ in range(_TRIES):
        level = _level(sizes.values(), target - fixed)
        sections = (replace(one, blocks=_cut_blocks(one.blocks, sizes, level)) for one in page.sections)
        cut = replace(page, sections=tuple(sections))
        document = render_page(cut)
        if len(document) <= max_bytes or not level:
            break
        target *= 0.98 * max_bytes / len(document)
    if len(document) > max_bytes:
        note = f"The page is larger than {max_bytes / 1e6:g} MB, although what can be cut is cut."
        cut = replace(cut, made=(*cut.made, note))
        document = render_page(cut)
    return cut, document


def _level(blocks: Iterable[_Sized], room: float) -> float:
    """Return the highest level at which all blocks together fit into some bytes."""
    own = list(blocks)
    low, high = 0.0, float(max((one.size for one in own), default=0))
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(one.at(middle) for one in own) <= room else (low, middle)
    return low


def _sizes(section: Section) -> Iterator[tuple[str, _Sized]]:
    for block in section.blocks:
        if section.id not in _KEPT_WHOLE or isinstance(block, Details):
            yield from _sizes_in(block)


def _sizes_in(block: Block) -> Iterator[tuple[str, _Sized]]:
    if isinstance(block, Details):
        for inner in block.blocks:
            yield from _sizes_in(inner)
    elif isinstance(block, DataTable):
        yield block.id, _Sized(size_of(block), len(block.rows))
    elif isinstance(block, Gallery):
        yield block.id, _Sized(size_of(block), len(block.pictures))
    elif isinstance(block, Chart):
        yield block.id, _Sized(len(block.svg.encode()), 0)
        if block.table is not None:
            yield from _sizes_in(block.table)


def _cut_blocks(blocks: Iterable[Block], sizes: Mapping[str, _Sized], level: float) -> tuple[Block, ...]:
    return tuple(_cut_block(one, sizes, level) for one in blocks)


def _cut_block(block: Block, sizes: Mapping[str, _Sized], level: float) -> Block:
    if isinstance(block, Details):
        return replace(block, blocks=_cut_blocks(block.blocks, sizes, level))
    if isinstance(block, Paragraph | Command):
        return block
    if isinstance(block, Chart) and block.table is not None:
        table = _cut_block(block.table, sizes, level)
        assert isinstance(table, DataTable)
        block = replace(block, table=table)
    own = sizes.get(block.id)
    if own is None or own.size <= level:
        return block
    if isinstance(block, Chart):
        text = f"{block.title}: not drawn, {_SMALL}."
        return (
            Paragraph(text)
            if block.table is None
            else replace(block.table, caption=f"{text} {block.table.caption}")
        )
    left = max(_LEAST, int(own.parts * level / own.size))
    if isinstance(block, Gallery):
        note = f"The first {left:,} of {len(block.pictures):,} pictures are shown, {_SMALL}."
        return replace(block, pictures=block.pictures[:left], notes=(*block.notes, note))
    return first_rows(block, left)
