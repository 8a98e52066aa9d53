"""The page from records: the verdict, then every section that has something to show."""

from collections.abc import Iterable
from typing import Protocol

from engine.report.page.blocks import Page, Section
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.render import render_page
from engine.report.page.sections import about, matrix, protocols, validity
from engine.report.page.sections.verdict import verdict


class SectionModule(Protocol):
    """A module that makes sections; none where there is nothing to show."""

    def sections(self, page: PageInput, options: PageOptions) -> tuple[Section, ...]: ...


#: The sections in the order of the page, the validity box first.
SECTIONS: tuple[SectionModule, ...] = (validity, matrix, protocols, about)


def page_of(page: PageInput, options: PageOptions, further: Iterable[Section] = ()) -> Page:
    """Return the page of some records.

    Args:
        page: the records.
        options: how the page is made.
        further: sections from elsewhere, which stand before the last section.
    """
    own = [section for module in SECTIONS for section in module.sections(page, options)]
    sections = (*own[:-1], *further, *own[-1:])
    return Page(page.title, verdict(page, options), sections, about.made(page, options))


def report_html(page: PageInput, options: PageOptions, further: Iterable[Section] = ()) -> bytes:
    """Return the page of some records as an HTML document; arguments as for `page_of`."""
    return render_page(page_of(page, options, further))
