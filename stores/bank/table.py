"""A bank as a table of its features, for interpreters and notebooks: reads no embedding, raises nothing."""

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stores.backends import files
from stores.backends.location import Place
from stores.bank.feature_info import FeatureInfo
from stores.bank.layout import RUN_DOCUMENT
from stores.bank.names import Roster

_HEAD = ("feature", "rows", "dim", "ok", "failed", "pending", "dtype", "state")
#: Features listed, and characters of a text shown, at most: a path fits.
_MOST, _LONGEST = 100, 600


@dataclass(frozen=True)
class BankTable:
    """The shown features of a bank.

    Attributes:
        title: one line about the bank.
        lines: cells of each feature, as many as `_HEAD`; a damaged one has its reason as its state.
        note: a remark below the lines; empty if there is none.
    """

    title: str
    lines: tuple[tuple[str, ...], ...]
    note: str = ""

    @classmethod
    def of(cls, path: Place, rows: int, info: Callable[[str, str], FeatureInfo]) -> "BankTable":
        """Read the documents of a bank's features.

        Args:
            path, rows: of the bank.
            info: gives a feature's counts, by its full name and its title.
        """
        title = f"Bank {plain(str(path))}: {rows} image{'' if rows == 1 else 's'}"
        try:
            if files.stat_if_there(path / RUN_DOCUMENT) is None:
                return cls(title, (), "it is no longer there")
            roster = Roster.of(path)
            lines = tuple(_lines(roster, info))
        except Exception as error:  # a repr must not raise
            return cls(title, (), f"its features cannot be listed: {_reason(error)}")
        count = len(roster.entries)
        title += f", {count} feature{'' if count == 1 else 's'}"
        return cls(title, lines, f"and {count - _MOST} more" if count > _MOST else "")

    def text(self) -> str:
        """Align the columns, numbers to the right."""
        table = [_HEAD, *self.lines] if self.lines else []
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if place in (0, 6, 7) else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in table
        ]
        return "\n".join([self.title, *lines, *([self.note] if self.note else [])])

    def html(self) -> str:
        """Write an HTML table; every text is escaped."""
        head = "".join(f"<th>{name}</th>" for name in _HEAD)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>" for line in self.lines
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if self.lines else ""
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return f"<div><p>{html.escape(self.title)}</p>{table}{note}</div>"


def plain(text: str) -> str:
    """Return text on one line that is safe on a terminal: escape what is not printable, cut long text."""
    cut = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in cut)


def _lines(roster: Roster, info: Callable[[str, str], FeatureInfo]) -> Iterator[tuple[str, ...]]:
    for entry in roster.entries[:_MOST]:
        title = roster.title(entry.feature)
        try:
            of = info(entry.feature, title)
            state = "finished" if of.sealed else "unfinished"
            counts = (of.rows, of.dim, of.ok, of.failed, of.pending)
            yield plain(title), *map(str, counts), of.dtype, state
        except Exception as error:  # a damaged feature must not hide the others
            yield plain(title), *[""] * (len(_HEAD) - 2), _reason(error)


def _reason(error: Exception) -> str:
    return plain(str(getattr(error, "found", "") or error) or type(error).__name__)
