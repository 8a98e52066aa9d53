"""The files of a page: the page itself, and each of its tables as CSV and LaTeX."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from engine.report.page import tables
from engine.report.page.assemble import page_of
from engine.report.page.blocks import DataTable, Section
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.render import GENERATOR, render_page, tables_of
from stores import outputs
from stores.backends.location import Place
from stores.bank.reader import Bank
from stores.outputs import Images

ENDINGS = (".html",)
#: Size of a page that leaves nothing out.
_UNLIMITED = 1 << 50
#: Bytes in which a file says that it was made here.
_HEAD = 2048


@dataclass(frozen=True)
class Output:
    """Where a page goes.

    Attributes:
        page: ends in .html.
        tables: folder for the tables; None for none.
        force: replace files of another origin.
        banks: whose images nothing replaces.
    """

    page: Path
    tables: Path | None
    force: bool
    banks: tuple[Place, ...]

    def check(self) -> None:
        """Refuse what must not or cannot be written, before anything is made. Raises Refused."""
        force = self.force or _begins(self.page, GENERATOR)
        outputs.check_file(self.page, ENDINGS, force=force)
        for images in self._images() if self.page.exists() else ():
            outputs.check_file(self.page, ENDINGS, force=force, images=_constant(images))
        if self.tables is not None:
            outputs.check_folder(self.tables)

    def write(
        self, page: PageInput, options: PageOptions, further: Iterable[Section] = ()
    ) -> tuple[int, tuple[Path, ...]]:
        """Write everything; return the bytes of the page and the files of the tables.

        Raises:
            Refused: a table's file is there already and of another origin; nothing was written.
            MachineFault: the disk is full or fails.
        """
        further = tuple(further)
        made = page_of(page, options, further)
        files = self._tables(page, options, further)
        self._check_tables(files)
        document = render_page(made)
        for path, text in files.items():
            with outputs.new_file(path) as file:
                file.write(text.encode("utf-8", "surrogatepass"))
        with outputs.new_file(self.page) as file:
            file.write(document)
        return len(document), tuple(files)

    def _tables(
        self, page: PageInput, options: PageOptions, further: tuple[Section, ...]
    ) -> dict[Path, str]:
        """Return file -> contents. Tables that the page shows in part are complete here."""
        if self.tables is None:
            return {}
        own: list[DataTable] = list(tables_of(page_of(page, replace(options, max_bytes=_UNLIMITED), further)))
        return {
            self.tables / f"{table.id}.{ending}": write(table)
            for table in own
            for ending, write in (("csv", tables.csv_of), ("tex", tables.tex_of))
        }

    def _check_tables(self, files: Iterable[Path]) -> None:
        present = [path for path in files if path.exists()]
        for images in self._images() if present else ():
            for path in present:
                ours = _begins(path.with_suffix(".tex"), tables.TEX_FIRST)
                outputs.refuse_in_folder(path, ours, images, self.force)

    def _images(self) -> list[Images]:
        return [Images.of(Bank.open(bank).manifest()) for bank in self.banks]


def _constant(images: Images) -> Callable[[], Images]:
    return lambda: images


def _begins(path: Path, words: str) -> bool:
    """Return whether a file has some words near its beginning."""
    try:
        with path.open("rb") as file:
            return words.encode() in file.read(_HEAD)
    except OSError:
        return False
