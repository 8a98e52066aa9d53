"""Layout of plain tables for a terminal of a given width.

Numbers are never broken or cut. Names (text without spaces) are shortened in the middle, and different names
stay different. Other text is wrapped between words. If the columns do not fit side by side, the table is
split into blocks that repeat the key columns, by which its rows differ; on a very narrow terminal each cell
has its own line. Rows keep their order.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

#: Width of the narrowest terminal that is supported, and of output that is not a terminal.
NARROWEST, USUAL = 40, 80
GAP = "  "
#: Minimum widths of names and of prose, and the width of names in a table that is split anyway.
_LEAST_NAME, _LEAST_PROSE, _EASY_NAME = 16, 12, 40
#: Longest word that is not broken but widens its column, and longest text that counts as a number.
_LONGEST_WORD = 24
#: Number of rows from which the widths of prose columns are estimated.
_SAMPLE = 200
_DIGITS = r"[-+−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?%?|[-+−]?(?:inf|nan)"
_NUMBER = re.compile(rf"(?:{_DIGITS})†?(?:\s*(?:±|-|–|\+/-|/|x|to)\s*(?:{_DIGITS}))*")
#: Pieces of a word that is too long: it may be broken after a sign, never inside a number.
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
        columns: headings.
        rows: cells, which are numbers or text without control characters.
        width: of the terminal; at least `NARROWEST` is used.
        ellipsis: replaces the middle of shortened names.
        rule: character of the line below the headings.
    """
    width = max(width, NARROWEST)
    table = [_Column(head, tuple(row[i] for row in rows), ellipsis) for i, head in enumerate(columns)]
    if (side_by_side := _fit_widths(table, width)) is not None:
        return _block_lines(table, side_by_side, rule)
    blocks = _blocks(table, _key_columns(table), width)
    if blocks is None:
        return _vertical_lines(table, width)
    output: list[str] = []
    for block in blocks:
        widths = _fit_widths(block, width)
        assert widths is not None  # `_blocks` returns only blocks that fit
        output += [*([""] if output else []), *_block_lines(block, widths, rule)]
    return output


def cells(text: str) -> int:
    """Return the number of terminal columns that a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def is_number(cell: object) -> bool:
    """Return whether a cell is a number, an interval of two, or a number with its error."""
    if isinstance(cell, int | float):
        return True
    text = str(cell).strip()
    return len(text) <= _LONGEST_WORD and _NUMBER.fullmatch(text) is not None


def shown(cell: object) -> str:
    """Format a cell: floats with four significant digits, integers with thousands separators."""
    if isinstance(cell, float):
        return f"{cell:.4g}"
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return str(cell)


def shortened(names: Sequence[str], width: int, ellipsis: str = "…") -> dict[str, str]:
    """Return name -> the name, or its beginning and end; different names stay different.

    If no choice of beginning and end keeps them different at this width, they are numbered in their order.
    """
    distinct = list(dict.fromkeys(names))
    return _shorten_distinctly(distinct, width, ellipsis) or _shorten_numbered(distinct, width, ellipsis)


def _shorten_distinctly(names: Sequence[str], width: int, ellipsis: str) -> dict[str, str] | None:
    """Shorten unique names so that they stay different; None if they have to be numbered."""
    for head in _head_lengths(width - cells(ellipsis)):
        short_names: dict[str, str] = {}
        used = set[str]()
        for name in names:
            short = _cut_middle(name, width, head, ellipsis)
            if short in used:
                break
            used.add(short)
            short_names[name] = short
        else:
            return short_names
    return None


def _shorten_numbered(names: Sequence[str], width: int, ellipsis: str) -> dict[str, str]:
    digits = len(str(len(names)))
    short_names: dict[str, str] = {}
    for number, name in enumerate(names, 1):
        mark = f"#{number:0{digits}}"
        room = max(width - len(mark), cells(ellipsis))
        short = name if cells(name) <= width else _cut_middle(name, room, (room + 1) // 2, ellipsis) + mark
        short_names[name] = short
    return short_names


def _head_lengths(room: int) -> list[int]:
    """Return the possible lengths of the beginning of a shortened name, the balanced one first."""
    middle = (room + 1) // 2
    return sorted(range(max(room + 1, 1)), key=lambda head: (abs(head - middle), -head))


def _cut_middle(text: str, width: int, head: int, ellipsis: str) -> str:
    """Shorten a text to `width` columns: `head` of its beginning, the rest from its end."""
    if cells(text) <= width:
        return text
    tail = width - cells(ellipsis) - head
    return _beginning(text, head) + ellipsis + _beginning(text[::-1], tail)[::-1]


def _beginning(text: str, width: int) -> str:
    """Return as much of the beginning of a text as fits."""
    if text.isascii():
        return text[: max(width, 0)]
    used = 0
    for i, character in enumerate(text):
        used += cells(character)
        if used > width:
            return text[:i]
    return text


def wrapped(text: str, width: int) -> list[str]:
    """Wrap a text between words into lines of at most `width` columns; its indentation is repeated.

    A word that is too long is broken after a sign, or anywhere if it has none; numbers are not broken.
    """
    if cells(text) <= width:
        return [text]
    indent = text[: len(text) - len(text.lstrip())]
    indent = indent if cells(indent) < width // 2 else ""
    full_lines, line = list[str](), indent
    for word in text.split():
        extended = line + (" " if line.strip() else "") + word
        if cells(extended) <= width:
            line = extended
            continue
        if line.strip():
            full_lines.append(line)
        *word_lines, line = _break_word(word, width, indent)
        full_lines += word_lines
    return [*full_lines, line]


def _break_word(word: str, width: int, indent: str) -> list[str]:
    full_lines, line = list[str](), indent
    for piece in _PIECE.findall(word):
        if line.strip() and cells(line + piece) > width:
            full_lines.append(line)
            line = indent
        line += piece
        while cells(line) > width and not is_number(line):
            part = _beginning(line, width)
            full_lines.append(part)
            line = indent + line[len(part) :]
    return [*full_lines, line]


@dataclass(frozen=True)
class _Column:
    """A column, and the widths it can have.

    Attributes:
        head: heading.
        values: cells.
        ellipsis: see `lines`.
    """

    head: str
    values: tuple[Any, ...]
    ellipsis: str

    @cached_property
    def texts(self) -> list[str]:
        """The formatted cells."""
        return [shown(value) for value in self.values]

    @cached_property
    def numeric(self) -> bool:
        """True if it is right-aligned, having numbers and blanks only."""
        typed = any(isinstance(value, int | float) for value in self.values)
        return typed and all(
            isinstance(value, int | float) or text.strip() in ("", "-")
            for value, text in zip(self.values, self.texts, strict=True)
        )

    @cached_property
    def numbers(self) -> list[bool]:
        """For each cell, True if it is a number."""
        return [is_number(value) for value in self.values]

    @cached_property
    def names(self) -> list[str]:
        """The cells that are shortened if there is no room."""
        return [
            text
            for text, number in zip(self.texts, self.numbers, strict=True)
            if not number and " " not in text
        ]

    @cached_property
    def prose(self) -> list[str]:
        """The cells that are wrapped if there is no room."""
        return [
            text for text, number in zip(self.texts, self.numbers, strict=True) if not number and " " in text
        ]

    @cached_property
    def natural(self) -> int:
        """Width of its widest cell."""
        return max(map(cells, self.texts), default=0)

    @cached_property
    def head_floor(self) -> int:
        """Width of the heading's longest word."""
        return max((min(cells(word), _LONGEST_WORD) for word in self.head.split()), default=0)

    @cached_property
    def number_floor(self) -> int:
        """Width below which a number or the heading would be broken."""
        pairs = zip(self.texts, self.numbers, strict=True)
        return max([self.head_floor, *(cells(text) for text, number in pairs if number)])

    @cached_property
    def prose_floor(self) -> int:
        """Width below which a word of usual length would be broken."""
        words = max((cells(word) for text in self.prose for word in text.split()), default=0)
        least = max(_LEAST_PROSE, min(words, _LONGEST_WORD))
        return min(max(map(cells, self.prose), default=0), least)

    @cached_property
    def name_floor(self) -> int:
        """Smallest width at which its shortened names differ without numbers."""
        widest = max(map(cells, self.names), default=0)
        distinct = list(dict.fromkeys(self.names))
        for width in range(min(widest, _LEAST_NAME), widest):
            if _shorten_distinctly(distinct, width, self.ellipsis) is not None:
                return width
        return widest

    @cached_property
    def floor(self) -> int:
        """Smallest width at which it is legible."""
        return max(self.number_floor, self.prose_floor, self.name_floor)

    @cached_property
    def easy(self) -> int:
        """Minimum width in a table that is split anyway, so that there is room for names."""
        names = max(map(cells, self.names), default=0)
        return max(self.floor, min(names, max(_EASY_NAME, self.name_floor)))

    def cell_lines(self, width: int) -> list[list[str]]:
        """Return the lines of each cell."""
        short = shortened(self.names, width, self.ellipsis)
        return [
            [text] if number else wrapped(text, width) if " " in text else [short[text]]
            for text, number in zip(self.texts, self.numbers, strict=True)
        ]

    def height(self, width: int) -> int:
        """Estimate the number of lines of its prose."""
        return sum(-(-cells(text) // max(width, 1)) for text in self.prose[:_SAMPLE])


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _fit_widths(table: Sequence[_Column], width: int) -> list[int] | None:
    """Return widths of columns that stand side by side; None if they do not fit.

    Headings are narrowed first, then prose, where that costs the fewest lines, and names last.
    """
    widths = [max(column.natural, cells(column.head)) for column in table]
    floors: list[Callable[[_Column], int]] = [
        lambda column: max(column.natural, column.head_floor),
        lambda column: max(column.number_floor, column.prose_floor, *map(cells, column.names)),
        _floor,
    ]
    for floor in floors:
        minimum = [floor(column) for column in table]
        while _total(widths) > width:
            narrowable = [i for i, least in enumerate(minimum) if widths[i] > least]
            if not narrowable:
                break
            i = min(narrowable, key=lambda i: (_cost(table[i], widths[i]), -widths[i], i))
            widths[i] -= 1
        else:
            return widths
    return None


def _cost(column: _Column, width: int) -> int:
    """Return the lines that a column's prose gains if it is narrowed by one."""
    return column.height(width - 1) - column.height(width)


def _key_columns(table: Sequence[_Column]) -> int:
    """Return the number of leading columns, at most three, whose values identify the rows; else 1."""
    rows = list(zip(*(column.texts for column in table), strict=True))
    for count in (1, 2, 3):
        if len({row[:count] for row in rows}) == len(rows):
            return count
    return 1


def _blocks(table: Sequence[_Column], keys: int, width: int) -> list[list[_Column]] | None:
    """Group the columns into blocks that fit, each after the key columns; None if a single one does not fit.

    Names are shortened only if that gives fewer blocks.
    """
    tight, easy = _grouped(table, keys, width, _floor), _grouped(table, keys, width, _easy)
    return easy if easy is not None and tight is not None and len(easy) == len(tight) else tight


def _floor(column: _Column) -> int:
    return column.floor


def _easy(column: _Column) -> int:
    return column.easy


def _grouped(
    table: Sequence[_Column], keys: int, width: int, measure: Callable[[_Column], int]
) -> list[list[_Column]] | None:
    key_columns, blocks = list(table[:keys]), list[list[_Column]]()
    for column in table[keys:]:
        if blocks and _total([measure(member) for member in (*blocks[-1], column)]) <= width:
            blocks[-1].append(column)
        else:
            blocks.append([*key_columns, column])
    fits = all(_total([measure(column) for column in block]) <= width for block in blocks)
    return blocks if blocks and fits else None


def _block_lines(table: Sequence[_Column], widths: Sequence[int], rule: str) -> list[str]:
    headings = [wrapped(column.head, width) for column, width in zip(table, widths, strict=True)]
    output = _row_lines(table, widths, headings, align_bottom=True)
    output.append(rule * _total(widths))
    columns = [column.cell_lines(width) for column, width in zip(table, widths, strict=True)]
    for row in zip(*columns, strict=True):
        output += _row_lines(table, widths, row)
    return output


def _row_lines(
    table: Sequence[_Column], widths: Sequence[int], row: Sequence[list[str]], align_bottom: bool = False
) -> list[str]:
    """Return the lines of a row, whose cells are aligned at the top or, for headings, at the bottom."""
    height = max(map(len, row), default=0)
    output = []
    for line in range(height):
        parts = []
        for column, width, cell in zip(table, widths, row, strict=True):
            i = line - (height - len(cell) if align_bottom else 0)
            text = cell[i] if 0 <= i < len(cell) else ""
            space = " " * (width - cells(text))
            parts.append(space + text if column.numeric else text + space)
        output.append(GAP.join(parts).rstrip())
    return output


def _vertical_lines(table: Sequence[_Column], width: int) -> list[str]:
    """Lay out one line for each cell, with a blank line between rows."""
    heading_width = min(max(cells(column.head) for column in table), width // 3)
    room = width - heading_width - len(GAP)
    columns = [column.cell_lines(room) for column in table]
    output: list[str] = []
    for row in zip(*columns, strict=True):
        output += [""] if output else []
        for column, cell in zip(table, row, strict=True):
            headings = wrapped(column.head, heading_width)
            for i in range(max(len(headings), len(cell))):
                heading = headings[i] if i < len(headings) else ""
                text = cell[i] if i < len(cell) else ""
                output.append(f"{heading}{' ' * (heading_width - cells(heading))}{GAP}{text}".rstrip())
    return output
