"""Study files as YAML: a tree of values with line numbers. The only module that imports yaml.

The subset of YAML that is accepted cannot name code, repeat itself or grow: no tags, anchors or aliases, one
document, limits of size and depth, and no key twice. Words are read as in YAML 1.2: `no` is a text, `1e-6` a
number.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from engine.errors import MachineFault, Refused

#: Largest file in bytes, and deepest nesting. `paper.yaml` has 6 kB and a depth of 4.
MAX_BYTES, MAX_DEPTH = 1 << 18, 16
#: Most digits of a number: 2^63 has 19.
_MAX_DIGITS = 20
_WHOLE = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,4})?")
_WORDS: "dict[str, bool | None]" = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
#: Categories of Unicode that nobody sees: controls, formats, surrogates, private, unassigned, separators; and
#: spaces, of which only the plain one separates words in YAML.
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs")

Scalar: TypeAlias = bool | int | float | str | None


@dataclass(frozen=True)
class Node:
    """A value of a study file.

    Attributes:
        value: a scalar, the nodes of a list, or the members of a mapping in order of the file.
        line: counted from 1.
        text: of a scalar, as it is written.
    """

    value: "Scalar | tuple[Node, ...] | tuple[Member, ...]"
    line: int
    text: str = ""

    @property
    def kind(self) -> str:
        """`mapping`, `list`, or the name of the scalar's type."""
        if isinstance(self.value, tuple):
            return "mapping" if isinstance(self, MappingNode) else "list"
        return _KINDS[type(self.value)]

    @property
    def items(self) -> "tuple[Node, ...]":
        """The nodes of a list; none of anything else."""
        value: Any = self.value
        return value if self.kind == "list" else ()

    @property
    def members(self) -> "tuple[Member, ...]":
        """The members of a mapping; none of anything else."""
        value: Any = self.value
        return value if self.kind == "mapping" else ()


@dataclass(frozen=True)
class MappingNode(Node):
    """A mapping, which unlike a list may be empty and is one nevertheless."""


@dataclass(frozen=True)
class Member:
    """A key of a mapping with its value; `line` is the key's."""

    key: str
    node: Node
    line: int


_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    type(None): "nothing",
}


def read_document(path: Path) -> tuple[Node, str]:
    """Read a study file; nothing of it is executed, and no other file is opened.

    Returns:
        The file's mapping, and its text.

    Raises:
        Refused: no such file, no regular file, too large, not UTF-8, an invisible character, no YAML, or a
            part of YAML that study files do not have; with the line.
        MachineFault: I/O error.
    """
    text = _text(path)
    node = _tree(text, path.name)
    if node.kind != "mapping":
        raise refused(
            path.name, node.line, node.kind, "A study file is a mapping", "begin it with study: NAME"
        )
    return node, text


def refused(name: str, line: int, what: str, rule: str, remedy: str) -> Refused:
    """Return an error of a line of a study file."""
    return Refused(f"{name}, line {line}: {what}", rule, remedy)


def _text(path: Path) -> str:
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # before it is opened: a FIFO blocks, a device may never end
            raise Refused(f"{path} is no regular file", "A study is a text file", "name another file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise Refused(f"{path} is not there", "A study is a file in YAML", "name another file") from None
    except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
        raise Refused(
            f"{path}: {os.strerror(error.errno or 0)}", "A study is a readable text file", "name another file"
        ) from None
    except ValueError:
        raise Refused(f"{str(path)[:60]!r}", "A path has no zero character", "name another file") from None
    except OSError as error:
        raise MachineFault(
            f"{path}: {os.strerror(error.errno or 0)}", "The file is read from the disk", "try again"
        ) from error
    if len(data) > MAX_BYTES:
        raise Refused(
            f"{path} has more than {MAX_BYTES:,} bytes",
            "A study file is a page or two of text",
            "name the study file, or shorten it",
        )
    return _decoded(data, path.name)


def _decoded(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refused(
            name, line, f"byte {data[error.start]:#04x}", "Study files are UTF-8", "save it as UTF-8"
        ) from None
    for number, line_text in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        _refuse_invisible(line_text, name, number, also="\t")
    return text


def _refuse_invisible(text: str, name: str, line: int, also: str = "") -> None:
    if text.isascii() and text.isprintable():
        return
    for character in text:
        category = unicodedata.category(character)
        if character == " " or character in also or category not in _INVISIBLE:
            continue
        raise refused(
            name,
            line,
            f"{'space' if category == 'Zs' else 'invisible character'} U+{ord(character):04X}",
            "A study file says what can be seen",
            "write a plain space" if category == "Zs" else "remove the character",
        )


def _tree(text: str, name: str) -> Node:
    """Build the tree from the parser's events, without recursion."""
    builder = _Builder(name)
    try:
        for event in _events(text):
            builder.add(event)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = str(getattr(error, "problem", "") or "it is no YAML")
        raise refused(
            name,
            mark.line + 1 if mark else 1,
            " ".join(problem.split())[:120],
            "A study file is YAML",
            "correct the line; a space follows every colon, and texts with `: ` or ` #` stand in quotes",
        ) from None
    return builder.root or Node(None, 1)


def _events(text: str) -> Iterator[Any]:
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where it was built
    return iter(yaml.parse(text, Loader=loader))


class _Builder:
    """Makes nodes of events.

    Attributes:
        root: of the tree, once it is there.
    """

    def __init__(self, name: str) -> None:
        self.root: Node | None = None
        self._name = name
        self._open: list[_Open] = []
        self._documents = 0

    def add(self, event: Any) -> None:
        """Take one more event of the parser. Raises Refused for what study files do not have."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._refused(line, "a second document", "A file is one study", "make two files")
        if isinstance(event, yaml.NodeEvent):
            self._check(event, line)
        if isinstance(event, yaml.ScalarEvent):
            self._put(self._scalar(event, line))
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            if len(self._open) == MAX_DEPTH:
                raise self._refused(
                    line, f"more than {MAX_DEPTH} levels", "Study files are shallow", "put it higher up"
                )
            self._open.append(_Open(isinstance(event, yaml.MappingStartEvent), line))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._put(self._open.pop().node())

    def _check(self, event: Any, line: int) -> None:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise self._refused(
                line,
                f"{sign}{event.anchor}"[:60],
                "Study files have no anchors and aliases",
                "write the value out, or put it in quotes if it is a text",
            )
        if event.tag is not None:
            raise self._refused(
                line, f"tag {event.tag}"[:60], "Study files have no tags, which could name code", "remove it"
            )

    def _scalar(self, event: Any, line: int) -> Node:
        text = event.value
        _refuse_invisible(text, self._name, line, also="\n\t")
        if not event.implicit[0]:  # it stands in quotes, or as a block
            return Node(text, line, text)
        if text in _WORDS:
            return Node(_WORDS[text], line, text)
        if _WHOLE.fullmatch(text) or _NUMBER.fullmatch(text):
            if len(text) > _MAX_DIGITS + 10:
                raise self._refused(line, f"{text[:20]}...", "Numbers have a few digits", "shorten it")
            return Node(int(text) if _WHOLE.fullmatch(text) else float(text), line, text)
        return Node(text, line, text)

    def _put(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if not parent.mapping:
            parent.nodes.append(node)
        elif parent.key is None:
            parent.key = self._key(node, parent)
        else:
            parent.members.append(Member(parent.key[0], node, parent.key[1]))
            parent.key = None

    def _key(self, node: Node, parent: "_Open") -> tuple[str, int]:
        if node.kind in ("mapping", "list", "nothing"):
            raise self._refused(node.line, f"a {node.kind} as a key", "Keys are words", "write KEY: VALUE")
        key = node.text
        if key in parent.keys:
            raise self._refused(
                node.line,
                f"{key[:60]!r} again, first in line {parent.keys[key]}",
                "A key stands once",
                "remove one, or give it another name",
            )
        parent.keys[key] = node.line
        return key, node.line

    def _refused(self, line: int, what: str, rule: str, remedy: str) -> Refused:
        return refused(self._name, line, what, rule, remedy)


class _Open:
    """A mapping or list whose end has not come yet."""

    def __init__(self, mapping: bool, line: int) -> None:
        self.mapping, self.line = mapping, line
        self.nodes: list[Node] = []
        self.members: list[Member] = []
        self.keys: dict[str, int] = {}
        self.key: tuple[str, int] | None = None

    def node(self) -> Node:
        """Return it as a node."""
        if self.mapping:
            return MappingNode(tuple(self.members), self.line)
        return Node(tuple(self.nodes), self.line)
