"""What a page consists of: sections of paragraphs, tables, charts and pictures, before any HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

#: How grave a note is.
Tone = Literal["good", "note", "warning", "error"]


@dataclass(frozen=True)
class Value:
    """A cell of a table.

    Attributes:
        text: as it is shown; plain text, escaped by the page.
        number: full precision, by which columns are sorted and which CSV files get; None for texts.
        low, high: ends of its interval; None where there is none.
        reason: why it is undefined, or what limits it; shown on demand.
        tone: colour, e.g. `error` for a number below a control; None for none.
        strong: whether it is emphasised, e.g. not told from the best.
        link: id of a block or section that it leads to; "" for none.
    """

    text: str
    number: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    tone: Tone | None = None
    strong: bool = False
    link: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: of its head.
        numeric: aligned to the right, sorted by number.
        hint: what it means, shown on demand.
        group: columns of one group stand under one head; "" for none.
    """

    title: str
    numeric: bool = False
    hint: str = ""
    group: str = ""


@dataclass(frozen=True)
class DataTable:
    """A sortable table, also given as CSV and LaTeX.

    Attributes:
        id: unique on the page, e.g. `table-accuracy`; names the CSV and LaTeX files.
        caption: one sentence or more, with n and what an interval is over.
        columns, rows: each row has a value for each column; the first is the row's head.
        notes: below the table.
    """

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A chart as SVG.

    Attributes:
        id: unique on the page.
        title: caption.
        svg: an `<svg>` element without script, or several in a `<div>`, made by `engine.report.page.svg`,
            which escapes its texts.
        alt: what a person who cannot see it is told: what is drawn, and what it shows.
        table: the numbers that are drawn; None where a table of the section has them.
        notes: below the chart.
    """

    id: str
    title: str
    svg: str
    alt: str
    table: DataTable | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A raster picture, e.g. a saliency map.

    Attributes:
        title: caption.
        data: file, e.g. of a JPEG.
        mime: e.g. `image/jpeg`.
        width, height: in pixels.
        alt: what a person who cannot see it is told.
    """

    title: str
    data: bytes
    mime: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Gallery:
    """Pictures beside one another.

    Attributes:
        id: unique on the page.
        title: caption.
        pictures: in order.
        notes: below them.
    """

    id: str
    title: str
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text; `tone` puts it into a box."""

    text: str
    tone: Tone | None = None


@dataclass(frozen=True)
class Command:
    """A shell command that makes something again, with what it makes."""

    text: str
    what: str = ""


@dataclass(frozen=True)
class Details:
    """Blocks that are shown on demand, under a summary."""

    id: str
    summary: str
    blocks: "tuple[Block, ...]"


Block: TypeAlias = Paragraph | DataTable | Chart | Gallery | Command | Details


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes:
        id: unique on the page; in the table of contents.
        title: its heading.
        blocks: in order.
    """

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """The whole page.

    Attributes:
        title: of the document.
        verdict: sentences in large type at the top: which model is better, and whether that is real.
        sections: in order.
        made: what stands in the footer: versions, and unless left out dates.
    """

    title: str
    verdict: Sequence[Paragraph] = ()
    sections: tuple[Section, ...] = ()
    made: tuple[str, ...] = field(default=())
