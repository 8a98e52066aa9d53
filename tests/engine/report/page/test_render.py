"""The page as HTML: everything escaped, ids that occur once, a policy for its own style and script."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from engine.report.page.blocks import (
    Chart,
    Column,
    Command,
    DataTable,
    Details,
    Gallery,
    Page,
    Paragraph,
    Picture,
    Section,
    Value,
)
from engine.report.page.render import render_page, tables_of

HOSTILE = [
    "<script>alert(1)</script>",
    '"onload="alert(1)" x="',
    "' onmouseover='alert(1)",
    "</script><img src=x onerror=alert(1)>",
    "=HYPERLINK(1)",
    "abc\u202etxt.exe",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;",
    "<!--",
    "]]>",
    "a\x00b\x1b[31m",
    "\ud800",
]


class Reader(HTMLParser):
    """Elements, attributes and texts of a page, as a browser's parser takes them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.inside: dict[str, list[str]] = {"style": [], "script": []}
        self.open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "wbr":  # where a name may be broken
            return
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag in self.inside:
            self.open = tag
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.open = "" if tag == self.open else self.open

    def handle_data(self, data: str) -> None:
        if self.open:
            self.inside[self.open][-1] += data
        else:
            self.texts.append(data)


def read(page: Page) -> tuple[str, Reader]:
    text = render_page(page).decode("utf-8")
    reader = Reader()
    reader.feed(text)
    return text, reader


def page_with(word: str) -> Page:
    """A page that has a word in every place that takes text."""
    table = DataTable(
        word,
        word,
        (Column(word, hint=word, group=word), Column(word, numeric=True)),
        ((Value(word, reason=word, link=word), Value(word, 1.5, 1.0, 2.0)),),
        (word,),
    )
    blocks = (
        Paragraph(word, "note"),
        table,
        Chart(word, word, "<svg></svg>", word, table, (word,)),
        Gallery(word, word, (Picture(word, b"\xff\xd8", "image/jpeg", 2, 3, word),), (word,)),
        Command(word, word),
        Details(word, word, (Paragraph(word), table)),
    )
    return Page(word, (Paragraph(word),), (Section(word, word, blocks), Section(word, word, ())), (word,))


@pytest.mark.parametrize("word", HOSTILE)
def test_a_hostile_name_stays_a_text(word: str) -> None:
    text, reader = read(page_with(word))
    _, plain = read(page_with("harmless"))
    assert [tag for tag, _ in reader.elements] == [tag for tag, _ in plain.elements]
    assert [set(a) - {"class"} for _, a in reader.elements] == [set(a) - {"class"} for _, a in plain.elements]
    assert not any(name.startswith("on") or name == "style" for _, a in reader.elements for name in a)
    assert not set(text) & set("\x00\x1b\u202e\ud800")
    visible = re.sub("[\x00\x1b\u202e\ud800]", "", word)
    shown = "".join(reader.texts)
    assert visible in shown or repr(word)[1:-1] in shown


def test_the_reader_would_see_what_is_not_escaped() -> None:
    reader = Reader()
    reader.feed(f"<p>{HOSTILE[3]}</p>")
    assert any("onerror" in found for _, found in reader.elements)


@pytest.mark.parametrize("word", ["harmless", *HOSTILE])
def test_ids_are_valid_and_occur_once_and_links_lead_to_them(word: str) -> None:
    _, reader = read(page_with(word))
    ids = [found["id"] for _, found in reader.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z][a-z0-9_-]*", one) for one in ids)
    targets = [found["href"] for tag, found in reader.elements if tag == "a"]
    assert all(target[:1] == "#" and target[1:] in ids for target in targets)
    labels = [found[name] for _, found in reader.elements for name in found if name.startswith("aria-")]
    named = [one for _, found in reader.elements for one in found.get("aria-labelledby", "").split()]
    assert labels and set(named) <= set(ids)


def policy_of(reader: Reader) -> dict[str, str]:
    (content,) = [
        a["content"] for _, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy"
    ]
    return dict(part.strip().split(" ", 1) for part in content.split(";"))


@pytest.mark.parametrize("word", ["harmless", HOSTILE[3]])
def test_the_policy_admits_the_own_style_and_script_and_nothing_else(word: str) -> None:
    _, reader = read(page_with(word))
    (style,), (script, data) = reader.inside["style"], reader.inside["script"]
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'"
        for one in (style, script)
    ]
    assert policy_of(reader) == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": digests[0],
        "script-src": digests[1],
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    kinds = [a.get("type") for tag, a in reader.elements if tag == "script"]
    assert kinds == [None, "application/json"] and json.loads(data)["tables"]
    assert not set(data) & set("<>&"), "nothing that could end the element, or begin a comment"
    assert not re.search(r"https?://|@import|url\(", style + script)


def test_nothing_is_loaded_from_elsewhere() -> None:
    _, reader = read(page_with("harmless"))
    assert not {tag for tag, _ in reader.elements} & {"link", "iframe", "object", "embed", "base", "form"}
    sources = [a["src"] for _, a in reader.elements if "src" in a]
    assert sources and all(source.startswith("data:image/") for source in sources)


def test_the_same_page_gives_the_same_bytes() -> None:
    assert render_page(page_with("one")) == render_page(page_with("one"))
    assert render_page(page_with("one")) != render_page(page_with("two"))


def test_a_picture_has_its_size_and_what_it_shows() -> None:
    _, reader = read(page_with("a map"))
    (image,) = [found for tag, found in reader.elements if tag == "img"]
    assert (image["width"], image["height"], image["alt"]) == ("2", "3", "a map")
    assert base64.b64decode(image["src"].partition(",")[2]) == b"\xff\xd8"


def test_the_data_has_every_table_in_full_precision() -> None:
    number = 0.1 + 0.2
    table = DataTable(
        "numbers", "n", (Column("a", True),), ((Value("0.3", number, 1 / 3, 2 / 3, strong=True),),)
    )
    page = Page("p", sections=(Section("s", "s", (Details("d", "d", (table,)), table)),))
    _, reader = read(page)
    tables = json.loads(reader.inside["script"][1])["tables"]
    assert list(tables) == ["numbers", "numbers-2"] == [one.id for one in tables_of(page)]
    assert tables["numbers"]["rows"] == [[["0.3", number, 1 / 3, 2 / 3, 1]]]


def test_without_a_script_nothing_is_hidden_and_heads_name_their_columns() -> None:
    _, reader = read(page_with("harmless"))
    assert not any("hidden" in found for _, found in reader.elements)
    heads = [found.get("scope") for tag, found in reader.elements if tag == "th"]
    assert set(heads) == {"col", "row", "colgroup"}
