"""A page as one self-contained HTML file, which opens from a disk and makes no request.

Every text is escaped, and characters that change the direction of text are shown as codes. A content
security policy admits the page's own style and script by their SHA-256 and pictures as data, nothing else.
The same page gives the same bytes.
"""

import base64
import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from engine.report.page import tables
from engine.report.page.anchors import anchor, distinct
from engine.report.page.blocks import Block, Chart, DataTable, Details, Page, Picture, Section
from engine.report.page.texts import parts_of, shown

#: By which a page is known to be one.
GENERATOR = '<meta name="generator" content="embank report">'
_TEMPLATES = "templates"
_TONES = {"good": "Good", "note": "Note", "warning": "Caution", "error": "Problem"}


def render_page(page: Page) -> bytes:
    """Return the page as an HTML document in UTF-8.

    Ids that occur twice are told apart by a number; links lead to the first.
    """
    page = unique(page)
    sections = page.sections
    style, script = _sources(".css"), _sources(".js")
    document = _environment().get_template("page.html")
    text = document.render(
        page=page,
        sections=sections,
        generator=Markup(GENERATOR),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        data=Markup(_data(sections)),
    )
    return (text + "\n").encode()


def unique(page: Page) -> Page:
    """Return the page with valid ids that occur once."""
    return replace(page, sections=distinct(page.sections))


def size_of(block: Block) -> int:
    """Return about how many bytes a block takes on a page, the data of its tables included."""
    macros: Any = _environment().get_template("blocks.html").module
    data = (tables.document(table) for table in _tables([block]))
    written = sum(len(json.dumps(one, separators=(",", ":"))) for one in data)
    return len(str(macros.block(block)).encode()) + written


def tables_of(page: Page) -> Iterable[DataTable]:
    """Go through the tables of a page, with the ids that they have there."""
    for section in unique(page).sections:
        yield from _tables(section.blocks)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("engine.report.page", _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_final,
        keep_trailing_newline=False,
    )
    environment.filters |= {
        "anchor": anchor,
        "breaking": _breaking,
        "data_uri": _data_uri,
        "drawing": _drawing,
        "heads": tables.heads,
        "kind": lambda block: type(block).__name__,
        "parts": parts_of,
        "tone_name": _TONES.__getitem__,
    }
    return environment


def _final(value: Any) -> Any:
    """Return what a template prints: plain texts in a printable form, markup as it is."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _breaking(text: str) -> Markup:
    """Return a name that may be broken after its slashes and underscores."""
    body = str(escape(shown(text)))
    return Markup(body.replace("/", "/<wbr>").replace("_", "_<wbr>"))


def _sources(ending: str) -> str:
    """Return all files of the templates with an ending, in the order of their names."""
    folder = resources.files("engine.report.page") / _TEMPLATES
    files = sorted((file for file in folder.iterdir() if file.name.endswith(ending)), key=lambda f: f.name)
    return "\n" + "\n".join(file.read_text("utf-8").strip() for file in files) + "\n"


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(sections: Iterable[Section]) -> str:
    """Return the data of all tables as JSON that may stand in a script element."""
    body = {
        "tables": {
            table.id: tables.document(table) for section in sections for table in _tables(section.blocks)
        },
        "tex": tables.TEX,
    }
    text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _tables(blocks: Iterable[Block]) -> Iterable[DataTable]:
    """Go through the tables of blocks, inner ones included."""
    for block in blocks:
        if isinstance(block, DataTable):
            yield block
        elif isinstance(block, Chart) and block.table is not None:
            yield block.table
        elif isinstance(block, Details):
            yield from _tables(block.blocks)


def _drawing(svg: str) -> Markup:
    """Return an SVG as markup; its texts are escaped by `engine.report.page.svg`."""
    return Markup(svg)


def _data_uri(picture: Picture) -> str:
    return f"data:{picture.mime};base64,{base64.b64encode(picture.data).decode()}"
