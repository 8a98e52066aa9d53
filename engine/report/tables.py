"""Layout of plain tables for a terminal of a given width.

A number is never broken or cut. A name (text without a space) is shortened in the middle, and two different
names never look alike. Other text is wrapped between words. Where the columns do not fit side by side, the
table becomes several blocks that repeat the columns by which its rows are told apart, or, on a very narrow
terminal, one line a cell. Rows stay in the order given.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

#: Columns of the narrowest terminal that is served, and of output that is no terminal.
NARROWEST, USUAL = 40, 80
GAP = "  "
#: Widths that names and prose keep as long as there is another way, and what a name has in a split table.
_LEAST_NAME, _LEAST_PROSE, _EASY_NAME = 16, 12, 40
#: Longest word that makes a column wider instead of being broken, and longest text that is a number.
_LONGEST_WORD = 24
#: Rows that decide how width is shared between columns of prose.
_SAMPLE = 200
_DIGITS = r"[-+−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?%?|[-+−]?(?:inf|nan)"
_NUMBER = re.compile(rf"(?:{_DIGITS})(?:\s*(?:±|-|–|\+/-|/|x|to)\s*(?:{_DIGITS}))*")
#: Where a word that is too long may be broken: after a sign, never inside a number.
_PIECE = re.compile(r"[\d.,]*\d|[^\W\d_]+|.", re.DOTALL)


def lines(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    width: int,
    *,
    ellipsis: str = "…",
    rule: str = "─",
) -> list[str]:
    """Lay out a table; no line is wider than `width`.

    Args:
        columns: heads.
        rows: cells: numbers, or text without control characters.
        width: cells of the terminal; less than `NARROWEST` is taken as that.
        ellipsis: stands for what a shortened name lacks.
        rule: fills the line below the heads.
    """
    width = max(width, NARROWEST)
    table = [_Column(head, tuple(row[i] for row in rows), ellipsis) for i, head in enumerate(columns)]
    if (side_by_side := _fitted(table, width)) is not None:
        return _drawn(table, side_by_side, rule)
    blocks = _blocks(table, _keys(table), width)
    if blocks is None:
        return _upright(table, width)
    drawn: list[str] = []
    for block in blocks:
        widths = _fitted(block, width)
        assert widths is not None  # `_blocks` looked
        drawn += [*([""] if drawn else []), *_drawn(block, widths, rule)]
    return drawn


def cells(text: str) -> int:
    """Columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def is_number(cell: object) -> bool:
    """Whether a cell is a number, an interval of two, or a number with its error."""
    if isinstance(cell, int | float):
        return True
    text = str(cell).strip()
    return len(text) <= _LONGEST_WORD and _NUMBER.fullmatch(text) is not None


def shown(cell: object) -> str:
    """A cell as text: four significant digits of a float, thousands of an int apart."""
    if isinstance(cell, float):
        return f"{cell:.4g}"
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return str(cell)


def shortened(names: Sequence[str], width: int, ellipsis: str = "…") -> dict[str, str]:
    """Name -> the name, or its beginning and end; different names stay different.

    Where no choice of beginning and end tells names apart at this width, they are numbered in their order.
    """
    distinct = list(dict.fromkeys(names))
    return _told_apart(distinct, width, ellipsis) or _numbered(distinct, width, ellipsis)


def _told_apart(names: Sequence[str], width: int, ellipsis: str) -> dict[str, str] | None:
    """As `shortened`, of names that occur once; None where they would have to be numbered."""
    for head in _heads(width - cells(ellipsis)):
        found: dict[str, str] = {}
        taken = set[str]()
        for name in names:
            short = _cut(name, width, head, ellipsis)
            if short in taken:
                break
            taken.add(short)
            found[name] = short
        else:
            return found
    return None


def _numbered(names: Sequence[str], width: int, ellipsis: str) -> dict[str, str]:
    digits = len(str(len(names)))
    found: dict[str, str] = {}
    for at, name in enumerate(names, 1):
        mark = f"#{at:0{digits}}"
        room = max(width - len(mark), cells(ellipsis))
        found[name] = name if cells(name) <= width else _cut(name, room, (room + 1) // 2, ellipsis) + mark
    return found


def _heads(room: int) -> list[int]:
    """Lengths of the beginning that may be kept, the balanced one first."""
    middle = (room + 1) // 2
    return sorted(range(max(room + 1, 1)), key=lambda head: (abs(head - middle), -head))


def _cut(text: str, width: int, head: int, ellipsis: str) -> str:
    """A text of at most `width` cells: `head` cells of its beginning, the rest from its end."""
    if cells(text) <= width:
        return text
    tail = width - cells(ellipsis) - head
    return _taken(text, head) + ellipsis + _taken(text[::-1], tail)[::-1]


def _taken(text: str, width: int) -> str:
    """As much of the beginning as fits."""
    if text.isascii():
        return text[: max(width, 0)]
    used = 0
    for at, character in enumerate(text):
        used += cells(character)
        if used > width:
            return text[:at]
    return text


def wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most `width` cells, broken between words; its indentation is repeated.

    A word that is longer is broken after a sign, and only where it has none inside; numbers are not broken.
    """
    if cells(text) <= width:
        return [text]
    indent = text[: len(text) - len(text.lstrip())]
    indent = indent if cells(indent) < width // 2 else ""
    found, line = list[str](), indent
    for word in text.split():
        spaced = line + (" " if line.strip() else "") + word
        if cells(spaced) <= width:
            line = spaced
            continue
        if line.strip():
            found.append(line)
        *full, line = _broken(word, width, indent)
        found += full
    return [*found, line]


def _broken(word: str, width: int, indent: str) -> list[str]:
    found, line = list[str](), indent
    for piece in _PIECE.findall(word):
        if line.strip() and cells(line + piece) > width:
            found.append(line)
            line = indent
        line += piece
        while cells(line) > width and not is_number(line):
            part = _taken(line, width)
            found.append(part)
            line = indent + line[len(part) :]
    return [*found, line]


@dataclass(frozen=True)
class _Column:
    """A column, and how narrow it can be.

    Attributes:
        head: its name.
        values: its cells.
        ellipsis: see `lines`.
    """

    head: str
    values: tuple[Any, ...]
    ellipsis: str

    @cached_property
    def texts(self) -> list[str]:
        return [shown(value) for value in self.values]

    @cached_property
    def numeric(self) -> bool:
        """Whether it stands to the right: numbers and blanks only."""
        typed = any(isinstance(value, int | float) for value in self.values)
        return typed and all(
            isinstance(value, int | float) or text.strip() in ("", "-")
            for value, text in zip(self.values, self.texts, strict=True)
        )

    @cached_property
    def numbers(self) -> list[bool]:
        return [is_number(value) for value in self.values]

    @cached_property
    def names(self) -> list[str]:
        """The cells that are shortened where there is no room."""
        return [
            text
            for text, number in zip(self.texts, self.numbers, strict=True)
            if not number and " " not in text
        ]

    @cached_property
    def prose(self) -> list[str]:
        """The cells that are wrapped where there is no room."""
        return [
            text for text, number in zip(self.texts, self.numbers, strict=True) if not number and " " in text
        ]

    @cached_property
    def natural(self) -> int:
        """Width of its widest cell."""
        return max(map(cells, self.texts), default=0)

    @cached_property
    def head_floor(self) -> int:
        """Width of the head's longest word."""
        return max((min(cells(word), _LONGEST_WORD) for word in self.head.split()), default=0)

    @cached_property
    def number_floor(self) -> int:
        pairs = zip(self.texts, self.numbers, strict=True)
        return max([self.head_floor, *(cells(text) for text, number in pairs if number)])

    @cached_property
    def prose_floor(self) -> int:
        """Width without which a usual word would be broken."""
        words = max((cells(word) for text in self.prose for word in text.split()), default=0)
        least = max(_LEAST_PROSE, min(words, _LONGEST_WORD))
        return min(max(map(cells, self.prose), default=0), least)

    @cached_property
    def name_floor(self) -> int:
        """Width at which its names, shortened, are still told apart."""
        widest = max(map(cells, self.names), default=0)
        distinct = list(dict.fromkeys(self.names))
        for width in range(min(widest, _LEAST_NAME), widest):
            if _told_apart(distinct, width, self.ellipsis) is not None:
                return width
        return widest

    @cached_property
    def floor(self) -> int:
        """Width below which it cannot be drawn well."""
        return max(self.number_floor, self.prose_floor, self.name_floor)

    @cached_property
    def easy(self) -> int:
        """Width in a table that is split in any case, where there is room for names."""
        names = max(map(cells, self.names), default=0)
        return max(self.floor, min(names, max(_EASY_NAME, self.name_floor)))

    def drawn(self, width: int) -> list[list[str]]:
        """The lines of each cell."""
        short = shortened(self.names, width, self.ellipsis)
        return [
            [text] if number else wrapped(text, width) if " " in text else [short[text]]
            for text, number in zip(self.texts, self.numbers, strict=True)
        ]

    def height(self, width: int) -> int:
        """Lines that its prose would take, about."""
        return sum(-(-cells(text) // max(width, 1)) for text in self.prose[:_SAMPLE])


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _fitted(table: Sequence[_Column], width: int) -> list[int] | None:
    """Widths of columns that stand side by side; None where there is no room for that.

    Heads give way first, then prose, where that costs the fewest lines, and names last.
    """
    widths = [max(column.natural, cells(column.head)) for column in table]
    floors: list[Callable[[_Column], int]] = [
        lambda c: max(c.natural, c.head_floor),
        lambda c: max(c.number_floor, c.prose_floor, *map(cells, c.names)),
        _floor,
    ]
    for floor in floors:
        least = [floor(column) for column in table]
        while _total(widths) > width:
            open_ = [i for i, least_i in enumerate(least) if widths[i] > least_i]
            if not open_:
                break
            i = min(open_, key=lambda i: (_cost(table[i], widths[i]), -widths[i], i))
            widths[i] -= 1
        else:
            return widths
    return None


def _cost(column: _Column, width: int) -> int:
    """Lines that a column's prose takes more where it is narrower by one."""
    return column.height(width - 1) - column.height(width)


def _keys(table: Sequence[_Column]) -> int:
    """How many of the first columns tell the rows apart; three at most."""
    rows = list(zip(*(column.texts for column in table), strict=True))
    for count in (1, 2, 3):
        if len({row[:count] for row in rows}) == len(rows):
            return count
    return 1


def _blocks(table: Sequence[_Column], keys: int, width: int) -> list[list[_Column]] | None:
    """The columns in groups that fit, each with the keys in front; None where one column alone does not.

    Names are only shortened for fewer groups.
    """
    close, easy = _grouped(table, keys, width, _floor), _grouped(table, keys, width, _easy)
    return easy if easy is not None and close is not None and len(easy) == len(close) else close


def _floor(column: _Column) -> int:
    return column.floor


def _easy(column: _Column) -> int:
    return column.easy


def _grouped(
    table: Sequence[_Column], keys: int, width: int, measure: Callable[[_Column], int]
) -> list[list[_Column]] | None:
    head, blocks = list(table[:keys]), list[list[_Column]]()
    for column in table[keys:]:
        if blocks and _total([measure(c) for c in (*blocks[-1], column)]) <= width:
            blocks[-1].append(column)
        else:
            blocks.append([*head, column])
    fits = all(_total([measure(c) for c in block]) <= width for block in blocks)
    return blocks if blocks and fits else None


def _drawn(table: Sequence[_Column], widths: Sequence[int], rule: str) -> list[str]:
    heads = [wrapped(column.head, width) for column, width in zip(table, widths, strict=True)]
    drawn = _row(table, widths, heads, at_the_foot=True)
    drawn.append(rule * _total(widths))
    columns = [column.drawn(width) for column, width in zip(table, widths, strict=True)]
    for row in zip(*columns, strict=True):
        drawn += _row(table, widths, row)
    return drawn


def _row(
    table: Sequence[_Column], widths: Sequence[int], row: Sequence[list[str]], at_the_foot: bool = False
) -> list[str]:
    """The lines of a row; heads stand on the rule, cells hang from their first line."""
    height = max(map(len, row), default=0)
    found = []
    for at in range(height):
        parts = []
        for column, width, cell in zip(table, widths, row, strict=True):
            line = at - (height - len(cell) if at_the_foot else 0)
            text = cell[line] if 0 <= line < len(cell) else ""
            space = " " * (width - cells(text))
            parts.append(space + text if column.numeric else text + space)
        found.append(GAP.join(parts).rstrip())
    return found


def _upright(table: Sequence[_Column], width: int) -> list[str]:
    """One line a cell, a blank line between rows."""
    label = min(max(cells(column.head) for column in table), width // 3)
    room = width - label - len(GAP)
    columns = [column.drawn(room) for column in table]
    found: list[str] = []
    for row in zip(*columns, strict=True):
        found += [""] if found else []
        for column, cell in zip(table, row, strict=True):
            heads = wrapped(column.head, label)
            for at in range(max(len(heads), len(cell))):
                head = heads[at] if at < len(heads) else ""
                text = cell[at] if at < len(cell) else ""
                found.append(f"{head}{' ' * (label - cells(head))}{GAP}{text}".rstrip())
    return found
