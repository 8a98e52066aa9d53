"""Values at a place of a study file, converted or refused with their line."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from engine.errors import Refused
from engine.models.catalog.suggest import close_matches, either_of
from engine.study.document import Node
from engine.study.kinds import Option
from stores.json_types import Json

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
#: Names that Windows keeps to itself.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
#: Most items of a list, and longest text.
_MAX_ITEMS, _MAX_TEXT = 1000, 1000
#: Words that other versions of YAML take for true and false.
_FORMER = {"yes": "true", "on": "true", "no": "false", "off": "false"}


@dataclass(frozen=True)
class Value:
    """A value of a study file and where it stands.

    Attributes:
        file: name of the file.
        path: keys that lead to it, e.g. `evaluations.fewshot.n_way`.
        node: the value.
        line: of its key.
    """

    file: str
    path: str
    node: Node
    line: int

    def refused(self, rule: str, remedy: str, shown: str | None = None) -> Refused:
        """Return an error about this value; `shown` stands in place of the value's own text."""
        own = f" = {self.node.text[:60]}" if self.node.text else ""
        text = own if shown is None else shown
        return Refused(f"{self.file}, line {self.line}: {self.path}{text}", rule, remedy)

    def members(self, known: Sequence[str] | None = None) -> "dict[str, Value]":
        """Return the members of a mapping; nothing at all is an empty one.

        Args:
            known: keys that it may have; None for any. `n-way` is taken for `n_way`.

        Raises:
            Refused: no mapping, or an unknown key, which is named with the known ones like it.
        """
        if self.node.kind == "nothing":
            return {}
        if self.node.kind != "mapping":
            raise self.refused("It is a mapping of keys", "write KEY: VALUE in lines below it")
        values: dict[str, Value] = {}
        for member in self.node.members:
            key = member.key
            if known is not None and key not in known and key.replace("-", "_") in known:
                key = key.replace("-", "_")
            child = Value(self.file, f"{self.path}.{key}".lstrip("."), member.node, member.line)
            if known is not None and key not in known:
                raise child.refused(
                    f"It is one of {', '.join(sorted(known))}" if known else "There are no keys here",
                    suggestion(key, known) or "remove it",
                    "",
                )
            if key in values:
                raise child.refused("A key stands once", "remove one of the two", "")
            values[key] = child
        return values

    def empty(self) -> "Value":
        """Return the same place without a value: what a name alone stands for."""
        return replace(self, node=Node(None, self.node.line))

    def items(self) -> "tuple[Value, ...]":
        """Return the items of a list; a single value is a list of one. Raises Refused for a mapping."""
        if self.node.kind == "mapping":
            raise self.refused("It is a list, or a single value", "write [ONE, TWO]")
        if self.node.kind == "nothing":
            raise self.refused("It has a value", "give one, or remove the key")
        if self.node.kind != "list":
            return (self,)
        if len(self.node.items) > _MAX_ITEMS:
            raise self.refused(f"A list has at most {_MAX_ITEMS} items", "shorten it")
        return tuple(
            Value(self.file, f"{self.path}[{i}]", node, node.line) for i, node in enumerate(self.node.items)
        )

    def text(self) -> str:
        """Return a text; numbers and words are texts as they are written."""
        if self.node.kind in ("mapping", "list", "nothing") or not self.node.text.strip():
            raise self.refused("It is a text", "write a word, or a text in quotes")
        if len(self.node.text) > _MAX_TEXT:
            raise self.refused(f"A text has at most {_MAX_TEXT} characters", "shorten it")
        return self.node.text.strip()

    def name(self) -> str:
        """Return a name that files and folders can have; of a mapping's value see `check_name`."""
        return check_name(self.text(), self)

    def integer(self) -> int:
        """Return a whole number."""
        value = self.node.value
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refused("It is a whole number", "write digits, for instance 5")
        return value

    def number(self) -> float:
        """Return a number."""
        value = self.node.value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refused("It is a number", "write for instance 0.01 or 1e-6")
        return float(value)

    def switch(self) -> bool:
        """Return true or false."""
        if not isinstance(self.node.value, bool):
            meant = _FORMER.get(self.node.text.lower())
            raise self.refused("It is true or false", f"write {meant}" if meant else "write one of them")
        return self.node.value

    def word(self, known: Sequence[str]) -> str:
        """Return one of some words. Raises Refused for another, with those like it."""
        word = self.text()
        if word not in known:
            raise self.refused(f"It is one of {', '.join(known)}", suggestion(word, known) or "choose one")
        return word

    def unique(self, read: "Callable[[Value], _T]") -> tuple[_T, ...]:
        """Return the items of a list that has at least one, each once."""
        values: dict[_T, None] = {}
        for item in self.items():
            value = read(item)
            if value in values:
                raise item.refused("Each is named once", "remove one of them")
            values[value] = None
        if not values:
            raise self.refused("It names at least one", "name one, or remove the key")
        return tuple(values)

    def option(self, option: Option) -> Json:
        """Return the value of an option of a kind of evaluation, as its type says."""
        read = _READERS[option.type]
        if option.type.endswith("s"):
            return [*self.unique(read)]
        return read(self)


_READERS: Mapping[str, Callable[[Value], bool | int | float | str]] = {
    "text": Value.text,
    "texts": Value.text,
    "integer": Value.integer,
    "integers": Value.integer,
    "number": Value.number,
    "numbers": Value.number,
    "switch": Value.switch,
}


def check_name(name: str, value: Value) -> str:
    """Return a name that files and folders can have everywhere. Raises Refused for another, at the value."""
    if not _NAME.fullmatch(name):
        raise value.refused(
            f"{name[:60]!r} names files: letters, digits, - and _, at most 64, the first no sign",
            "choose such a name",
            "",
        )
    if name.lower() in _DEVICES:
        raise value.refused(f"{name} is no file's name on some systems", "choose another name", "")
    return name


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return the advice to write the words most like one; "" if none is."""
    near = close_matches(word[:100].lower(), known)
    return f"write {either_of(near)}, if that is meant" if near else ""
