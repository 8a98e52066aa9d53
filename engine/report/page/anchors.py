"""Ids of a page's blocks: valid, and different from one another."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from engine.report.page.blocks import Block, Chart, DataTable, Details, Gallery, Section

#: Ids of the page itself.
_OWN = ("content", "data", "said", "theme", "theme-name")


def anchor(text: str) -> str:
    """Return text as an id: lower case letters, digits and hyphens, starting with a letter."""
    body = re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")
    return body if body[:1].isalpha() else f"x-{body}"


def distinct(sections: Iterable[Section]) -> tuple[Section, ...]:
    """Return the sections with valid ids that occur once; a second one of the same name gets a number."""
    taken = Counter[str](_OWN)
    return tuple(replace(one, id=_new(one.id, taken), blocks=_blocks(one.blocks, taken)) for one in sections)


def _new(wish: str, taken: Counter[str]) -> str:
    name = anchor(wish)
    while name in taken:
        taken[name] += 1
        name = f"{name}-{taken[name]}"
    taken[name] = 1
    return name


def _blocks(blocks: Iterable[Block], taken: Counter[str]) -> tuple[Block, ...]:
    return tuple(_block(one, taken) for one in blocks)


def _block(one: Block, taken: Counter[str]) -> Block:
    if isinstance(one, DataTable | Gallery):
        return replace(one, id=_new(one.id, taken))
    if isinstance(one, Chart):
        own = _new(one.id, taken)
        table = replace(one.table, id=_new(one.table.id, taken)) if one.table else None
        return replace(one, id=own, table=table)
    if isinstance(one, Details):
        return replace(one, id=_new(one.id, taken), blocks=_blocks(one.blocks, taken))
    return one
