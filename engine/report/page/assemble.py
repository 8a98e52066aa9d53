"""The page from records: the verdict, then every section that has something to show."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from engine.report.page.blocks import Page, Section
from engine.report.page.cutting import within
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.room import room_for
from engine.report.page.sections import (
    about,
    across,
    cells,
    certificates,
    comparisons,
    confusion,
    curves,
    external,
    failures,
    invariance_gallery,
    invariance_views,
    label_efficiency,
    learning_curves,
    losses,
    matrix,
    neighbours,
    protocols,
    reconstruction_gallery,
    reliability,
    saliency_gallery,
    selection,
    strata,
    validity,
    worst_errors,
)
from engine.report.page.sections.verdict import verdict


class SectionModule(Protocol):
    """A module that makes sections; none where there is nothing to show."""

    def sections(self, page: PageInput, options: PageOptions) -> tuple[Section, ...]: ...


#: The sections in the order of the page, the validity box first.
SECTIONS: tuple[SectionModule, ...] = (
    validity,
    matrix,
    across,
    comparisons,
    strata,
    external,
    label_efficiency,
    selection,
    curves,
    reliability,
    confusion,
    learning_curves,
    invariance_views,
    invariance_gallery,
    saliency_gallery,
    reconstruction_gallery,
    losses,
    worst_errors,
    neighbours,
    protocols,
    certificates,
    failures,
    cells,
    about,
)


def page_of(page: PageInput, options: PageOptions, further: Iterable[Section] = ()) -> Page:
    """Return the page of some records.

    Args:
        page: the records.
        options: how the page is made.
        further: sections from elsewhere, which stand before the last section.
    """
    options = replace(options, room=room_for(page))
    own = [section for module in SECTIONS for section in module.sections(page, options)]
    sections = _joined([*own[:-1], *further, *own[-1:]])
    return Page(page.title, verdict(page, options), sections, about.made(page, options))


def _joined(sections: Iterable[Section]) -> tuple[Section, ...]:
    """Return the sections, neighbours of one title as one."""
    joined: list[Section] = []
    for one in sections:
        if joined and joined[-1].title == one.title:
            joined[-1] = replace(joined[-1], blocks=(*joined[-1].blocks, *one.blocks))
        else:
            joined.append(one)
    return tuple(joined)


def report_html(page: PageInput, options: PageOptions, further: Iterable[Section] = ()) -> bytes:
    """Return the page of some records as an HTML document within its bytes; arguments as for `page_of`."""
    _, document = within(page_of(page, options, further), options.max_bytes)
    return document
